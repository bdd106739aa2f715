#include <algorithm>
#include <cmath>

#include "kernels/device/cpu_common.h"
#include "kernels/device/vector_math.h"
#include "kernels/head/row_mass.h"
#include "kernels/token_logprob.h"

namespace plumb::kernels {
namespace {

void Forward(const float* logits, const int32_t* target, int64_t rows, int64_t vocab,
             float temperature, float* logprob, float* entropy, float* lse) {
  const float scale = 1.0f / temperature;
#pragma omp parallel for schedule(static) if (rows * vocab > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    const float* x = logits + r * vocab;
    const float top = MaxOf(x, vocab);
    // Large vocabularies are summed in blocks so that rounding grows with the block, not with V.
    double sum = 0, weighted = 0;
    for (int64_t begin = 0; begin < vocab; begin += kMassBlock) {
      const int64_t n = std::min(vocab - begin, kMassBlock);
      float e[kMassBlock];
      MassTerms(x + begin, n, top, scale, e);
      sum += static_cast<double>(SumOfTerms(e, n));
      if (!entropy) continue;
      float w = 0;
#pragma omp simd reduction(+ : w)
      for (int64_t j = 0; j < n; ++j) {
        // a masked (-inf) entry is 0 * -inf
        w += e[j] > 0.0f ? e[j] * ((x[begin + j] - top) * scale) : 0.0f;
      }
      weighted += static_cast<double>(w);
    }
    const double log_sum = std::log(sum);
    lse[r] = static_cast<float>(log_sum + static_cast<double>(top * scale));
    const float chosen = target[r] < 0 ? -INFINITY : x[target[r]];
    const double z = static_cast<double>((chosen - top) * scale);
    logprob[r] = static_cast<float>(std::min(0.0, z - log_sum));
    if (entropy) entropy[r] = static_cast<float>(std::max(0.0, log_sum - weighted / sum));
    if (std::isnan(top) || std::isnan(sum)) logprob[r] = NAN;
  }
}

template <class T>
void Backward(const float* logits, const int32_t* target, const float* lse, const float* entropy,
              const float* g_logprob, const float* g_entropy, int64_t rows, int64_t vocab,
              float temperature, T* dlogits) {
  const float scale = 1.0f / temperature;
#pragma omp parallel for schedule(static) if (rows * vocab > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    const float* x = logits + r * vocab;
    T* d = dlogits + r * vocab;
    const float g = g_logprob[r], h = g_entropy ? g_entropy[r] : 0.0f, l = lse[r];
    const float big_h = g_entropy ? entropy[r] : 0.0f;
    if (h == 0.0f) {
#pragma omp simd
      for (int64_t j = 0; j < vocab; ++j)
        d[j] = FromFloat<T>(-g * FastExp(x[j] * scale - l) * scale);
    } else {
#pragma omp simd
      for (int64_t j = 0; j < vocab; ++j) {
        const float z = x[j] * scale - l;
        const float p = FastExp(z);
        d[j] = FromFloat<T>(p > 0.0f ? (-g * p - h * p * (z + big_h)) * scale : 0.0f);
      }
    }
    if (target[r] >= 0) d[target[r]] = FromFloat<T>(ToFloat(d[target[r]]) + g * scale);
  }
}

}  // namespace

void TokenLogprob::Cpu(const Launch&) const {
  Forward(logits, target, rows, vocab, temperature, logprob, entropy, lse);
}

void TokenLogprobBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    Backward(logits, target, lse, entropy, g_logprob, g_entropy, rows, vocab, temperature,
             static_cast<T*>(dlogits));
  });
}

}  // namespace plumb::kernels
