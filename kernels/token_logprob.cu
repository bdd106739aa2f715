#include "kernels/device/cuda_common.h"
#include "kernels/token_logprob.h"

namespace plumb::kernels {
namespace {

// A running softmax over part of a row: with e = exp((x - top) / T), sum = sum of e and weighted =
// sum of e (x - top) / T.
struct Running {
  float top = -INFINITY, sum = 0, weighted = 0;

  // Measures against a higher maximum. Nothing was added while top is -inf.
  __device__ void Raise(float higher, float scale) {
    if (higher <= top) return;
    if (top != -INFINITY) {
      const float shift = (top - higher) * scale, factor = expf(shift);
      weighted = factor > 0 ? factor * (weighted + sum * shift) : 0.0f;
      sum *= factor;
    }
    top = higher;
  }
  // REQUIRES: x <= top or NaN (which stays in the sum), top finite.
  __device__ void Add(float x, float scale) {
    const float z = (x - top) * scale, e = expf(z);
    sum += e;
    weighted += e > 0 ? e * z : 0.0f;
  }
};

// One block a row, one pass over the logits.
template <int N>
__global__ void Forward(const float* logits, const int32_t* target, int64_t vocab, float scale,
                        float* logprob, float* entropy, float* lse) {
  const int64_t r = blockIdx.x;
  const float* x = logits + r * vocab;
  Running running;
  bool bad = false;
  constexpr int kBatch = 4;  // loads in flight
  for (int64_t begin = threadIdx.x * N; begin < vocab; begin += int64_t{blockDim.x} * N * kBatch) {
    Few<N, float> v[kBatch];
    float highest = -INFINITY;
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int64_t i = begin + int64_t{b} * blockDim.x * N;
      if (i < vocab) v[b] = *reinterpret_cast<const Few<N, float>*>(x + i);
#pragma unroll
      for (int u = 0; u < N; ++u) {
        if (i >= vocab) v[b].x[u] = -INFINITY;
        highest = fmaxf(highest, v[b].x[u]);
        bad |= v[b].x[u] != v[b].x[u];
      }
    }
    if (highest == -INFINITY) continue;
    running.Raise(highest, scale);
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
#pragma unroll
      for (int u = 0; u < N; ++u) running.Add(v[b].x[u], scale);
    }
  }
  const float top = BlockMax(running.top);
  running.Raise(top, scale);
  const double sum = BlockSum(static_cast<double>(running.sum)),
               weighted = BlockSum(static_cast<double>(running.weighted));
  bad = __syncthreads_or(bad || top == -INFINITY || top == INFINITY);
  if (threadIdx.x != 0) return;
  const double log_sum = log(sum);
  const float chosen = target[r] < 0 ? -INFINITY : x[target[r]];
  const double z = static_cast<double>((chosen - top) * scale);
  lse[r] = bad ? NAN : static_cast<float>(log_sum + static_cast<double>(top * scale));
  logprob[r] = bad ? NAN : static_cast<float>(fmin(0.0, z - log_sum));
  if (entropy) entropy[r] = bad ? NAN : static_cast<float>(fmax(0.0, log_sum - weighted / sum));
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
  const auto kernel = vocab % 4 == 0 && Aligned16(logits) ? Forward<4> : Forward<1>;
  const unsigned threads = vocab <= 2048 ? 128 : (vocab <= 16384 ? 256 : 512);
  kernel<<<static_cast<unsigned>(rows), threads, 0, StreamOf(launch)>>>(
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
