#include "kernels/device/cuda_common.h"
#include "kernels/sparse/attention_window.h"

namespace plumb::kernels {
namespace {

constexpr int kMostDim = 256, kEach = kMostDim / 32;  // elements of a head that a lane has
constexpr int kWarps = 8;

// The sequence that place `at` belongs to: cu[b] <= at < cu[b + 1].
__device__ int32_t SequenceOf(const int32_t* cu, int32_t sequences, int64_t at) {
  int32_t low = 0, high = sequences;
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    if (cu[middle] <= at) low = middle;
    else high = middle;
  }
  return low;
}

struct Row {
  float x[kEach];
};

__device__ Row Load(const float* from, int32_t dim, int lane) {
  Row r;
#pragma unroll
  for (int i = 0; i < kEach; ++i) r.x[i] = lane + 32 * i < dim ? from[lane + 32 * i] : 0.0f;
  return r;
}

__device__ void Store(const Row& r, float* to, int32_t dim, int lane) {
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (lane + 32 * i < dim) to[lane + 32 * i] = r.x[i];
  }
}

// In every lane.
__device__ float Dot(const Row& a, const Row& b) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) sum += a.x[i] * b.x[i];
  return WarpSum(sum);
}

__device__ void Add(Row& to, float factor, const Row& r) {
#pragma unroll
  for (int i = 0; i < kEach; ++i) to.x[i] += factor * r.x[i];
}

// The keys that a query sees: first .. own.
struct Seen {
  int64_t first, own;
};

__device__ Seen SeenBy(const WindowShape& s, int64_t t) {
  const int32_t b = SequenceOf(s.cu_q, s.sequences, t);
  const int64_t own = s.cu_k[b + 1] - (s.cu_q[b + 1] - t), begin = s.cu_k[b];
  return {max(begin, own - s.window + 1), own};
}

// One warp a head of a query.
__global__ void Forward(AttentionWindow a) {
  const WindowShape& s = a.shape;
  const int64_t at = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (at >= s.queries * s.heads) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t t = at / s.heads, h = at % s.heads, kv = h / (s.heads / s.kv_heads);
  const Row query = Load(a.q + t * s.q_stride + h * s.head_dim, s.head_dim, lane);
  const Seen seen = SeenBy(s, t);
  float most = -INFINITY, sum = 0;
  Row mixed = {};
  for (int64_t j = seen.first; j <= seen.own; ++j) {
    const int64_t place = j * s.k_stride + kv * s.head_dim;
    const float score = s.scale * Dot(query, Load(a.k + place, s.head_dim, lane)),
                above = fmaxf(most, score), keep = expf(most - above), p = expf(score - above);
    sum = sum * keep + p;
#pragma unroll
    for (int i = 0; i < kEach; ++i) mixed.x[i] *= keep;
    Add(mixed, p, Load(a.v + place, s.head_dim, lane));
    most = above;
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) mixed.x[i] /= sum;
  Store(mixed, a.out + at * s.head_dim, s.head_dim, lane);
  if (lane == 0) a.lse[h * s.queries + t] = most + logf(sum);
}

// One warp a head of a query; leaves dout . out for the keys.
__global__ void Queries(AttentionWindowBackward a) {
  const WindowShape& s = a.shape;
  const int64_t at = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (at >= s.queries * s.heads) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t t = at / s.heads, h = at % s.heads, kv = h / (s.heads / s.kv_heads);
  const Row query = Load(a.q + t * s.q_stride + h * s.head_dim, s.head_dim, lane),
            g = Load(a.dout + at * s.head_dim, s.head_dim, lane);
  const float both = Dot(g, Load(a.out + at * s.head_dim, s.head_dim, lane)),
              lse = a.lse[h * s.queries + t];
  if (lane == 0) a.scratch[h * s.queries + t] = both;
  const Seen seen = SeenBy(s, t);
  Row dq = {};
  for (int64_t j = seen.first; j <= seen.own; ++j) {
    const int64_t place = j * s.k_stride + kv * s.head_dim;
    const Row key = Load(a.k + place, s.head_dim, lane);
    const float p = expf(s.scale * Dot(query, key) - lse),
                ds = p * (Dot(g, Load(a.v + place, s.head_dim, lane)) - both) * s.scale;
    Add(dq, ds, key);
  }
  Store(dq, a.dq + at * s.head_dim, s.head_dim, lane);
}

// One warp a head of a key: the queries that see it one after another, of all heads that share it.
__global__ void Keys(AttentionWindowBackward a) {
  const WindowShape& s = a.shape;
  const int64_t at = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (at >= s.keys * s.kv_heads) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t j = at / s.kv_heads, kv = at % s.kv_heads, group = s.heads / s.kv_heads;
  const int64_t place = j * s.k_stride + kv * s.head_dim;
  const Row key = Load(a.k + place, s.head_dim, lane), value = Load(a.v + place, s.head_dim, lane);
  const int32_t b = SequenceOf(s.cu_k, s.sequences, j);
  // Query t's own key is t + off.
  const int64_t off = int64_t{s.cu_k[b + 1]} - s.cu_q[b + 1], begin = s.cu_q[b],
                end = s.cu_q[b + 1];
  const int64_t first = max(begin, j - off), last = min(end - 1, j - off + s.window - 1);
  Row dk = {}, dv = {};
  for (int64_t t = first; t <= last; ++t) {
    for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
      const Row query = Load(a.q + t * s.q_stride + h * s.head_dim, s.head_dim, lane),
                g = Load(a.dout + (t * s.heads + h) * s.head_dim, s.head_dim, lane);
      const float p = expf(s.scale * Dot(query, key) - a.lse[h * s.queries + t]),
                  ds = p * (Dot(g, value) - a.scratch[h * s.queries + t]) * s.scale;
      Add(dk, ds, query);
      Add(dv, p, g);
    }
  }
  Store(dk, a.dk + at * s.head_dim, s.head_dim, lane);
  Store(dv, a.dv + at * s.head_dim, s.head_dim, lane);
}

unsigned Blocks(int64_t warps) { return static_cast<unsigned>((warps + kWarps - 1) / kWarps); }

void Check(const WindowShape& s) {
  if (s.head_dim > kMostDim)
    throw Error(ErrorCode::kUnsupported,
                "attention within a window has heads of at most 256 numbers on a GPU in float32, "
                "not " +
                    std::to_string(s.head_dim) + ": take model.dtype = \"bfloat16\"");
}

}  // namespace

void AttentionWindow::Cuda(const Launch& launch) const {
  Check(shape);
  if (shape.queries == 0) return;
  Forward<<<Blocks(shape.queries * shape.heads), 32 * kWarps, 0, StreamOf(launch)>>>(*this);
  CheckLaunch(kName);
}

void AttentionWindowBackward::Cuda(const Launch& launch) const {
  Check(shape);
  if (shape.queries == 0) return;
  Queries<<<Blocks(shape.queries * shape.heads), 32 * kWarps, 0, StreamOf(launch)>>>(*this);
  Keys<<<Blocks(shape.keys * shape.kv_heads), 32 * kWarps, 0, StreamOf(launch)>>>(*this);
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
