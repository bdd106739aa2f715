#include "kernels/device/cuda_common.h"
#include "kernels/rms_norm.h"

namespace plumb::kernels {
namespace {

// One block a row; the second pass finds the row in the caches. Vector: 16-byte accesses.
template <bool Vector, class T>
__global__ void Forward(const T* x, const T* w, int64_t hidden, float eps, float offset, T* y,
                        float* rstd) {
  const T* in = x + blockIdx.x * hidden;
  T* out = y + blockIdx.x * hidden;
  constexpr int kStep = Vector ? Pack<T>::kSize : 1;
  float sum = 0;
  for (int64_t i = threadIdx.x * kStep; i < hidden; i += blockDim.x * kStep) {
    if constexpr (Vector) {
      const Pack<T> p = LoadPack(in + i);
#pragma unroll
      for (int u = 0; u < kStep; ++u) sum += ToFloat(p.x[u]) * ToFloat(p.x[u]);
    } else {
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

__global__ void AddPartials(const float* partial, int64_t blocks, int64_t hidden, float* dw) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= hidden) return;
  float sum = dw[i];
  for (int64_t b = 0; b < blocks; ++b) sum += partial[b * hidden + i];
  dw[i] = sum;
}

unsigned Threads(int64_t hidden) { return hidden <= 1024 ? 128 : (hidden <= 4096 ? 256 : 512); }

}  // namespace

void RmsNorm::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    const bool vector =
        hidden % Pack<T>::kSize == 0 && Aligned16(x) && Aligned16(w) && Aligned16(y);
    const auto kernel = vector ? Forward<true, T> : Forward<false, T>;
    kernel<<<static_cast<unsigned>(rows), Threads(hidden), 0, StreamOf(launch)>>>(
        static_cast<const T*>(x), static_cast<const T*>(w), hidden, eps, weight_offset,
        static_cast<T*>(y), rstd);
  });
  CheckLaunch(kName);
}

void RmsNormBackward::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  const int64_t blocks = rows < kRmsNormScratchRows ? rows : kRmsNormScratchRows;
  ForDType(launch.dtype, [&]<class T>(T) {
    const auto* g = static_cast<const T*>(dy);
    const auto* in = static_cast<const T*>(x);
    const bool fours = hidden % 4 == 0 && Aligned16(dy) && Aligned16(x);
    const auto weight = fours ? WeightPartials<4, T> : WeightPartials<1, T>;
    weight<<<dim3(Blocks(hidden, fours ? 512 : 128), static_cast<unsigned>(blocks)), 128, 0,
             StreamOf(launch)>>>(g, in, rstd, rows, hidden, scratch);
    CheckLaunch("RmsNormBackward (weight)");
    const bool vector = hidden % Pack<T>::kSize == 0 && Aligned16(dy) && Aligned16(x) &&
                        Aligned16(w) && Aligned16(dx);
    const auto kernel = vector ? BackwardInput<true, T> : BackwardInput<false, T>;
    kernel<<<static_cast<unsigned>(rows), Threads(hidden), 0, StreamOf(launch)>>>(
        g, in, static_cast<const T*>(w), rstd, hidden, weight_offset, accumulate_dx,
        static_cast<T*>(dx));
    CheckLaunch("RmsNormBackward (input)");
  });
  if (!dw) return;
  AddPartials<<<Blocks(hidden, 128), 128, 0, StreamOf(launch)>>>(scratch, blocks, hidden, dw);
  CheckLaunch("RmsNormBackward (sum)");
}

}  // namespace plumb::kernels
