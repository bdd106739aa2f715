#include <algorithm>
#include <cmath>

#include "kernels/device/cpu_common.h"
#include "kernels/sinks/attention_sinks.h"

namespace plumb::kernels {
namespace {

template <class T>
void Forward(const AttentionSinks& k) {
  const int64_t width = int64_t{k.heads} * k.head_dim;
#pragma omp parallel for schedule(static) if (k.tokens * width > kParallelElements)
  for (int64_t t = 0; t < k.tokens; ++t) {
    for (int32_t h = 0; h < k.heads; ++h) {
      const float sink = ToFloat(static_cast<const T*>(k.sinks)[h]);
      float& lse = k.lse[h * k.tokens + t];
      const float most = std::max(lse, sink),
                  all = most + std::log(std::exp(lse - most) + std::exp(sink - most)),
                  share = std::exp(lse - all);
      lse = all;
      T* out = static_cast<T*>(k.out) + t * width + int64_t{h} * k.head_dim;
#pragma omp simd
      for (int32_t i = 0; i < k.head_dim; ++i) out[i] = FromFloat<T>(ToFloat(out[i]) * share);
    }
  }
}

template <class T>
void Backward(const AttentionSinksBackward& k) {
  const int64_t width = int64_t{k.heads} * k.head_dim;
#pragma omp parallel for schedule(static) if (k.tokens * width > kParallelElements)
  for (int32_t h = 0; h < k.heads; ++h) {
    const float sink = ToFloat(static_cast<const T*>(k.sinks)[h]);
    double sum = 0;
    for (int64_t t = 0; t < k.tokens; ++t) {
      const int64_t at = t * width + int64_t{h} * k.head_dim;
      const T *dout = static_cast<const T*>(k.dout) + at, *out = static_cast<const T*>(k.out) + at;
      float both = 0;
#pragma omp simd reduction(+ : both)
      for (int32_t i = 0; i < k.head_dim; ++i) both += ToFloat(dout[i]) * ToFloat(out[i]);
      sum += static_cast<double>(std::exp(sink - k.lse[h * k.tokens + t]) * both);
    }
    k.dsinks[h] -= static_cast<float>(sum);
  }
}

}  // namespace

void AttentionSinks::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Forward<T>(*this); });
}

void AttentionSinksBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Backward<T>(*this); });
}

}  // namespace plumb::kernels
