#include "kernels/device/cuda_common.h"
#include "kernels/tasks/task_rows.h"

namespace plumb::kernels {
namespace {

__global__ void Known(KnownTokens k) {
  for (int64_t r = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; r < k.shape.rows;
       r += int64_t{gridDim.x} * blockDim.x) {
    const int32_t token = k.shape.tokens[r];
    k.known[r] = k.shape.RowOf(token) < 0 ? token : 0;
  }
}

// One block a row.
template <class T>
__global__ void Embed(EmbedTaskTokens k) {
  const TaskTokenShape& s = k.shape;
  const int64_t r = blockIdx.x, row = s.RowOf(s.tokens[r]);
  if (row < 0) return;
  for (int64_t i = threadIdx.x; i < s.width; i += blockDim.x)
    static_cast<T*>(k.x)[r * s.width + i] = static_cast<const T*>(k.table)[row * s.width + i];
}

// One thread a column of a row of the table: it goes through all tokens.
template <class T>
__global__ void Backward(EmbedTaskTokensBackward k) {
  const TaskTokenShape& s = k.shape;
  const int64_t row = blockIdx.y, i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= s.width) return;
  float sum = k.grad[row * s.width + i];
  for (int64_t r = 0; r < s.rows; ++r) {
    if (s.RowOf(s.tokens[r]) == row) sum += ToFloat(static_cast<const T*>(k.d)[r * s.width + i]);
  }
  k.grad[row * s.width + i] = sum;
}

}  // namespace

void KnownTokens::Cuda(const Launch& launch) const {
  if (shape.rows == 0) return;
  Known<<<Blocks(shape.rows, 256), 256, 0, StreamOf(launch)>>>(*this);
  CheckLaunch(kName);
}

void EmbedTaskTokens::Cuda(const Launch& launch) const {
  if (shape.rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Embed<T><<<static_cast<unsigned>(shape.rows), 128, 0, StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

void EmbedTaskTokensBackward::Cuda(const Launch& launch) const {
  if (shape.rows == 0 || shape.tasks * shape.per_task == 0) return;
  const dim3 blocks(static_cast<unsigned>((shape.width + 127) / 128),
                    static_cast<unsigned>(shape.tasks * shape.per_task));
  ForDType(launch.dtype,
           [&]<class T>(T) { Backward<T><<<blocks, 128, 0, StreamOf(launch)>>>(*this); });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
