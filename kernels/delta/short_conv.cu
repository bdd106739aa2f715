#include "kernels/delta/short_conv.h"
#include "kernels/device/cuda_common.h"

namespace plumb::kernels {
namespace {

__device__ float Sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// The sequence that token t is of.
__device__ int32_t SequenceOf(const ShortConvShape& s, int64_t t) {
  int32_t low = 0, high = s.sequences;  // cu_seqlens[low] <= t < cu_seqlens[high]
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    if (s.cu_seqlens[middle] <= t) low = middle;
    else high = middle;
  }
  return low;
}

// The token before `t` in its sequence `b`; -1: none.
__device__ int64_t Before(const ShortConvShape& s, int64_t t, int32_t& b) {
  if (t > s.cu_seqlens[b]) return t - 1;
  b = s.parents ? s.parents[b] : -1;
  return b < 0 ? -1 : int64_t{s.cu_seqlens[b + 1]} - 1;
}

// Sums of the taps of a channel over token t of sequence b and what comes before it.
template <class T>
__device__ float Convolve(const ShortConvShape& s, const T* x, const T* taps, int64_t t,
                          int32_t b) {
  float sum = 0;
  for (int32_t k = s.taps - 1; k >= 0 && t >= 0; --k) {
    sum += ToFloat(taps[k]) * ToFloat(x[t * s.x_stride]);
    if (k > 0) t = Before(s, t, b);
  }
  return sum;
}

// blockIdx.x: the token.
template <class T>
__global__ void Forward(ShortConv d) {
  const ShortConvShape& s = d.shape;
  const int64_t c = int64_t{blockIdx.y} * blockDim.x + threadIdx.x, t = blockIdx.x;
  if (c >= s.channels) return;
  float sum = Convolve(s, static_cast<const T*>(d.x) + c, static_cast<const T*>(d.w) + c * s.taps,
                       t, SequenceOf(s, t));
  if (s.silu) sum *= Sigmoid(sum);
  static_cast<T*>(d.y)[t * s.y_stride + c] = FromFloat<T>(sum);
}

// The gradient of a channel in front of act.
template <class T>
__device__ float OfSum(const ShortConvBackward& d, int64_t c, int64_t t, int32_t b) {
  const ShortConvShape& s = d.shape;
  const float g = ToFloat(static_cast<const T*>(d.dy)[t * s.y_stride + c]);
  if (!s.silu) return g;
  const float sum = Convolve(s, static_cast<const T*>(d.x) + c,
                             static_cast<const T*>(d.w) + c * s.taps, t, b),
              gate = Sigmoid(sum);
  return g * gate * (sum * (1.0f - gate) + 1.0f);
}

template <class T>
__global__ void BackwardInput(ShortConvBackward d) {
  const ShortConvShape& s = d.shape;
  const int64_t c = int64_t{blockIdx.y} * blockDim.x + threadIdx.x, t = blockIdx.x;
  if (c >= s.channels) return;
  const int32_t b = SequenceOf(s, t);
  const int64_t left = s.cu_seqlens[b + 1] - t;
  const int32_t own = left < s.taps ? static_cast<int32_t>(left) : s.taps;
  const T* taps = static_cast<const T*>(d.w) + c * s.taps;
  float sum = 0;
  for (int32_t k = 0; k < own; ++k) sum += ToFloat(taps[s.taps - 1 - k]) * OfSum<T>(d, c, t + k, b);
  // And in what goes on from here.
  for (int32_t next = b + 1;
       own < s.taps && s.parents && next < s.sequences && s.parents[next] == b; ++next) {
    const int64_t begin = s.cu_seqlens[next], length = s.cu_seqlens[next + 1] - begin;
    for (int32_t k = own; k < s.taps && k - own < length; ++k)
      sum += ToFloat(taps[s.taps - 1 - k]) * OfSum<T>(d, c, begin + k - own, next);
  }
  static_cast<T*>(d.dx)[t * s.x_stride + c] = FromFloat<T>(sum);
}

// 32 channels a block: row y of 32 sums tokens y, y + 32, ..., the first one adds them in order.
template <class T>
__global__ void BackwardWeight(ShortConvBackward d) {
  __shared__ float part[32][33];
  const ShortConvShape& s = d.shape;
  const int64_t c = int64_t{blockIdx.x} * 32 + threadIdx.x;
  float sum[kMostTaps] = {};
  for (int64_t t = threadIdx.y; t < s.tokens && c < s.channels; t += 32) {
    const int32_t b = SequenceOf(s, t);
    const float g = OfSum<T>(d, c, t, b);
    int64_t from = t;
    int32_t of = b;
#pragma unroll
    for (int32_t back = 0; back < kMostTaps; ++back) {  // tap taps - 1 - back
      if (back >= s.taps || from < 0) break;
      sum[back] += g * ToFloat(static_cast<const T*>(d.x)[from * s.x_stride + c]);
      from = Before(s, from, of);
    }
  }
#pragma unroll
  for (int32_t back = 0; back < kMostTaps; ++back) {
    if (back >= s.taps) break;
    __syncthreads();
    part[threadIdx.y][threadIdx.x] = sum[back];
    __syncthreads();
    if (threadIdx.y != 0 || c >= s.channels) continue;
    float& to = d.dw[c * s.taps + s.taps - 1 - back];
    float total = 0;
    for (int w = 0; w < 32; ++w) total += part[w][threadIdx.x];
    to += total;
  }
}

// blockIdx.x: the first row of a slot, whose rows follow it.
template <class T>
__global__ void Step(ShortConvStep d) {
  const ShortConvShape& s = d.shape;
  const int64_t c = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  const int32_t first = static_cast<int32_t>(blockIdx.x);
  if (c >= s.channels) return;
  if (RepeatsFirst(d.rows, first)) return;
  if (first > 0 && d.rows.slot[first - 1] == d.rows.slot[first]) return;
  const T* taps = static_cast<const T*>(d.w) + c * s.taps;
  float* state = d.states.data + d.rows.slot[first] * d.states.stride + d.offset + c;
  for (int32_t r = first; r < d.rows.rows && d.rows.slot[r] == d.rows.slot[first]; ++r) {
    if (RepeatsFirst(d.rows, r)) break;
    const float x = ToFloat(static_cast<const T*>(d.x)[r * s.x_stride + c]);
    const int32_t there = min(d.rows.position[r], s.taps - 1);
    float sum = ToFloat(taps[s.taps - 1]) * x, newer = x;
    // From the newest to the oldest, as in a packed pass; each moves on by one place.
    for (int32_t k = s.taps - 2; k >= 0; --k) {
      float* at = state + k * s.channels;
      const float held = s.taps - 1 - k <= there ? *at : 0.0f;
      sum += ToFloat(taps[k]) * held;
      *at = newer;
      newer = held;
    }
    if (s.silu) sum *= Sigmoid(sum);
    ForRowAndRepeats(d.rows, r, [&](int32_t to) {
      static_cast<T*>(d.y)[to * s.y_stride + c] = FromFloat<T>(sum);
    });
  }
}

dim3 Grid(int64_t rows, int64_t channels) {
  return dim3(static_cast<unsigned>(rows), static_cast<unsigned>((channels + 127) / 128));
}

}  // namespace

void ShortConv::Cuda(const Launch& launch) const {
  if (shape.tokens == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Forward<T><<<Grid(shape.tokens, shape.channels), 128, 0, StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

void ShortConvBackward::Cuda(const Launch& launch) const {
  if (shape.tokens == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    BackwardInput<T><<<Grid(shape.tokens, shape.channels), 128, 0, StreamOf(launch)>>>(*this);
    CheckLaunch("ShortConvBackward (input)");
    if (!dw) return;
    BackwardWeight<T><<<Blocks(shape.channels, 32), dim3(32, 32), 0, StreamOf(launch)>>>(*this);
    CheckLaunch("ShortConvBackward (weight)");
  });
}

void ShortConvStep::Cuda(const Launch& launch) const {
  if (rows.rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Step<T><<<Grid(rows.rows, shape.channels), 128, 0, StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
