#include <algorithm>
#include <cmath>

#include "kernels/device/cpu_common.h"
#include "kernels/update/adamw.h"

namespace plumb::kernels {
namespace {

template <class T, class G>
void Update(float* master, float* m, float* v, const G* grad, const uint8_t* decay_mask, int64_t n,
            const AdamwOptions& o, T* param) {
  const auto step = static_cast<double>(o.step);
  const auto correct1 =
      static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(o.beta1), step)));
  const auto correct2 =
      static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(o.beta2), step)));
  const int64_t blocks = (n + kDecayBlock - 1) / kDecayBlock;
#pragma omp parallel for schedule(static) if (n > kParallelElements)
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t end = std::min(n, (b + 1) * kDecayBlock);
    const float keep =
        !decay_mask || decay_mask[b] ? 1.0f - o.learning_rate * o.weight_decay : 1.0f;
#pragma omp simd
    for (int64_t i = b * kDecayBlock; i < end; ++i) {
      const float g = ToFloat(grad[i]) * o.grad_scale;
      m[i] = o.beta1 * m[i] + (1.0f - o.beta1) * g;
      v[i] = o.beta2 * v[i] + (1.0f - o.beta2) * g * g;
      master[i] = master[i] * keep -
                  o.learning_rate * (m[i] * correct1) / (std::sqrt(v[i] * correct2) + o.eps);
      if (param) param[i] = FromFloat<T>(master[i]);
    }
  }
}

template <class G>
double Squares(const G* grad, int64_t n, double* scratch) {
  // A fixed cut into kNormScratch pieces: the same order of additions for any number of threads.
#pragma omp parallel for schedule(static) if (n > kParallelElements)
  for (int64_t b = 0; b < kNormScratch; ++b) {
    double lanes[16] = {};
    int64_t i = n * b / kNormScratch;
    const int64_t end = n * (b + 1) / kNormScratch;
    const auto square = [&](int64_t at) {
      const auto g = static_cast<double>(ToFloat(grad[at]));
      return g * g;
    };
    for (; i + 16 <= end; i += 16) {
#pragma omp simd
      for (int l = 0; l < 16; ++l) lanes[l] += square(i + l);
    }
    for (int l = 0; i < end; ++i, ++l) lanes[l] += square(i);
    double sum = 0;
    for (const double lane : lanes) sum += lane;
    scratch[b] = sum;
  }
  double total = 0;
  for (int64_t b = 0; b < kNormScratch; ++b) total += scratch[b];
  return total;
}

}  // namespace

void AdamwUpdate::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    ForDType(grad_dtype, [&]<class G>(G) {
      Update(master, m, v, static_cast<const G*>(grad), decay_mask, n, options,
             static_cast<T*>(param));
    });
  });
}

void SumOfSquares::Cpu(const Launch&) const {
  ForDType(grad_dtype,
           [&]<class G>(G) { *out = Squares(static_cast<const G*>(grad), n, scratch); });
}

}  // namespace plumb::kernels
