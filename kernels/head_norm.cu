#include "kernels/device/cuda_common.h"
#include "kernels/head_norm.h"

namespace plumb::kernels {
namespace {

struct Part {
  int64_t begin;
  int32_t size;
  bool key;
};

__device__ __forceinline__ Part PartAt(const HeadNormShape& s, int32_t p) {
  if (p < s.q_parts) return {int64_t{p} * s.q_size, s.q_size, false};
  return {int64_t{s.q_parts} * s.q_size + int64_t{p - s.q_parts} * s.k_size, s.k_size, true};
}

// One block a row (blockIdx.x) and part (blockIdx.y); the blocks of part 0 also copy what is not
// normed.
template <class T>
__global__ void Forward(HeadNormShape s, const T* x, const T* w_q, const T* w_k, T* y,
                        float* rstd) {
  const Part part = PartAt(s, static_cast<int32_t>(blockIdx.y));
  const T* in = x + blockIdx.x * s.width + part.begin;
  const T* w = part.key ? w_k : w_q;
  T* out = y + blockIdx.x * s.width + part.begin;
  float sum = 0;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < part.size; i += blockDim.x)
    sum += ToFloat(in[i]) * ToFloat(in[i]);
  const float scale = 1.0f / sqrtf(BlockSum(sum) / static_cast<float>(part.size) + s.eps);
  if (rstd && threadIdx.x == 0) rstd[blockIdx.x * s.parts() + blockIdx.y] = scale;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < part.size; i += blockDim.x) {
    out[i] = FromFloat<T>(ToFloat(in[i]) * scale * (s.weight_offset + ToFloat(w[i])));
  }
  if (blockIdx.y != 0 || x == y) return;
  for (int64_t i = s.normed() + threadIdx.x; i < s.width; i += blockDim.x) {
    y[blockIdx.x * s.width + i] = x[blockIdx.x * s.width + i];
  }
}

// Row block blockIdx.y of gridDim.y sums its rows' d x rstd over all parts of q, then of k; one
// column a thread.
template <class T>
__global__ void WeightPartials(HeadNormShape s, const T* d, const T* x, const float* rstd,
                               float* partial) {
  const auto column = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (column >= s.q_size + s.k_size) return;
  const bool key = column >= s.q_size;
  const int32_t first = key ? s.q_parts : 0, last = key ? s.parts() : s.q_parts,
                i = key ? column - s.q_size : column;
  const int64_t b = blockIdx.y, blocks = gridDim.y;
  float sum = 0;
  for (int64_t r = s.rows * b / blocks; r < s.rows * (b + 1) / blocks; ++r) {
    for (int32_t p = first; p < last; ++p) {
      const int64_t at = r * s.width + PartAt(s, p).begin + i;
      sum += ToFloat(d[at]) * ToFloat(x[at]) * rstd[r * s.parts() + p];
    }
  }
  partial[b * (s.q_size + s.k_size) + column] = sum;
}

__global__ void AddPartials(HeadNormShape s, const float* partial, int64_t blocks, float* dw_q,
                            float* dw_k) {
  const auto column = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  const int32_t weights = s.q_size + s.k_size;
  if (column >= weights) return;
  float* first = column < s.q_size ? dw_q : dw_k;
  if (!first) return;
  float* to = first + (column < s.q_size ? column : column - s.q_size);
  float sum = *to;
  for (int64_t b = 0; b < blocks; ++b) sum += partial[b * weights + column];
  *to = sum;
}

template <class T>
__global__ void BackwardInput(HeadNormShape s, T* d, const T* x, const T* w_q, const T* w_k,
                              const float* rstd) {
  const Part part = PartAt(s, static_cast<int32_t>(blockIdx.y));
  T* g = d + blockIdx.x * s.width + part.begin;
  const T* in = x + blockIdx.x * s.width + part.begin;
  const T* w = part.key ? w_k : w_q;
  const float scale = rstd[blockIdx.x * s.parts() + blockIdx.y];
  float dot = 0;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < part.size; i += blockDim.x) {
    dot += ToFloat(g[i]) * (s.weight_offset + ToFloat(w[i])) * ToFloat(in[i]);
  }
  const float c = BlockSum(dot) * scale * scale * scale / static_cast<float>(part.size);
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < part.size; i += blockDim.x) {
    g[i] = FromFloat<T>(ToFloat(g[i]) * (s.weight_offset + ToFloat(w[i])) * scale -
                        ToFloat(in[i]) * c);
  }
}

unsigned Threads(const HeadNormShape& s) {
  const int32_t longest = s.q_size > s.k_size ? s.q_size : s.k_size;
  return longest <= 64 ? 32 : (longest <= 128 ? 64 : (longest <= 1024 ? 128 : 256));
}

dim3 RowsAndParts(const HeadNormShape& s) {
  return {static_cast<unsigned>(s.rows), static_cast<unsigned>(s.parts())};
}

}  // namespace

void HeadNorm::Cuda(const Launch& launch) const {
  if (shape.rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Forward<<<RowsAndParts(shape), Threads(shape), 0, StreamOf(launch)>>>(
        shape, static_cast<const T*>(x), static_cast<const T*>(w_q), static_cast<const T*>(w_k),
        static_cast<T*>(y), rstd);
  });
  CheckLaunch(kName);
}

void HeadNormBackward::Cuda(const Launch& launch) const {
  if (shape.rows == 0) return;
  const int64_t blocks = shape.rows < kHeadNormScratchRows ? shape.rows : kHeadNormScratchRows;
  const unsigned columns = Blocks(shape.q_size + shape.k_size, 128);
  ForDType(launch.dtype, [&]<class T>(T) {
    WeightPartials<<<dim3(columns, static_cast<unsigned>(blocks)), 128, 0, StreamOf(launch)>>>(
        shape, static_cast<const T*>(d), static_cast<const T*>(x), rstd, scratch);
    CheckLaunch("HeadNormBackward (weights)");
    BackwardInput<<<RowsAndParts(shape), Threads(shape), 0, StreamOf(launch)>>>(
        shape, static_cast<T*>(d), static_cast<const T*>(x), static_cast<const T*>(w_q),
        static_cast<const T*>(w_k), rstd);
    CheckLaunch("HeadNormBackward (input)");
  });
  if (!dw_q && !dw_k) return;
  AddPartials<<<columns, 128, 0, StreamOf(launch)>>>(shape, scratch, blocks, dw_q, dw_k);
  CheckLaunch("HeadNormBackward (sum)");
}

}  // namespace plumb::kernels
