// DispatchTokens of kernels/experts.h on a GPU.
#include "kernels/device/cuda_common.h"
#include "kernels/experts.h"

namespace plumb::kernels {
namespace {

constexpr unsigned kAll = 0xFFFFFFFFu;

// Those of an expert that are dropped are marked: one is, where at least `capacity` others weigh
// more, or as much and come before it. One block an expert counts the rest.
__global__ void CountSlots(DispatchTokens d, int64_t pairs) {
  const int32_t e = static_cast<int32_t>(blockIdx.x);
  __shared__ int32_t there;
  int32_t count = 0;
  for (int64_t i = threadIdx.x; i < pairs; i += blockDim.x) count += d.expert[i] == e;
  count = BlockSum(count);
  if (threadIdx.x == 0) there = count;
  __syncthreads();
  const bool bound = d.capacity && there > d.capacity[e];
  for (int64_t i = threadIdx.x; i < pairs; i += blockDim.x) {
    if (d.expert[i] != e) continue;
    int64_t before = 0;
    if (bound) {
      for (int64_t j = 0; j < pairs; ++j) {
        before += d.expert[j] == e &&
                  (d.weight[j] > d.weight[i] || (d.weight[j] == d.weight[i] && j < i));
      }
    }
    d.slot[i] = bound && before >= d.capacity[e] ? -1 : 0;
  }
  if (threadIdx.x == 0) d.begin[e + 1] = bound ? static_cast<int32_t>(d.capacity[e]) : there;
}

__global__ void ScanBegins(int32_t* begin, int32_t experts) {
  const int lane = static_cast<int>(threadIdx.x);
  int32_t before = 0;
  for (int32_t e0 = 0; e0 < experts; e0 += 32) {
    int32_t up_to = e0 + lane < experts ? begin[e0 + lane + 1] : 0;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const int32_t other = __shfl_up_sync(kAll, up_to, offset);
      if (lane >= offset) up_to += other;
    }
    if (e0 + lane < experts) begin[e0 + lane + 1] = before + up_to;
    before += __shfl_sync(kAll, up_to, 31);
  }
  if (lane == 0) begin[0] = 0;
}

// One block of 32 warps an expert, in rounds of 1024 pairs; the last block lays what is left over
// to row 0.
__global__ void PlaceSlots(DispatchTokens d, int64_t pairs) {
  const int32_t e = static_cast<int32_t>(blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  if (e == d.experts) {
    for (int64_t s = d.begin[e] + static_cast<int64_t>(threadIdx.x); s < pairs; s += blockDim.x) {
      d.token[s] = 0;
      d.slot_weight[s] = 0;
    }
    return;
  }
  __shared__ int32_t warps[32];
  int32_t next = d.begin[e];
  for (int64_t i0 = 0; i0 < pairs; i0 += blockDim.x) {
    const int64_t i = i0 + threadIdx.x;
    const bool mine = i < pairs && d.expert[i] == e && d.slot[i] >= 0;
    const unsigned here = __ballot_sync(kAll, mine);
    __syncthreads();
    if (lane == 0) warps[warp] = __popc(here);
    __syncthreads();
    int32_t before = 0, all = 0;
    for (int w = 0; w < static_cast<int>(blockDim.x / 32); ++w) {
      before += w < warp ? warps[w] : 0;
      all += warps[w];
    }
    if (mine) {
      const int32_t at = next + before + __popc(here & ((1u << lane) - 1));
      d.slot[i] = at;
      d.token[at] = static_cast<int32_t>(i / d.per_token);
      d.slot_weight[at] = d.weight[i];
    }
    next += all;
  }
}

// All of it without a bound, for up to kMostAtOnce pairs: a block lays out kChunk pairs, a thread
// each, and counts all others itself, those before its own apart: so one launch does. Counts are
// whole numbers, the same in any order.
constexpr int64_t kMostAtOnce = 1 << 16;
constexpr int kChunk = 1024;
__global__ void __launch_bounds__(kChunk) PlaceAtOnce(DispatchTokens d, int64_t pairs) {
  constexpr int kTogether = 4;  // reads on their way at a time
  __shared__ int32_t all[kMaxExperts], next[kMaxExperts];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  for (int32_t e = thread; e < d.experts; e += kChunk) all[e] = 0;
  __syncthreads();
  const int64_t own_chunk = int64_t{blockIdx.x} * kChunk;
  for (int64_t i0 = 0; i0 < pairs; i0 += kTogether * kChunk) {
    int32_t expert[kTogether];
#pragma unroll
    for (int u = 0; u < kTogether; ++u) {
      const int64_t i = i0 + u * kChunk + thread;
      expert[u] = i < pairs ? d.expert[i] : -1;
    }
#pragma unroll
    for (int u = 0; u < kTogether; ++u) {
      if (i0 + u * kChunk == own_chunk) {
        __syncthreads();
        for (int32_t e = thread; e < d.experts; e += kChunk) next[e] = all[e];
        __syncthreads();
      }
      if (expert[u] >= 0) atomicAdd(&all[expert[u]], 1);
    }
  }
  __syncthreads();
  if (warp == 0) {
    int32_t sum = 0;
    for (int32_t e0 = 0; e0 < d.experts; e0 += 32) {
      const int32_t e = e0 + lane, count = e < d.experts ? all[e] : 0;
      int32_t up_to = count;
#pragma unroll
      for (int offset = 1; offset < 32; offset *= 2) {
        const int32_t other = __shfl_up_sync(kAll, up_to, offset);
        if (lane >= offset) up_to += other;
      }
      if (e < d.experts) {
        const int32_t begin = sum + up_to - count;
        next[e] += begin;
        if (blockIdx.x == 0) d.begin[e] = begin;
      }
      sum += __shfl_sync(kAll, up_to, 31);
    }
    if (blockIdx.x == 0 && lane == 0) d.begin[d.experts] = sum;
  }
  __syncthreads();
  const int64_t i = own_chunk + thread;
  const int32_t own = i < pairs ? d.expert[i] : -1;
  const unsigned same = __match_any_sync(kAll, own), before = same & ((1u << lane) - 1);
  int32_t at = 0;
  for (int w = 0; w < kChunk / 32; ++w) {  // in the order of the rows
    if (warp == w) {
      if (own >= 0) at = next[own] + __popc(before);
      __syncwarp();
      if (own >= 0 && before == 0) next[own] += __popc(same);
    }
    __syncthreads();
  }
  if (own < 0) return;
  d.slot[i] = at;
  d.token[at] = static_cast<int32_t>(i / d.per_token);
  d.slot_weight[at] = d.weight[i];
}

}  // namespace

void DispatchTokens::Cuda(const Launch& launch) const {
  const int64_t pairs = rows * per_token;
  if (pairs <= kMostAtOnce && !capacity) {
    const auto blocks = static_cast<unsigned>(pairs <= kChunk ? 1 : (pairs + kChunk - 1) / kChunk);
    PlaceAtOnce<<<blocks, kChunk, 0, StreamOf(launch)>>>(*this, pairs);
    CheckLaunch(kName);
    return;
  }
  CountSlots<<<static_cast<unsigned>(experts), 256, 0, StreamOf(launch)>>>(*this, pairs);
  CheckLaunch("DispatchTokens (count)");
  ScanBegins<<<1, 32, 0, StreamOf(launch)>>>(begin, experts);
  CheckLaunch("DispatchTokens (begins)");
  PlaceSlots<<<static_cast<unsigned>(experts + 1), 1024, 0, StreamOf(launch)>>>(*this, pairs);
  CheckLaunch("DispatchTokens (place)");
}

}  // namespace plumb::kernels
