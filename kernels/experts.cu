#include "kernels/device/cuda_common.h"
#include "kernels/experts.h"

namespace plumb::kernels {
namespace {

constexpr float kSmallestSum = 1e-20f;
constexpr unsigned kAll = 0xFFFFFFFFu;
constexpr int kRowsABlock = 4;  // rows of the router, a warp each

// A warp's softmax of logits / temperature into p (shared memory); returns its log-sum-exp.
__device__ float Softmax(const float* logits, int32_t n, float temperature, float* p) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  float most = -INFINITY;
  bool nan = false;  // fmaxf would drop it
  for (int32_t e = lane; e < n; e += 32) {
    most = fmaxf(most, logits[e] / temperature);
    nan |= isnan(logits[e]);
  }
  most = __any_sync(kAll, nan) ? NAN : WarpMax(most);
  float sum = 0;
  for (int32_t e = lane; e < n; e += 32) {
    p[e] = expf(logits[e] / temperature - most);
    sum += p[e];
  }
  sum = WarpSum(sum);
  for (int32_t e = lane; e < n; e += 32) p[e] /= sum;
  __syncwarp();
  return most + logf(sum);
}

__device__ void ScoresOf(const RouterShape& s, const float* logits, float* p) {
  if (!s.sigmoid) {
    Softmax(logits, s.experts, s.temperature, p);
    return;
  }
  for (int32_t e = static_cast<int32_t>(threadIdx.x % 32); e < s.experts; e += 32)
    p[e] = 1.0f / (1.0f + expf(-logits[e] / s.temperature));
  __syncwarp();
}

// Whether a value stands before another one: larger, or a number where that is none, or of equal
// ones the first.
__device__ bool Before(float v, int32_t at, float w, int32_t other) {
  if (isnan(v) || isnan(w)) return isnan(v) == isnan(w) ? at < other : isnan(w);
  return v > w || (v == w && at < other);
}

// Bit j of lane l of the result: value l + 32 j is among the `count` largest of n.
__device__ uint32_t Largest(const float* values, int32_t n, int32_t count) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  uint32_t chosen = 0;
  for (int32_t k = 0; k < count; ++k) {
    float best = NAN;
    int32_t at = kMaxExperts;  // behind all: none is left
    for (int32_t e = lane, j = 0; e < n; e += 32, ++j) {
      if (!(chosen >> j & 1) && Before(values[e], e, best, at)) {
        best = values[e];
        at = e;
      }
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      const float v = __shfl_xor_sync(kAll, best, offset);
      const int32_t i = __shfl_xor_sync(kAll, at, offset);
      if (Before(v, i, best, at)) {
        best = v;
        at = i;
      }
    }
    if (at % 32 == lane && at < n) chosen |= 1u << at / 32;
  }
  return chosen;
}

__device__ bool Has(uint32_t chosen, int32_t e) {
  return __shfl_sync(kAll, chosen, e % 32) >> e / 32 & 1;
}

// `choice` (shared memory) and `group` [E] are written where experts stand in groups.
__device__ uint32_t Choose(const RouterShape& s, float* choice, float* group) {
  if (s.groups == 1 || s.groups_per_token >= s.groups)
    return Largest(choice, s.experts, s.per_token);
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int32_t size = s.experts / s.groups;
  for (int32_t g = lane; g < s.groups; g += 32) {
    float first = -INFINITY, second = -INFINITY;
    for (int32_t e = g * size; e < (g + 1) * size; ++e) {
      if (choice[e] > first) {
        second = first;
        first = choice[e];
      } else if (choice[e] > second) {
        second = choice[e];
      }
    }
    group[g] = size > 1 && s.group_best > 1 ? first + second : first;
  }
  __syncwarp();
  const uint32_t kept = Largest(group, s.groups, s.groups_per_token);
  for (int32_t e0 = 0; e0 < s.experts; e0 += 32) {
    const int32_t e = e0 + lane, g = e < s.experts ? e / size : 0;
    const uint32_t owner = __shfl_sync(kAll, kept, g % 32);
    if (e < s.experts && !(owner >> g / 32 & 1)) choice[e] = NAN;  // behind every number
  }
  __syncwarp();
  return Largest(choice, s.experts, s.per_token);
}

__global__ void Route(RouteTokens d) {
  extern __shared__ float memory[];
  const RouterShape& s = d.shape;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t r = int64_t{blockIdx.x} * kRowsABlock + warp;
  if (r >= s.rows) return;
  float* score = memory + warp * 3 * s.experts;
  float *choice = score + s.experts, *group = choice + s.experts;
  ScoresOf(s, d.logits + r * s.experts, score);
  int32_t* to = d.expert + r * s.per_token;
  const int32_t* take = d.given ? d.given + r * d.given_stride : nullptr;
  const bool taken = take && take[0] >= 0;
  if (!taken || d.otherwise) {
    for (int32_t e = lane; e < s.experts; e += 32)
      choice[e] = score[e] + (d.bias ? d.bias[e] : 0.0f);
    __syncwarp();
    const uint32_t chosen = Choose(s, choice, group);
    if (taken) {
      unsigned long long others = 0;
      for (int32_t k = 0; k < s.per_token; ++k) others += Has(chosen, take[k]) ? 0 : 1;
      // A sum of integers is the same in any order.
      if (lane == 0 && others > 0)
        atomicAdd(reinterpret_cast<unsigned long long*>(d.otherwise), others);
    } else {
      int32_t before = 0;  // in ascending order
      for (int32_t e0 = 0, j = 0; e0 < s.experts; e0 += 32, ++j) {
        const unsigned here = __ballot_sync(kAll, chosen >> j & 1);
        if (chosen >> j & 1) to[before + __popc(here & ((1u << lane) - 1))] = e0 + lane;
        before += __popc(here);
      }
    }
  }
  if (taken) {
    for (int32_t k = lane; k < s.per_token; k += 32) to[k] = take[k];
  }
  __syncwarp();
  float sum = 0;
  for (int32_t k = 0; k < s.per_token; ++k) sum += score[to[k]];
  const float by = s.renormalize ? sum + kSmallestSum : 1.0f;
  for (int32_t k = lane; k < s.per_token; k += 32) {
    d.weight[r * s.per_token + k] = s.scale * (score[to[k]] / by);
    if (d.taken) d.taken[r * d.taken_stride + k] = to[k];
  }
}

__global__ void RouteBackward(RouteTokensBackward d) {
  extern __shared__ float memory[];
  const RouterShape& s = d.shape;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t r = int64_t{blockIdx.x} * kRowsABlock + warp;
  if (r >= s.rows) return;
  float* score = memory + warp * 3 * s.experts;
  float *own = score + s.experts, *softmax = own + s.experts;
  const float* row = d.logits + r * s.experts;
  const int32_t* to = d.expert + r * s.per_token;
  const float* dw = d.dweight + r * s.per_token;
  float* out = d.dlogits + r * s.experts;
  ScoresOf(s, row, score);
  for (int32_t e = lane; e < s.experts; e += 32) own[e] = 0;
  __syncwarp();
  float sum = 0, mean = 0;
  for (int32_t k = 0; k < s.per_token; ++k) {
    sum += score[to[k]];
    mean += s.scale * dw[k] * score[to[k]];
  }
  sum += kSmallestSum;
  for (int32_t k = lane; k < s.per_token; k += 32)
    own[to[k]] = s.renormalize ? (s.scale * dw[k] - mean / sum) / sum : s.scale * dw[k];
  __syncwarp();
  if (d.dshare) {
    float all = 0, weighed = 0;
    for (int32_t e = lane; e < s.experts; e += 32) {
      all += score[e];
      weighed += d.dshare[e] * score[e];
    }
    all = WarpSum(all) + kSmallestSum;
    weighed = WarpSum(weighed);
    for (int32_t e = lane; e < s.experts; e += 32) own[e] += (d.dshare[e] - weighed / all) / all;
  }
  if (s.sigmoid) {
    for (int32_t e = lane; e < s.experts; e += 32)
      out[e] = own[e] * score[e] * (1 - score[e]) / s.temperature;
  } else {
    float inner = 0;
    for (int32_t e = lane; e < s.experts; e += 32) inner += own[e] * score[e];
    inner = WarpSum(inner);
    for (int32_t e = lane; e < s.experts; e += 32)
      out[e] = score[e] * (own[e] - inner) / s.temperature;
  }
  if (d.z == 0) return;
  const float lse = Softmax(row, s.experts, 1.0f, softmax);
  for (int32_t e = lane; e < s.experts; e += 32) out[e] += 2 * d.z * lse * softmax[e];
}

// Sums of kBlockRows rows, a warp those of a few after each other: shares, entropy and lse^2 by
// block, and how many chose each expert.
constexpr int kLoadWarps = 8, kLoadRows = RouterLoad::kBlockRows / kLoadWarps;
size_t LoadBytes(int32_t experts) {
  return size_t{kLoadWarps} * static_cast<size_t>(12 * experts + 16) +
         4 * static_cast<size_t>(experts);
}

__global__ void __launch_bounds__(32 * kLoadWarps)
    LoadParts(RouterLoad d, double* parts, int32_t* counts) {
  extern __shared__ double load_memory[];
  const RouterShape& s = d.shape;
  const int32_t experts = s.experts;
  double *shares = load_memory, *others = shares + kLoadWarps * experts;
  auto* scores = reinterpret_cast<float*>(others + 2 * kLoadWarps);
  auto* chosen = reinterpret_cast<int32_t*>(scores + kLoadWarps * experts);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  for (int32_t e = thread; e < experts; e += 32 * kLoadWarps) chosen[e] = 0;
  double* share = shares + warp * experts;
  float* score = scores + warp * experts;
  for (int32_t e = lane; e < experts; e += 32) share[e] = 0;
  __syncthreads();
  double entropy = 0, squares = 0;
  const int64_t block_row = int64_t{blockIdx.x} * RouterLoad::kBlockRows;
  for (int i = 0; i < kLoadRows; ++i) {
    const int64_t r = block_row + warp * kLoadRows + i;
    if (r >= s.rows) break;
    const float* row = d.logits + r * experts;
    const float lse = Softmax(row, experts, 1.0f, score);
    ScoresOf(s, row, score);
    float all = 0;
    for (int32_t e = lane; e < experts; e += 32) all += score[e];
    all = WarpSum(all) + kSmallestSum;
    float of_row = 0;
    for (int32_t e = lane; e < experts; e += 32) {
      const float p = score[e] / all;
      share[e] += static_cast<double>(p);
      if (p > 0) of_row -= p * logf(p);
    }
    entropy += static_cast<double>(WarpSum(of_row));
    squares += static_cast<double>(lse * lse);
  }
  if (lane == 0) others[2 * warp] = entropy, others[2 * warp + 1] = squares;
  const int64_t first = block_row * s.per_token, behind = s.rows * s.per_token,
                pairs = RouterLoad::kBlockRows * int64_t{s.per_token};
  for (int64_t i = first + thread; i < min(first + pairs, behind); i += 32 * kLoadWarps)
    atomicAdd(&chosen[d.expert[i]], 1);  // whole numbers: the same in any order
  __syncthreads();
  double* to = parts + int64_t{blockIdx.x} * (experts + 2);
  for (int32_t e = thread; e < experts + 2; e += 32 * kLoadWarps) {
    double sum = 0;
    for (int w = 0; w < kLoadWarps; ++w)
      sum += e < experts ? shares[w * experts + e] : others[2 * w + e - experts];
    to[e] = sum;
    if (e < experts) counts[int64_t{blockIdx.x} * experts + e] = chosen[e];
  }
}

// Adds the blocks' up, a warp a column, and what follows from them.
__global__ void __launch_bounds__(1024)
    LoadSums(RouterLoad d, int64_t blocks, const double* parts, const int32_t* counts) {
  __shared__ double along[kMaxExperts];
  __shared__ int64_t beyond[kMaxExperts];
  const int32_t experts = d.shape.experts;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  for (int32_t e = warp; e < experts + 2; e += 32) {
    double sum = 0;
    int32_t count = 0;
#pragma unroll 4
    for (int64_t b = lane; b < blocks; b += 32) {
      sum += parts[b * (experts + 2) + e];
      if (e < experts) count += counts[b * experts + e];
    }
    sum = WarpSum(sum);
    count = WarpSum(count);
    if (lane != 0) continue;
    if (e < experts) {
      d.tokens[e] += count;
      along[e] = count * sum;
      beyond[e] = d.capacity && count > d.capacity[e] ? count - d.capacity[e] : 0;
    } else {
      *(e == experts ? d.entropy : d.lse_squared) += sum;
    }
  }
  __syncthreads();
  if (warp != 0) return;
  double sum = 0;
  int64_t dropped = 0;
  for (int32_t e = lane; e < experts; e += 32) {
    sum += along[e];
    dropped += beyond[e];
  }
  sum = WarpSum(sum);
  dropped = WarpSum(dropped);
  if (lane != 0) return;
  *d.aux += experts * sum / static_cast<double>(d.shape.rows);
  *d.dropped += dropped;
}

// blockDim.y rows a block, N columns a thread.
template <int N, class T>
__global__ void Combine(CombineExperts c) {
  const int64_t r = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (r >= c.rows) return;
  T* to = static_cast<T*>(c.out) + r * c.width;
  for (int64_t i = static_cast<int64_t>(threadIdx.x) * N; i < c.width;
       i += static_cast<int64_t>(blockDim.x) * N) {
    Few<N, float> sum = {};
    for (int64_t k = r * c.per_token; k < (r + 1) * c.per_token; ++k) {
      const int64_t at = c.slot ? c.slot[k] : k;
      if (at < 0) continue;
      const float w = c.weight ? c.weight[k] : 1.0f;
      const auto from =
          *reinterpret_cast<const Few<N, T>*>(static_cast<const T*>(c.y) + at * c.width + i);
#pragma unroll
      for (int u = 0; u < N; ++u) sum.x[u] += w * ToFloat(from.x[u]);
    }
    auto* out = reinterpret_cast<Few<N, T>*>(to + i);
    Few<N, T> result;
    if (c.accumulate) result = *out;
#pragma unroll
    for (int u = 0; u < N; ++u)
      result.x[u] = FromFloat<T>(c.accumulate ? ToFloat(result.x[u]) + sum.x[u] : sum.x[u]);
    *out = result;
  }
}

template <class T>
__global__ void Weigh(WeighSlots w) {
  const int64_t s = blockIdx.x;
  T* act = static_cast<T*>(w.act) + s * w.width;
  T* dact = static_cast<T*>(w.dact) + s * w.width;
  const float by = w.weight[s];
  float sum = 0;
  for (int64_t i = threadIdx.x; i < w.width; i += blockDim.x) {
    const float a = ToFloat(act[i]), d = ToFloat(dact[i]);
    sum += a * d;
    act[i] = FromFloat<T>(by * a);
    dact[i] = FromFloat<T>(by * d);
  }
  sum = BlockSum(sum);
  if (threadIdx.x == 0) w.dweight[s] = sum;
}

// The same, 16 bytes at a time: one warp a row.
constexpr int kWeighRows = 8;
template <class T>
__global__ void WeighWide(WeighSlots w) {
  const int64_t s = int64_t{blockIdx.x} * kWeighRows + threadIdx.x / 32;
  if (s >= w.slots) return;
  T* act = static_cast<T*>(w.act) + s * w.width;
  T* dact = static_cast<T*>(w.dact) + s * w.width;
  const float by = w.weight[s];
  float sum = 0;
  for (int64_t i = threadIdx.x % 32 * Pack<T>::kSize; i < w.width; i += 32 * Pack<T>::kSize) {
    Pack<T> a = LoadPack(act + i), d = LoadPack(dact + i);
#pragma unroll
    for (int u = 0; u < Pack<T>::kSize; ++u) {
      sum += ToFloat(a.x[u]) * ToFloat(d.x[u]);
      a.x[u] = FromFloat<T>(by * ToFloat(a.x[u]));
      d.x[u] = FromFloat<T>(by * ToFloat(d.x[u]));
    }
    StorePack(act + i, a);
    StorePack(dact + i, d);
  }
  sum = WarpSum(sum);
  if (threadIdx.x % 32 == 0) w.dweight[s] = sum;
}

template <class T>
__global__ void Clamped(ClampedGlu k) {
  for (int64_t at = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < k.rows * k.ffn;
       at += int64_t{gridDim.x} * blockDim.x) {
    const int64_t r = at / k.ffn, i = at - r * k.ffn;
    const T* gate = static_cast<const T*>(k.gate_up) + r * 2 * k.ffn;
    const float g = fminf(ToFloat(gate[i]), k.limit),
                u = fminf(fmaxf(ToFloat(gate[k.ffn + i]), -k.limit), k.limit);
    static_cast<T*>(k.out)[at] = FromFloat<T>((u + 1.0f) * g / (1.0f + expf(-k.alpha * g)));
  }
}

template <class T>
__global__ void ClampedBack(ClampedGluBackward k) {
  for (int64_t at = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < k.rows * k.ffn;
       at += int64_t{gridDim.x} * blockDim.x) {
    const int64_t r = at / k.ffn, i = r * 2 * k.ffn + at - r * k.ffn;
    const T* in = static_cast<const T*>(k.gate_up);
    const float di = ToFloat(static_cast<const T*>(k.dout)[at]);
    const float g0 = ToFloat(in[i]), u0 = ToFloat(in[i + k.ffn]);
    const float g = fminf(g0, k.limit), u = fminf(fmaxf(u0, -k.limit), k.limit),
                s = 1.0f / (1.0f + expf(-k.alpha * g));
    T* out = static_cast<T*>(k.dgate_up);
    out[i + k.ffn] = FromFloat<T>(u == u0 ? di * g * s : 0.0f);
    out[i] = FromFloat<T>(g == g0 ? di * (u + 1.0f) * s * (1.0f + k.alpha * g * (1.0f - s)) : 0.0f);
  }
}

__global__ void SlotWeights(TakeSlots t) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < t.pairs;
       i += int64_t{gridDim.x} * blockDim.x) {
    float sum = 0;
    const int32_t slot = t.slot[i];
    for (int64_t p = 0; p < t.parts && slot >= 0; ++p) sum += t.slot_dweight[p * t.slots + slot];
    t.dweight[i] = sum;
  }
}

// One block an expert.
__global__ void Chosen(const int32_t* expert, int64_t pairs, float scale, int32_t* count,
                       float* share) {
  const int32_t e = static_cast<int32_t>(blockIdx.x);
  int32_t sum = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < pairs; i += blockDim.x) sum += expert[i] == e;
  sum = BlockSum(sum);
  if (threadIdx.x != 0) return;
  if (count) count[e] = sum;
  if (share) share[e] = scale * static_cast<float>(sum);
}

template <class T>
__global__ void Join(const T* x, int64_t parts, int64_t n, float* out) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float sum = 0;
  for (int64_t p = parts - 1; p >= 0; --p) sum = ToFloat(x[p * n + i]) + sum;
  out[i] = sum;
}

unsigned RouterBlocks(int64_t rows) {
  return static_cast<unsigned>((rows + kRowsABlock - 1) / kRowsABlock);
}

// Shared memory of `arrays` [E] of each row of a block.
template <class K>
size_t RouterBytes(K kernel, const RouterShape& s, int arrays) {
  const size_t bytes = size_t{kRowsABlock} * static_cast<size_t>(arrays * s.experts) * 4;
  CheckCuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(bytes)),
            "to give the router its shared memory");
  return bytes;
}

}  // namespace

void RouteTokens::Cuda(const Launch& launch) const {
  if (shape.rows == 0) return;
  Route<<<RouterBlocks(shape.rows), 32 * kRowsABlock, RouterBytes(Route, shape, 3),
          StreamOf(launch)>>>(*this);
  CheckLaunch(kName);
}

void RouteTokensBackward::Cuda(const Launch& launch) const {
  if (shape.rows == 0) return;
  RouteBackward<<<RouterBlocks(shape.rows), 32 * kRowsABlock, RouterBytes(RouteBackward, shape, 3),
                  StreamOf(launch)>>>(*this);
  CheckLaunch(kName);
}

void RouterLoad::Cuda(const Launch& launch) const {
  if (shape.rows == 0) return;
  const int64_t blocks = Blocks(shape);
  auto* parts = static_cast<double*>(scratch);
  auto* counts = reinterpret_cast<int32_t*>(parts + blocks * (shape.experts + 2));
  const size_t bytes = LoadBytes(shape.experts);
  CheckCuda(cudaFuncSetAttribute(LoadParts, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(bytes)),
            "to give the router's load its shared memory");
  LoadParts<<<static_cast<unsigned>(blocks), 32 * kLoadWarps, bytes, StreamOf(launch)>>>(
      *this, parts, counts);
  CheckLaunch("RouterLoad (blocks)");
  LoadSums<<<1, 1024, 0, StreamOf(launch)>>>(*this, blocks, parts, counts);
  CheckLaunch("RouterLoad (sums)");
}

void CombineExperts::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    constexpr int kWide = Pack<T>::kSize;
    const bool wide = width % kWide == 0 && Aligned16(y) && Aligned16(out);
    const auto kernel = wide ? Combine<kWide, T> : Combine<1, T>;
    const int64_t across = width / (wide ? kWide : 1);
    const unsigned threads = across <= 32 ? 32 : (across <= 64 ? 64 : 128), each = 256 / threads;
    kernel<<<static_cast<unsigned>((rows + each - 1) / each), dim3(threads, each), 0,
             StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

void WeighSlots::Cuda(const Launch& launch) const {
  if (slots == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    if (width % Pack<T>::kSize == 0 && Aligned16(act) && Aligned16(dact)) {
      const auto blocks = static_cast<unsigned>((slots + kWeighRows - 1) / kWeighRows);
      WeighWide<T><<<blocks, 32 * kWeighRows, 0, StreamOf(launch)>>>(*this);
    } else {
      Weigh<T><<<static_cast<unsigned>(slots), 128, 0, StreamOf(launch)>>>(*this);
    }
  });
  CheckLaunch(kName);
}

void ClampedGlu::Cuda(const Launch& launch) const {
  if (rows * ffn == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Clamped<T><<<Blocks(rows * ffn, 256), 256, 0, StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

void ClampedGluBackward::Cuda(const Launch& launch) const {
  if (rows * ffn == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    ClampedBack<T><<<Blocks(rows * ffn, 256), 256, 0, StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

void TakeSlots::Cuda(const Launch& launch) const {
  SlotWeights<<<Blocks(pairs, 256), 256, 0, StreamOf(launch)>>>(*this);
  CheckLaunch(kName);
}

void CountChosen::Cuda(const Launch& launch) const {
  Chosen<<<static_cast<unsigned>(experts), 1024, 0, StreamOf(launch)>>>(expert, pairs, scale, count,
                                                                        share);
  CheckLaunch(kName);
}

void JoinParts::Cuda(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    Join<<<Blocks(n, 256), 256, 0, StreamOf(launch)>>>(static_cast<const T*>(x), parts, n, out);
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
