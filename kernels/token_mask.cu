#include "kernels/device/cuda_common.h"
#include "kernels/token_mask.h"

namespace plumb::kernels {
namespace {

__global__ void Drop(float* logits, int64_t rows, int64_t vocab, const int32_t* ids,
                     int64_t count) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < rows * count; i += stride) {
    logits[i / count * vocab + ids[i % count]] = -INFINITY;
  }
}

__global__ void Keep(float* logits, int64_t vocab, const uint32_t* kept, int64_t words) {
  float* x = logits + int64_t{blockIdx.y} * vocab;
  const uint32_t* set = kept + int64_t{blockIdx.y} * words;
  for (int64_t j = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; j < vocab;
       j += int64_t{gridDim.x} * blockDim.x) {
    if (!(set[j / 32] >> (j % 32) & 1u)) x[j] = -INFINITY;
  }
}

}  // namespace

void DropTokens::Cuda(const Launch& launch) const {
  if (rows == 0 || count == 0) return;
  Drop<<<Blocks(rows * count, 256), 256, 0, StreamOf(launch)>>>(logits, rows, vocab, ids, count);
  CheckLaunch(kName);
}

void KeepTokens::Cuda(const Launch& launch) const {
  constexpr int64_t kRows = 65535;  // of a grid
  for (int64_t r = 0; r < rows; r += kRows) {
    const dim3 grid(Blocks(vocab, 1024),
                    static_cast<unsigned>(rows - r < kRows ? rows - r : kRows));
    Keep<<<grid, 256, 0, StreamOf(launch)>>>(logits + r * vocab, vocab, kept + r * SetWords(vocab),
                                             SetWords(vocab));
    CheckLaunch(kName);
  }
}

}  // namespace plumb::kernels
