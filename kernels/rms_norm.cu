#include "kernels/device/cuda_common.h"
#include "kernels/rms_norm.h"

namespace plumb::kernels {
namespace {

// One block a row; the second pass finds the row in the caches. Vector: 16-byte accesses.
template <bool Vector, class T>
__global__ void Forward(const T* x, const T* w, int64_t hidden, float eps, float offset, T* y,
                        float* rstd, T* copy) {
  AwaitEarlier();
  const T* in = x + blockIdx.x * hidden;
  T* out = y + blockIdx.x * hidden;
  constexpr int kStep = Vector ? Pack<T>::kSize : 1;
  float sum = 0;
  for (int64_t i = threadIdx.x * kStep; i < hidden; i += blockDim.x * kStep) {
    if constexpr (Vector) {
      const Pack<T> p = LoadPack(in + i);
      if (copy) StorePack(copy + blockIdx.x * hidden + i, p);
#pragma unroll
      for (int u = 0; u < kStep; ++u) sum += ToFloat(p.x[u]) * ToFloat(p.x[u]);
    } else {
      if (copy) copy[blockIdx.x * hidden + i] = in[i];
      sum += ToFloat(in[i]) * ToFloat(in[i]);
    }
  }
  const float scale = 1.0f / sqrtf(BlockSum(sum) / static_cast<float>(hidden) + eps);
  if (rstd && threadIdx.x == 0) rstd[blockIdx.x] = scale;
  for (int64_t i = threadIdx.x * kStep; i < hidden; i += blockDim.x * kStep) {
    if constexpr (Vector) {
      Pack<T> p = LoadPack(in + i);
      const Pack<T> weight = LoadPack(w + i);
#pragma unroll
      for (int u = 0; u < kStep; ++u)
        p.x[u] = FromFloat<T>(ToFloat(p.x[u]) * scale * (offset + ToFloat(weight.x[u])));
      StorePack(out + i, p);
    } else {
      out[i] = FromFloat<T>(ToFloat(in[i]) * scale * (offset + ToFloat(w[i])));
    }
  }
}

// The same, to the same bits, of a row that its threads hold: N packs each.
template <int N, class T>
__global__ void ForwardHeld(const T* x, const T* w, int64_t hidden, float eps, float offset, T* y,
                            float* rstd, T* copy) {
  AwaitEarlier();
  constexpr int kStep = Pack<T>::kSize;
  const int64_t row = blockIdx.x * hidden;
  Pack<T> held[N], weight[N];  // weights come while the row is summed
  float sum = 0;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const int64_t i = int64_t{threadIdx.x + k * blockDim.x} * kStep;
    if (i >= hidden) continue;
    held[k] = LoadPack(x + row + i);
    weight[k] = LoadPack(w + i);
    if (copy) StorePack(copy + row + i, held[k]);
#pragma unroll
    for (int u = 0; u < kStep; ++u) sum += ToFloat(held[k].x[u]) * ToFloat(held[k].x[u]);
  }
  const float scale = 1.0f / sqrtf(BlockSum(sum) / static_cast<float>(hidden) + eps);
  if (rstd && threadIdx.x == 0) rstd[blockIdx.x] = scale;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const int64_t i = int64_t{threadIdx.x + k * blockDim.x} * kStep;
    if (i >= hidden) continue;
#pragma unroll
    for (int u = 0; u < kStep; ++u) {
      held[k].x[u] =
          FromFloat<T>(ToFloat(held[k].x[u]) * scale * (offset + ToFloat(weight[k].x[u])));
    }
    StorePack(y + row + i, held[k]);
  }
}

// dx = rstd (g - x rstd^2 mean(g x)) with g = dy w; one block a row.
template <bool Vector, class T>
__global__ void BackwardInput(const T* dy, const T* x, const T* w, const float* rstd,
                              int64_t hidden, float offset, bool accumulate, T* dx) {
  const T* g = dy + blockIdx.x * hidden;
  const T* in = x + blockIdx.x * hidden;
  T* out = dx + blockIdx.x * hidden;
  constexpr int kStep = Vector ? Pack<T>::kSize : 1;
  float dot = 0;
  for (int64_t i = threadIdx.x * kStep; i < hidden; i += blockDim.x * kStep) {
    if constexpr (Vector) {
      const Pack<T> a = LoadPack(g + i), b = LoadPack(in + i), c = LoadPack(w + i);
#pragma unroll
      for (int u = 0; u < kStep; ++u)
        dot += ToFloat(a.x[u]) * (offset + ToFloat(c.x[u])) * ToFloat(b.x[u]);
    } else {
      dot += ToFloat(g[i]) * (offset + ToFloat(w[i])) * ToFloat(in[i]);
    }
  }
  const float s = rstd[blockIdx.x];
  const float c = BlockSum(dot) * s * s * s / static_cast<float>(hidden);
  for (int64_t i = threadIdx.x * kStep; i < hidden; i += blockDim.x * kStep) {
    if constexpr (Vector) {
      const Pack<T> a = LoadPack(g + i), b = LoadPack(in + i), weight = LoadPack(w + i);
      Pack<T> p = a;
      if (accumulate) p = LoadPack(out + i);
#pragma unroll
      for (int u = 0; u < kStep; ++u) {
        const float d = ToFloat(a.x[u]) * (offset + ToFloat(weight.x[u])) * s - ToFloat(b.x[u]) * c;
        p.x[u] = FromFloat<T>(accumulate ? ToFloat(p.x[u]) + d : d);
      }
      StorePack(out + i, p);
    } else {
      const float d = ToFloat(g[i]) * (offset + ToFloat(w[i])) * s - ToFloat(in[i]) * c;
      out[i] = FromFloat<T>(accumulate ? ToFloat(out[i]) + d : d);
    }
  }
}

// Row block blockIdx.y of gridDim.y sums its rows of dy x rstd; N columns a thread.
template <int N, class T>
__global__ void WeightPartials(const T* dy, const T* x, const float* rstd, int64_t rows,
                               int64_t hidden, float* partial) {
  const int64_t i = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * N;
  if (i >= hidden) return;
  const int64_t b = blockIdx.y, blocks = gridDim.y;
  Few<N, float> sum = {};
  const int64_t end = rows * (b + 1) / blocks;
#pragma unroll 8
  for (int64_t r = rows * b / blocks; r < end; ++r) {
    const auto g = *reinterpret_cast<const Few<N, T>*>(dy + r * hidden + i);
    const auto in = *reinterpret_cast<const Few<N, T>*>(x + r * hidden + i);
    const float s = rstd[r];
#pragma unroll
    for (int u = 0; u < N; ++u) sum.x[u] += ToFloat(g.x[u]) * ToFloat(in.x[u]) * s;
  }
#pragma unroll
  for (int u = 0; u < N; ++u) partial[b * hidden + i + u] = sum.x[u];
}

// Both in one read of dy and x: block blockIdx.x of gridDim.x takes one of its rows after the
// other, a thread the same 16 bytes of each, whose weight gradient it sums on the way. The next row
// is on its way while the block sums. REQUIRES: hidden in whole packs, at most one a thread.
template <class T>
__global__ void __launch_bounds__(1024)
    BackwardRows(const T* dy, const T* x, const T* w, const float* rstd, int64_t rows,
                 int64_t hidden, float offset, bool accumulate, T* dx, float* partial) {
  constexpr int kStep = Pack<T>::kSize;
  const int64_t i = int64_t{threadIdx.x} * kStep, end = rows * (blockIdx.x + 1) / gridDim.x;
  const bool own = i < hidden;
  float weight[kStep] = {}, sum[kStep] = {};
  int64_t r = rows * blockIdx.x / gridDim.x;
  Pack<T> g = {}, in = {};
  if (own) {
    const Pack<T> p = LoadPack(w + i);
#pragma unroll
    for (int u = 0; u < kStep; ++u) weight[u] = offset + ToFloat(p.x[u]);
    g = LoadPack(dy + r * hidden + i);
    in = LoadPack(x + r * hidden + i);
  }
  for (; r < end; ++r) {
    Pack<T> next_g = {}, next_in = {}, out = {};
    if (own && r + 1 < end) {
      next_g = LoadPack(dy + (r + 1) * hidden + i);
      next_in = LoadPack(x + (r + 1) * hidden + i);
    }
    if (own && accumulate) out = LoadPack(dx + r * hidden + i);
    float dot = 0;
#pragma unroll
    for (int u = 0; u < kStep; ++u) dot += ToFloat(g.x[u]) * weight[u] * ToFloat(in.x[u]);
    const float s = rstd[r];
    const float c = BlockSum(dot) * s * s * s / static_cast<float>(hidden);
    if (own) {
#pragma unroll
      for (int u = 0; u < kStep; ++u) {
        const float a = ToFloat(g.x[u]), b = ToFloat(in.x[u]);
        sum[u] += a * b * s;
        const float d = a * weight[u] * s - b * c;
        out.x[u] = FromFloat<T>(accumulate ? ToFloat(out.x[u]) + d : d);
      }
      StorePack(dx + r * hidden + i, out);
    }
    g = next_g;
    in = next_in;
  }
  if (!own) return;
#pragma unroll
  for (int u = 0; u < kStep; ++u) partial[blockIdx.x * hidden + i + u] = sum[u];
}

constexpr int kSumWarps = 16;

// 32 columns a block; warp w adds partials w, w + kSumWarps, ..., and the first adds the warps'.
__global__ void AddPartials(const float* partial, int64_t blocks, int64_t hidden, float* dw) {
  __shared__ float part[kSumWarps][32];
  const int64_t i = int64_t{blockIdx.x} * 32 + threadIdx.x;
  float sum = 0;
#pragma unroll 8
  for (int64_t b = threadIdx.y; b < blocks; b += kSumWarps)
    sum += i < hidden ? partial[b * hidden + i] : 0.0f;
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || i >= hidden) return;
  float total = dw[i];
  for (int w = 0; w < kSumWarps; ++w) total += part[w][threadIdx.x];
  dw[i] = total;
}

unsigned Threads(int64_t hidden) { return hidden <= 1024 ? 128 : (hidden <= 4096 ? 256 : 512); }

}  // namespace

void RmsNorm::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    const bool vector = hidden % Pack<T>::kSize == 0 && Aligned16(x) && Aligned16(w) &&
                        Aligned16(y) && Aligned16(copy);
    const int64_t held = hidden / Pack<T>::kSize, threads = Threads(hidden);
    auto kernel = vector ? Forward<true, T> : Forward<false, T>;
    if (vector && held <= threads) kernel = ForwardHeld<1, T>;
    else if (vector && held <= 2 * threads) kernel = ForwardHeld<2, T>;
    else if (vector && held <= 4 * threads) kernel = ForwardHeld<4, T>;
    LaunchEarly(kernel, dim3(static_cast<unsigned>(rows)), dim3(Threads(hidden)), StreamOf(launch),
                static_cast<const T*>(x), static_cast<const T*>(w), hidden, eps, weight_offset,
                static_cast<T*>(y), rstd, static_cast<T*>(copy));
  });
  CheckLaunch(kName);
}

void RmsNormBackward::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  const int64_t blocks = rows < kRmsNormScratchRows ? rows : kRmsNormScratchRows;
  constexpr int64_t kMostThreads = 1024;
  ForDType(launch.dtype, [&]<class T>(T) {
    const auto* g = static_cast<const T*>(dy);
    const auto* in = static_cast<const T*>(x);
    const auto* weights = static_cast<const T*>(w);
    auto* out = static_cast<T*>(dx);
    const bool vector = hidden % Pack<T>::kSize == 0 && Aligned16(dy) && Aligned16(x) &&
                        Aligned16(w) && Aligned16(dx);
    const int64_t packs = hidden / Pack<T>::kSize;
    if (vector && packs <= kMostThreads) {
      const auto threads = static_cast<unsigned>((packs + 31) / 32 * 32);
      BackwardRows<<<static_cast<unsigned>(blocks), threads, 0, StreamOf(launch)>>>(
          g, in, weights, rstd, rows, hidden, weight_offset, accumulate_dx, out, scratch);
      CheckLaunch("RmsNormBackward (rows)");
      return;
    }
    const bool fours = hidden % 4 == 0 && Aligned16(dy) && Aligned16(x);
    const auto weight = fours ? WeightPartials<4, T> : WeightPartials<1, T>;
    weight<<<dim3(Blocks(hidden, fours ? 512 : 128), static_cast<unsigned>(blocks)), 128, 0,
             StreamOf(launch)>>>(g, in, rstd, rows, hidden, scratch);
    CheckLaunch("RmsNormBackward (weight)");
    const auto kernel = vector ? BackwardInput<true, T> : BackwardInput<false, T>;
    kernel<<<static_cast<unsigned>(rows), Threads(hidden), 0, StreamOf(launch)>>>(
        g, in, weights, rstd, hidden, weight_offset, accumulate_dx, out);
    CheckLaunch("RmsNormBackward (input)");
  });
  if (!dw) return;
  AddPartials<<<Blocks(hidden, 32), dim3(32, kSumWarps), 0, StreamOf(launch)>>>(scratch, blocks,
                                                                                hidden, dw);
  CheckLaunch("RmsNormBackward (sum)");
}

}  // namespace plumb::kernels
