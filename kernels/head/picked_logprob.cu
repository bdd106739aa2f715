#include "kernels/device/cuda_common.h"
#include "kernels/head/picked_logprob.h"

namespace plumb::kernels {
namespace {

// One block a row, two passes over its logits.
__global__ void Forward(const float* logits, const int32_t* ids, int64_t vocab, int64_t picks,
                        float scale, float* logprob, float* lse, int32_t* best) {
  const int64_t r = blockIdx.x;
  const float* x = logits + r * vocab;
  __shared__ int first;
  if (threadIdx.x == 0) first = 0x7fffffff;
  float highest = -INFINITY;
  for (int64_t j = threadIdx.x; j < vocab; j += blockDim.x) highest = fmaxf(highest, x[j]);
  const float top = BlockMax(highest);  // synchronises: `first` is set
  double sum = 0;
  for (int64_t j = threadIdx.x; j < vocab; j += blockDim.x) {
    sum += static_cast<double>(expf((x[j] - top) * scale));
    if (x[j] == top) atomicMin(&first, static_cast<int>(j));
  }
  const double log_sum = log(BlockSum(sum));
  for (int64_t i = threadIdx.x; i < picks; i += blockDim.x) {
    const int32_t id = ids[r * picks + i];
    logprob[r * picks + i] =
        id < 0
            ? -INFINITY
            : static_cast<float>(fmin(0.0, static_cast<double>((x[id] - top) * scale) - log_sum));
  }
  if (threadIdx.x != 0) return;
  lse[r] = static_cast<float>(log_sum + static_cast<double>(top * scale));
  best[r] = first == 0x7fffffff ? 0 : first;
}

// One block a row: what the softmax takes from every token, then what the picks add to theirs.
template <class T>
__global__ void Backward(const float* logits, const int32_t* ids, const float* lse, const float* g,
                         int64_t vocab, int64_t picks, float scale, T* dlogits) {
  const int64_t r = blockIdx.x;
  const float* x = logits + r * vocab;
  T* d = dlogits + r * vocab;
  double part = 0;
  for (int64_t i = threadIdx.x; i < picks; i += blockDim.x)
    part += ids[r * picks + i] < 0 ? 0.0 : static_cast<double>(g[r * picks + i]);
  const float sum = static_cast<float>(BlockSum(part)), l = lse[r];
  if (sum != 0.0f) {
    for (int64_t j = threadIdx.x; j < vocab; j += blockDim.x)
      d[j] = FromFloat<T>(ToFloat(d[j]) - sum * expf(x[j] * scale - l) * scale);
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < picks; i += blockDim.x) {
    const int32_t id = ids[r * picks + i];
    if (id >= 0) d[id] = FromFloat<T>(ToFloat(d[id]) + g[r * picks + i] * scale);
  }
}

}  // namespace

void PickedLogprob::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  Forward<<<static_cast<unsigned>(rows), 512, 0, StreamOf(launch)>>>(
      logits, ids, vocab, picks, 1.0f / temperature, logprob, lse, best);
  CheckLaunch(kName);
}

void PickedLogprobBackward::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Backward<<<static_cast<unsigned>(rows), 512, 0, StreamOf(launch)>>>(
        logits, ids, lse, g, vocab, picks, 1.0f / temperature, static_cast<T*>(dlogits));
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
