#include "kernels/device/cuda_common.h"
#include "kernels/fp16/half_codes.h"
#include "kernels/fp16/round_half.h"

namespace plumb::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kAtOnce = 8;  // numbers of a thread: 16 bytes of codes

template <bool Wide, class T>
__global__ void Round(const T* x, int64_t n, uint16_t* code, float* value) {
  constexpr int kPacks = kAtOnce / Pack<T>::kSize;
  for (int64_t at = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * kAtOnce; at < n;
       at += int64_t{gridDim.x} * blockDim.x * kAtOnce) {
    if (!Wide || n - at < kAtOnce) {
      for (int64_t i = at; i < n && i < at + kAtOnce; ++i) {
        const uint16_t rounded = HalfCode(ToFloat(x[i]));
        if (code) code[i] = rounded;
        if (value) value[i] = HalfValue(rounded);
      }
      continue;
    }
    Pack<uint16_t> codes;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const Pack<T> from = LoadPack(x + at + p * Pack<T>::kSize);
#pragma unroll
      for (int u = 0; u < Pack<T>::kSize; ++u)
        codes.x[p * Pack<T>::kSize + u] = HalfCode(ToFloat(from.x[u]));
    }
    if (code) StorePack(code + at, codes);
    if (!value) continue;
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      Pack<float> values;
#pragma unroll
      for (int u = 0; u < 4; ++u) values.x[u] = HalfValue(codes.x[4 * p + u]);
      StorePack(value + at + 4 * p, values);
    }
  }
}

}  // namespace

void RoundToHalf::Cuda(const Launch& launch) const {
  if (n == 0) return;
  // No pointer is aligned for everything, too.
  const bool wide = Aligned16(x) && Aligned16(code) && Aligned16(value);
  ForDType(launch.dtype, [&]<class T>(T) {
    const auto kernel = wide ? Round<true, T> : Round<false, T>;
    kernel<<<Blocks(n, kThreads * kAtOnce), kThreads, 0, StreamOf(launch)>>>(
        static_cast<const T*>(x), n, code, value);
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
