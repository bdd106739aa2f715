#include <cmath>

#include "kernels/device/cpu_common.h"
#include "kernels/update/clip_value.h"

namespace plumb::kernels {

namespace {

template <class G>
double Clip(G* grad, int64_t n, float bound, double* scratch) {
  const float most = ToFloat(FromFloat<G>(bound));
#pragma omp parallel for schedule(static) if (n > kParallelElements)
  for (int64_t b = 0; b < kNormScratch; ++b) {
    int64_t clipped = 0;
    for (int64_t i = n * b / kNormScratch; i < n * (b + 1) / kNormScratch; ++i) {
      const float g = ToFloat(grad[i]), size = std::fabs(g);
      if (!(size > most) || std::isinf(size)) continue;
      grad[i] = FromFloat<G>(std::copysign(most, g));
      ++clipped;
    }
    scratch[b] = static_cast<double>(clipped);
  }
  double total = 0;
  for (int64_t b = 0; b < kNormScratch; ++b) total += scratch[b];
  return total;
}

}  // namespace

void ClipValue::Cpu(const Launch&) const {
  ForDType(grad_dtype, [&]<class G>(G) { *out = Clip(static_cast<G*>(grad), n, bound, scratch); });
}

}  // namespace plumb::kernels
