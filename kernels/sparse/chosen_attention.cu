#include "kernels/sparse/chosen_attention.h"
#include "kernels/sparse/key_fold.h"
#include "kernels/sparse/token_gate.h"

namespace plumb::kernels {
namespace {

constexpr int kWarps = 8;  // of a block

// A sequence of the batch, behind the one that it goes on from.
struct Run {
  int64_t begin, end;  // its own tokens
  int64_t prefix;      // token of the sequence's position 0
  int32_t base;        // position of its first own token

  __device__ int64_t TokenAt(int32_t position) const {
    return position < base ? prefix + position : begin + position - base;
  }
};

__device__ Run RunOf(const VarlenShape& s, int32_t b) {
  const int32_t parent = s.parents ? s.parents[b] : -1;
  const int64_t begin = s.cu_seqlens[b];
  if (parent < 0) return {begin, s.cu_seqlens[b + 1], begin, 0};
  const int64_t prefix = s.cu_seqlens[parent];
  return {begin, s.cu_seqlens[b + 1], prefix,
          static_cast<int32_t>(s.cu_seqlens[parent + 1] - prefix)};
}

// What a token sees before its window: `held` tokens, listed, or those whose position `every`
// divides.
struct FarKeys {
  const int32_t* chosen;
  Run run;
  int32_t every, held;

  __device__ int64_t operator[](int32_t i) const {
    return chosen ? chosen[i] : run.TokenAt(i * every);
  }
};

// The place of the first -1.
__device__ int32_t HeldOf(const int32_t* chosen, int32_t count) {
  int32_t low = 0, high = count;
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (chosen[middle] >= 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

__device__ FarKeys FarKeysOf(const VarlenShape& s, const int32_t* chosen, int32_t count,
                             int64_t t) {
  if (chosen) return {chosen + t * count, {}, 0, HeldOf(chosen + t * count, count)};
  const Run run = RunOf(s, SequenceOf(s.cu_seqlens, s.sequences, t));
  const int32_t hidden = max(0, run.base + static_cast<int32_t>(t - run.begin) + 1 - s.window);
  return {nullptr, run, s.global_every, (hidden + s.global_every - 1) / s.global_every};
}

// One warp a head of a token.
template <class T, int E>
__global__ void Forward(ChosenAttention k) {
  const VarlenShape& s = k.shape;
  const int64_t at = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (at >= s.tokens * s.heads) return;
  const int64_t t = at / s.heads;
  const auto h = static_cast<int32_t>(at - t * s.heads);
  const FarKeys far = FarKeysOf(s, k.chosen, k.count, t);
  if (far.held == 0) return;
  const int32_t d = s.head_dim, kv = h / (s.heads / s.kv_heads);
  const int64_t row = int64_t{s.heads + 2 * s.kv_heads} * d, k_at = int64_t{s.heads + kv} * d,
                v_at = k_at + int64_t{s.kv_heads} * d;
  const T* qkv = static_cast<const T*>(k.qkv);
  float query[E];
  LoadLanes<E>(qkv + t * row + int64_t{h} * d, d, s.scale, query);
  KeyFold<E, 1> fold;
  for (int32_t i = 0; i < far.held; ++i) {
    const int64_t j = far[i];
    float key[E], value[E];
    LoadLanes<E>(qkv + j * row + k_at, d, 1.0f, key);
    LoadLanes<E>(qkv + j * row + v_at, d, 1.0f, value);
    fold.Add(0, DotLanes(query, key) + (k.gate ? LogSigmoid(k.gate[j]) : 0.0f), value);
  }
  // The window comes last: what it has given, with the log-sum-exp as its score.
  float* place = k.lse + LsePlace(k.layout, h, s.heads, t, s.tokens);
  T* out = static_cast<T*>(k.out) + at * d;
  float window[E];
  LoadLanes<E>(out, d, 1.0f, window);
  fold.Add(0, *place, window);
  __syncwarp();
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const int32_t i = static_cast<int32_t>(threadIdx.x % 32) + 32 * e;
    if (i < d) out[i] = FromFloat<T>(fold.mix[0][e] / fold.sum[0]);
  }
  if (threadIdx.x % 32 == 0) *place = fold.top[0] + logf(fold.sum[0]);
}

// One warp a head of a token: the gradient of its query.
template <class T, int E>
__global__ void Queries(ChosenAttentionBackward k) {
  const VarlenShape& s = k.shape;
  const int64_t at = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (at >= s.tokens * s.heads) return;
  const int64_t t = at / s.heads;
  const auto h = static_cast<int32_t>(at - t * s.heads);
  const FarKeys far = FarKeysOf(s, k.chosen, k.count, t);
  if (far.held == 0) return;
  const int32_t d = s.head_dim, kv = h / (s.heads / s.kv_heads);
  const int64_t row = int64_t{s.heads + 2 * s.kv_heads} * d, k_at = int64_t{s.heads + kv} * d,
                v_at = k_at + int64_t{s.kv_heads} * d;
  const T* qkv = static_cast<const T*>(k.qkv);
  float query[E], dout[E], out[E], sum[E] = {};
  LoadLanes<E>(qkv + t * row + int64_t{h} * d, d, s.scale, query);
  LoadLanes<E>(static_cast<const T*>(k.dout) + at * d, d, 1.0f, dout);
  LoadLanes<E>(static_cast<const T*>(k.out) + at * d, d, 1.0f, out);
  const float delta = DotLanes(dout, out), lse = k.lse[LsePlace(k.layout, h, s.heads, t, s.tokens)];
  for (int32_t i = 0; i < far.held; ++i) {
    const int64_t j = far[i];
    float key[E], value[E];
    LoadLanes<E>(qkv + j * row + k_at, d, 1.0f, key);
    LoadLanes<E>(qkv + j * row + v_at, d, 1.0f, value);
    const float score = DotLanes(query, key) + (k.gate ? LogSigmoid(k.gate[j]) : 0.0f),
                by = expf(score - lse) * (DotLanes(dout, value) - delta) * s.scale;
#pragma unroll
    for (int e = 0; e < E; ++e) sum[e] += by * key[e];
  }
  AddLanes(sum, d, static_cast<T*>(k.dqkv) + t * row + int64_t{h} * d);
}

// Whether token t has chosen token j.
__device__ bool Has(const int32_t* chosen, int32_t count, int64_t t, int64_t j) {
  const int32_t* list = chosen + t * count;
  int32_t low = 0, high = HeldOf(list, count);
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (list[middle] < j) low = middle + 1;
    else high = middle;
  }
  return low < count && list[low] == j;
}

// The tokens [first, end) of a run that see token j before their windows, j at position `place` of
// it. A token that a set has lost does not come back, so they lie together.
struct Seen {
  int64_t first, end;
};

__device__ Seen SeenBy(const ChosenAttentionBackward& k, const Run& run, int64_t j, int32_t place) {
  const int64_t first = run.begin + max(0, place + k.shape.window - run.base);
  if (!k.chosen || first >= run.end) return {first, run.end};
  int64_t low = first, high = run.end;  // the first that does not see it
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (Has(k.chosen, k.count, middle, j)) low = middle + 1;
    else high = middle;
  }
  return {first, low};
}

// One block a token and KV head: the gradients of its key and value, and its part of the gate's.
// Every kWarps-th token that sees it is a warp's, and warps are added up in their order.
template <class T, int E>
__global__ void __launch_bounds__(kWarps * 32) Keys(ChosenAttentionBackward k) {
  extern __shared__ float parts[];  // [kWarps][2][d], [kWarps]
  const VarlenShape& s = k.shape;
  const int64_t j = blockIdx.x;
  const auto kv = static_cast<int32_t>(blockIdx.y);
  const int32_t d = s.head_dim, group = s.heads / s.kv_heads;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t row = int64_t{s.heads + 2 * s.kv_heads} * d, k_at = int64_t{s.heads + kv} * d,
                v_at = k_at + int64_t{s.kv_heads} * d;
  const T* qkv = static_cast<const T*>(k.qkv);
  float* gate_part = k.dgate ? k.scratch + kv * s.tokens + j : nullptr;

  const int32_t own = SequenceOf(s.cu_seqlens, s.sequences, j);
  const Run run = RunOf(s, own);
  const int32_t place = run.base + static_cast<int32_t>(j - run.begin);
  if (!k.chosen && place % s.global_every != 0) return;
  float key[E], value[E], dk[E] = {}, dv[E] = {}, dg = 0;
  LoadLanes<E>(qkv + j * row + k_at, d, 1.0f, key);
  LoadLanes<E>(qkv + j * row + v_at, d, 1.0f, value);
  const float extra = k.gate ? LogSigmoid(k.gate[j]) : 0.0f;
  int64_t before = 0;  // tokens of the runs so far
  for (int32_t b = own; b < s.sequences && (b == own || (s.parents && s.parents[b] == own)); ++b) {
    const Seen seen = SeenBy(k, b == own ? run : RunOf(s, b), j, place);
    if (seen.first >= seen.end) continue;
    // the first whose number among all is this warp's
    for (int64_t t = seen.first + (warp - before % kWarps + kWarps) % kWarps; t < seen.end;
         t += kWarps) {
      for (int32_t h = kv * group; h < (kv + 1) * group; ++h) {
        const int64_t at = (t * s.heads + h) * d;
        float query[E], dout[E], out[E];
        LoadLanes<E>(qkv + t * row + int64_t{h} * d, d, s.scale, query);
        LoadLanes<E>(static_cast<const T*>(k.dout) + at, d, 1.0f, dout);
        LoadLanes<E>(static_cast<const T*>(k.out) + at, d, 1.0f, out);
        const float lse = k.lse[LsePlace(k.layout, h, s.heads, t, s.tokens)],
                    p = expf(DotLanes(query, key) + extra - lse),
                    ds = p * (DotLanes(dout, value) - DotLanes(dout, out));
        dg += ds;
#pragma unroll
        for (int e = 0; e < E; ++e) {
          dk[e] += ds * query[e];  // which has the scale
          dv[e] += p * dout[e];
        }
      }
    }
    before += seen.end - seen.first;
  }
  if (before == 0) {
    if (gate_part && threadIdx.x == 0) *gate_part = 0;
    return;
  }
  float* gates = parts + kWarps * 2 * d;
#pragma unroll
  for (int e = 0; e < E; ++e) {
    if (lane + 32 * e < d) {
      parts[2 * warp * d + lane + 32 * e] = dk[e];
      parts[(2 * warp + 1) * d + lane + 32 * e] = dv[e];
    }
  }
  if (lane == 0) gates[warp] = dg;
  __syncthreads();
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < 2 * d; i += kWarps * 32) {
    float sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += parts[2 * w * d + i];
    T* to = static_cast<T*>(k.dqkv) + j * row + (i < d ? k_at + i : v_at + i - d);
    *to = FromFloat<T>(ToFloat(*to) + sum);
  }
  if (gate_part && threadIdx.x == 0) {
    float sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += gates[w];
    *gate_part = sum;
  }
}

// d log sigmoid(x) = sigmoid(-x)
__global__ void Gates(ChosenAttentionBackward k) {
  const VarlenShape& s = k.shape;
  for (int64_t t = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; t < s.tokens;
       t += int64_t{gridDim.x} * blockDim.x) {
    float sum = 0;
    for (int32_t kv = 0; kv < s.kv_heads; ++kv) sum += k.scratch[kv * s.tokens + t];
    k.dgate[t] = sum == 0 ? 0 : sum / (1 + expf(k.gate[t]));
  }
}

unsigned WarpBlocks(const VarlenShape& s) {
  return static_cast<unsigned>((s.tokens * s.heads + kWarps - 1) / kWarps);
}

}  // namespace

void ChosenAttention::Cuda(const Launch& launch) const {
  if (shape.tokens == 0) return;
  PLUMB_CHECK(chosen ? gate != nullptr : shape.global_every > 0, "one way to see beyond a window");
  ForDType(launch.dtype, [&]<class T>(T) {
    ForLanesOf(shape.head_dim, [&]<int E>(std::integral_constant<int, E>) {
      Forward<T, E><<<WarpBlocks(shape), kWarps * 32, 0, StreamOf(launch)>>>(*this);
    });
  });
  CheckLaunch(kName);
}

void ChosenAttentionBackward::Cuda(const Launch& launch) const {
  if (shape.tokens == 0) return;
  PLUMB_CHECK(chosen ? gate && dgate && scratch : shape.global_every > 0,
              "one way to see beyond a window");
  const dim3 keys(static_cast<unsigned>(shape.tokens), static_cast<unsigned>(shape.kv_heads));
  const size_t shared = sizeof(float) * kWarps * (2 * static_cast<size_t>(shape.head_dim) + 1);
  ForDType(launch.dtype, [&]<class T>(T) {
    ForLanesOf(shape.head_dim, [&]<int E>(std::integral_constant<int, E>) {
      Queries<T, E><<<WarpBlocks(shape), kWarps * 32, 0, StreamOf(launch)>>>(*this);
      CheckLaunch(kName);
      CheckCuda(cudaFuncSetAttribute(Keys<T, E>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(shared)),
                "to give ChosenAttentionBackward its shared memory");
      Keys<T, E><<<keys, kWarps * 32, shared, StreamOf(launch)>>>(*this);
    });
  });
  CheckLaunch(kName);
  if (!dgate) return;
  Gates<<<Blocks(shape.tokens, 256), 256, 0, StreamOf(launch)>>>(*this);
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
