#include "kernels/device/cuda_common.h"
#include "kernels/head/row_mass.h"
#include "kernels/token_logprob.h"

namespace plumb::kernels {
namespace {

constexpr int kThreads = 512, kOwn = kStrands / kThreads;

// One block a row, one pass over the logits.
template <bool Vector>
__global__ void __launch_bounds__(kThreads)
    Forward(const float* logits, const int32_t* target, int64_t vocab, float scale, float* logprob,
            float* entropy, float* lse) {
  const int64_t r = blockIdx.x;
  const float* x = logits + r * vocab;
  Strand<true> strands[kOwn];
  bool bad = AddStrands<kOwn>([&](int64_t i) { return FourLogits<Vector>(x, i, vocab); }, vocab,
                              scale, strands);
  const float top = RaiseStrands<kOwn>(scale, strands);
  const Mass mass = SumStrands<kOwn>(strands);
  double weighted = 0;
#pragma unroll
  for (int s = 0; s < kOwn; ++s) weighted += static_cast<double>(strands[s].weighted);
  weighted = BlockSum(weighted);
  bad = __syncthreads_or(bad || top == -INFINITY || top == INFINITY);
  if (threadIdx.x != 0) return;
  const double log_mass = LogOfMass(mass), sum = static_cast<double>(mass) / kMassUnits;
  const float chosen = target[r] < 0 ? -INFINITY : x[target[r]];
  lse[r] = bad ? NAN : static_cast<float>(log_mass + static_cast<double>(top * scale));
  logprob[r] = bad ? NAN : LogprobOf(chosen, top, scale, log_mass);
  if (entropy) entropy[r] = bad ? NAN : static_cast<float>(fmax(0.0, log_mass - weighted / sum));
}

// blockIdx.y: the row; N logits a thread at a time.
template <int N, class T>
__global__ void Backward(const float* logits, const int32_t* target, const float* lse,
                         const float* entropy, const float* g_logprob, const float* g_entropy,
                         int64_t rows, int64_t vocab, float scale, T* dlogits) {
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const float* x = logits + r * vocab;
    T* d = dlogits + r * vocab;
    const float g = g_logprob[r], h = g_entropy ? g_entropy[r] : 0.0f, l = lse[r];
    const float row_entropy = g_entropy ? entropy[r] : 0.0f;
    const int64_t chosen = target[r];
    for (int64_t i = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * N; i < vocab;
         i += int64_t{gridDim.x} * blockDim.x * N) {
      const auto v = *reinterpret_cast<const Few<N, float>*>(x + i);
      Few<N, T> out;
#pragma unroll
      for (int u = 0; u < N; ++u) {
        const float z = v.x[u] * scale - l, p = expf(z);
        float dz = -g * p;
        if (h != 0.0f && p > 0.0f) dz -= h * p * (z + row_entropy);
        if (i + u == chosen) dz += g;
        out.x[u] = FromFloat<T>(dz * scale);
      }
      *reinterpret_cast<Few<N, T>*>(d + i) = out;
    }
  }
}

}  // namespace

void TokenLogprob::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  const auto kernel = vocab % 4 == 0 && Aligned16(logits) ? Forward<true> : Forward<false>;
  kernel<<<static_cast<unsigned>(rows), kThreads, 0, StreamOf(launch)>>>(
      logits, target, vocab, 1.0f / temperature, logprob, entropy, lse);
  CheckLaunch(kName);
}

void TokenLogprobBackward::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    const bool wide = vocab % 4 == 0 && Aligned16(logits) && Aligned16(dlogits);
    const auto kernel = wide ? Backward<4, T> : Backward<1, T>;
    const dim3 grid(Blocks(vocab, wide ? 4096 : 1024),
                    static_cast<unsigned>(rows < 65535 ? rows : 65535));
    kernel<<<grid, 256, 0, StreamOf(launch)>>>(logits, target, lse, entropy, g_logprob, g_entropy,
                                               rows, vocab, 1.0f / temperature,
                                               static_cast<T*>(dlogits));
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
