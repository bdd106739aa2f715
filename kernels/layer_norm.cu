#include "kernels/device/cuda_common.h"
#include "kernels/layer_norm.h"

namespace plumb::kernels {
namespace {

template <class T>
__device__ float Mean(const T* x, int64_t n) {
  float sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += ToFloat(x[i]);
  return BlockSum(sum) / static_cast<float>(n);
}

// One block a row; all passes but the first find the row in the caches.
template <class T>
__global__ void Forward(const T* x, const T* w, const T* b, int64_t hidden, float eps, T* y,
                        float* rstd) {
  const T* in = x + blockIdx.x * hidden;
  T* out = y + blockIdx.x * hidden;
  const float mean = Mean(in, hidden);
  float sum = 0;
  for (int64_t i = threadIdx.x; i < hidden; i += blockDim.x) {
    const float apart = ToFloat(in[i]) - mean;
    sum += apart * apart;
  }
  const float scale = 1.0f / sqrtf(BlockSum(sum) / static_cast<float>(hidden) + eps);
  if (rstd && threadIdx.x == 0) rstd[blockIdx.x] = scale;
  for (int64_t i = threadIdx.x; i < hidden; i += blockDim.x)
    out[i] = FromFloat<T>((ToFloat(in[i]) - mean) * scale * ToFloat(w[i]) + ToFloat(b[i]));
}

// dx = rstd (g - mean(g) - n mean(g n)) with n = (x - mean) rstd and g = dy w; one block a row.
template <class T>
__global__ void BackwardInput(const T* dy, const T* x, const T* w, const float* rstd,
                              int64_t hidden, bool accumulate, T* dx) {
  const T* g = dy + blockIdx.x * hidden;
  const T* in = x + blockIdx.x * hidden;
  T* out = dx + blockIdx.x * hidden;
  const float mean = Mean(in, hidden), s = rstd[blockIdx.x];
  float sum = 0, dot = 0;
  for (int64_t i = threadIdx.x; i < hidden; i += blockDim.x) {
    const float a = ToFloat(g[i]) * ToFloat(w[i]);
    sum += a;
    dot += a * (ToFloat(in[i]) - mean);
  }
  const float level = BlockSum(sum) / static_cast<float>(hidden),
              slope = BlockSum(dot) * s * s / static_cast<float>(hidden);
  for (int64_t i = threadIdx.x; i < hidden; i += blockDim.x) {
    const float d = s * (ToFloat(g[i]) * ToFloat(w[i]) - level - (ToFloat(in[i]) - mean) * slope);
    out[i] = FromFloat<T>(accumulate ? ToFloat(out[i]) + d : d);
  }
}

// Block b sums its rows of dy n and of dy into two rows of `partial`. The means come a row at a
// time, with all threads of the block.
template <class T>
__global__ void Partials(const T* dy, const T* x, const float* rstd, int64_t rows, int64_t hidden,
                         float* partial) {
  const int64_t b = blockIdx.x, blocks = gridDim.x;
  float* weight = partial + 2 * b * hidden;
  float* bias = weight + hidden;
  for (int64_t i = threadIdx.x; i < hidden; i += blockDim.x) weight[i] = bias[i] = 0;
  for (int64_t r = rows * b / blocks; r < rows * (b + 1) / blocks; ++r) {
    const T* g = dy + r * hidden;
    const T* in = x + r * hidden;
    const float mean = Mean(in, hidden), s = rstd[r];
    for (int64_t i = threadIdx.x; i < hidden; i += blockDim.x) {
      weight[i] += ToFloat(g[i]) * (ToFloat(in[i]) - mean) * s;
      bias[i] += ToFloat(g[i]);
    }
  }
}

__global__ void AddPartials(const float* partial, int64_t blocks, int64_t hidden, float* dw,
                            float* db) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= hidden) return;
  float weight = dw[i], bias = db[i];
  for (int64_t b = 0; b < blocks; ++b) {
    weight += partial[2 * b * hidden + i];
    bias += partial[(2 * b + 1) * hidden + i];
  }
  dw[i] = weight;
  db[i] = bias;
}

unsigned Threads(int64_t hidden) { return hidden <= 1024 ? 128 : (hidden <= 4096 ? 256 : 512); }

}  // namespace

void LayerNorm::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Forward<T><<<static_cast<unsigned>(rows), Threads(hidden), 0, StreamOf(launch)>>>(
        static_cast<const T*>(x), static_cast<const T*>(w), static_cast<const T*>(b), hidden, eps,
        static_cast<T*>(y), rstd);
  });
  CheckLaunch(kName);
}

void LayerNormBackward::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  const int64_t blocks = rows < kLayerNormBlocks ? rows : kLayerNormBlocks;
  ForDType(launch.dtype, [&]<class T>(T) {
    const auto* g = static_cast<const T*>(dy);
    const auto* in = static_cast<const T*>(x);
    if (dw) {  // before dx, which may be dy
      Partials<T><<<static_cast<unsigned>(blocks), Threads(hidden), 0, StreamOf(launch)>>>(
          g, in, rstd, rows, hidden, scratch);
      CheckLaunch("LayerNormBackward (weight)");
    }
    BackwardInput<T><<<static_cast<unsigned>(rows), Threads(hidden), 0, StreamOf(launch)>>>(
        g, in, static_cast<const T*>(w), rstd, hidden, accumulate_dx, static_cast<T*>(dx));
    CheckLaunch("LayerNormBackward (input)");
  });
  if (!dw) return;
  AddPartials<<<Blocks(hidden, 128), 128, 0, StreamOf(launch)>>>(scratch, blocks, hidden, dw, db);
  CheckLaunch("LayerNormBackward (sum)");
}

}  // namespace plumb::kernels
