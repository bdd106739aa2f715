#include "kernels/device/cuda_common.h"
#include "kernels/sparse/token_gate.h"

namespace plumb::kernels {
namespace {

constexpr unsigned kAll = 0xFFFFFFFFu;
constexpr int kWarps = 8;  // of a block, a row each

template <class T>
__global__ void Forward(TokenGate k) {
  const int64_t r = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (r >= k.rows) return;
  const T *x = static_cast<const T*>(k.x) + r * k.width, *w = static_cast<const T*>(k.w);
  float sum = 0;
  for (int64_t i = threadIdx.x % 32; i < k.width; i += 32) sum += ToFloat(x[i]) * ToFloat(w[i]);
  sum = WarpSum(sum);
  if (threadIdx.x % 32 == 0) k.gate[r] = sum;
}

// 32 columns a block: every 32nd row is a thread's, and the threads of a column are added up in
// their order.
template <class T>
__global__ void Weights(TokenGateBackward k) {
  __shared__ float part[32][33];
  const int64_t i = int64_t{blockIdx.x} * 32 + threadIdx.x;
  float sum = 0;
  for (int64_t r = threadIdx.y; r < k.rows && i < k.width; r += 32)
    sum += k.dgate[r] * ToFloat(static_cast<const T*>(k.x)[r * k.width + i]);
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || i >= k.width) return;
  float total = k.dw[i];
  for (int y = 0; y < 32; ++y) total += part[y][threadIdx.x];
  k.dw[i] = total;
}

template <class T>
__global__ void Inputs(TokenGateBackward k) {
  for (int64_t at = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < k.rows * k.width;
       at += int64_t{gridDim.x} * blockDim.x) {
    const int64_t r = at / k.width;
    T& dx = static_cast<T*>(k.dx)[at];
    dx = FromFloat<T>(ToFloat(dx) +
                      k.dgate[r] * ToFloat(static_cast<const T*>(k.w)[at - r * k.width]));
  }
}

// Whether gate a is lower than b. A NaN is the lowest of all.
__device__ bool Below(float a, float b) { return isnan(a) ? !isnan(b) : a < b; }

// A warp's set of up to `count` places in ascending order with their gates, in shared memory;
// `held` of them are there.
struct ChosenByWarp {
  float* gate;
  int32_t* place;
  int32_t held, count;

  // `next` lies behind all that are there.
  __device__ void Offer(int32_t next, float its) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    if (held < count) {
      if (lane == 0) {
        gate[held] = its;
        place[held] = next;
      }
      ++held;
      __syncwarp();
      return;
    }
    // The lowest, of equal ones the latest.
    float lowest = 0;
    int32_t at = -1;
    for (int32_t i = lane; i < count; i += 32) {
      if (at >= 0 && Below(lowest, gate[i])) continue;
      lowest = gate[i];
      at = i;
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      const float other = __shfl_xor_sync(kAll, lowest, offset);
      const int32_t its_at = __shfl_xor_sync(kAll, at, offset);
      if (its_at < 0) continue;
      if (at >= 0 && (Below(lowest, other) || (!Below(other, lowest) && at > its_at))) continue;
      lowest = other;
      at = its_at;
    }
    if (!Below(lowest, its)) return;
    for (int32_t first = at; first + 1 < count; first += 32) {  // those behind it move up by one
      const int32_t i = first + lane;
      const bool moves = i + 1 < count;
      const float g = moves ? gate[i + 1] : 0.0f;
      const int32_t p = moves ? place[i + 1] : 0;
      __syncwarp();
      if (moves) {
        gate[i] = g;
        place[i] = p;
      }
      __syncwarp();
    }
    if (lane == 0) {
      gate[count - 1] = its;
      place[count - 1] = next;
    }
    __syncwarp();
  }
};

// One warp a sequence: the set changes token by token.
__global__ void Choose(ChooseTokens k) {
  extern __shared__ float memory[];
  const VarlenShape& s = k.shape;
  const auto b = static_cast<int32_t>(blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x);
  const int32_t begin = s.cu_seqlens[b], own = s.cu_seqlens[b + 1] - begin;
  const int32_t parent = s.parents ? s.parents[b] : -1;
  const int32_t prefix = parent < 0 ? begin : s.cu_seqlens[parent],
                base = parent < 0 ? 0 : s.cu_seqlens[parent + 1] - prefix;
  ChosenByWarp set{memory, reinterpret_cast<int32_t*>(memory + k.count), 0, k.count};
  for (int32_t i = 0; i < base + own; ++i) {
    if (i >= s.window) {
      const int32_t j = i - s.window, token = j < base ? prefix + j : begin + j - base;
      set.Offer(token, k.gate[token]);
    }
    if (i < base) continue;
    int32_t* to = k.chosen + int64_t{begin + i - base} * k.count;
    for (int32_t c = lane; c < k.count; c += 32) to[c] = c < set.held ? set.place[c] : -1;
    __syncwarp();  // before the set changes
  }
}

// One warp: the first row of a slot, whose rows follow it.
__global__ void ChooseStep(ChooseTokensStep k) {
  extern __shared__ float memory[];
  const PagedRows& rows = k.rows;
  const auto first = static_cast<int32_t>(blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x);
  if (RepeatsFirst(rows, first)) return;
  if (first > 0 && rows.slot[first - 1] == rows.slot[first]) return;
  float* ring = k.states.data + rows.slot[first] * k.states.stride + k.offset;
  float *gates = ring + k.window, *places = gates + k.count;
  ChosenByWarp set{memory, reinterpret_cast<int32_t*>(memory + k.count), 0, k.count};
  // Those before a row: as many as had left the window of the row before it.
  set.held = min(max(rows.position[first] - k.window, 0), k.count);
  for (int32_t i = lane; i < set.held; i += 32) {
    set.gate[i] = gates[i];
    set.place[i] = __float_as_int(places[i]);
  }
  __syncwarp();
  for (int32_t r = first; r < rows.rows && rows.slot[r] == rows.slot[first]; ++r) {
    if (RepeatsFirst(rows, r)) break;
    const int32_t position = rows.position[r];
    float* place = ring + position % k.window;
    const float left = *place;  // of the token that leaves the window
    __syncwarp();
    if (lane == 0) *place = k.gate[r];
    if (position >= k.window) set.Offer(position - k.window, left);
    ForRowAndRepeats(rows, r, [&](int32_t to) {
      for (int32_t c = lane; c < k.count; c += 32) {
        const bool there = c < set.held;
        k.chosen[int64_t{to} * k.count + c] = there ? set.place[c] : -1;
        k.weight[int64_t{to} * k.count + c] = there ? LogSigmoid(set.gate[c]) : 0.0f;
      }
    });
    __syncwarp();  // the ring is written, and the set read
  }
  for (int32_t i = lane; i < set.held; i += 32) {
    gates[i] = set.gate[i];
    places[i] = __int_as_float(set.place[i]);
  }
}

size_t SetBytes(int32_t count) {
  return static_cast<size_t>(count) * (sizeof(float) + sizeof(int32_t));
}

}  // namespace

void TokenGate::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Forward<T>
        <<<static_cast<unsigned>((rows + kWarps - 1) / kWarps), kWarps * 32, 0, StreamOf(launch)>>>(
            *this);
  });
  CheckLaunch(kName);
}

void TokenGateBackward::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    if (dw) {
      Weights<T>
          <<<static_cast<unsigned>((width + 31) / 32), dim3(32, 32), 0, StreamOf(launch)>>>(*this);
      CheckLaunch(kName);
    }
    if (dx) {
      Inputs<T><<<Blocks(rows * width, 256), 256, 0, StreamOf(launch)>>>(*this);
      CheckLaunch(kName);
    }
  });
}

void ChooseTokens::Cuda(const Launch& launch) const {
  if (shape.sequences == 0) return;
  Choose<<<static_cast<unsigned>(shape.sequences), 32, SetBytes(count), StreamOf(launch)>>>(*this);
  CheckLaunch(kName);
}

void ChooseTokensStep::Cuda(const Launch& launch) const {
  if (rows.rows == 0) return;
  ChooseStep<<<static_cast<unsigned>(rows.rows), 32, SetBytes(count), StreamOf(launch)>>>(*this);
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
