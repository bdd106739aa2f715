#include "kernels/attention_paged.h"

#include "kernels/attention/tensor_attention.h"
#include "kernels/device/cuda_common.h"
#include "kernels/quantised/kv_codes.h"
#include "kernels/sparse/key_fold.h"

namespace plumb::kernels {
namespace {

constexpr int kThreads = 256;
// Positions a team scores before it rescales: their loads are in flight together. With four heads
// that spills a few registers and is still a sixth faster than two positions (docs/benchmarks.md).
constexpr int kDeep = 4;

// How a block divides its work: a team of `Lanes` lanes takes every kTeams-th position; each lane
// holds Chunks * kSize elements of the head, in 16-byte pieces that lie Lanes pieces apart.
template <class T, int Lanes, int Chunks>
struct Layout {
  static constexpr int kSize = Pack<T>::kSize;
  static constexpr int kElements = Chunks * kSize;
  static constexpr int kTeams = kThreads / Lanes;
};

// This lane's elements of a row of d, kept as T to spare registers; zeros past the end. Wide: rows
// start on 16 bytes and d is whole pieces.
template <bool Wide, int Lanes, int Chunks, class T>
__device__ __forceinline__ void LoadRow(const T* row, int32_t d, int lane, Pack<T>* out) {
  constexpr int kSize = Pack<T>::kSize;
#pragma unroll
  for (int c = 0; c < Chunks; ++c) {
    const int at = (c * Lanes + lane) * kSize;
    if constexpr (Wide) {
      *reinterpret_cast<uint4*>(&out[c]) =
          at < d ? *reinterpret_cast<const uint4*>(row + at) : uint4{0, 0, 0, 0};
    } else {
#pragma unroll
      for (int u = 0; u < kSize; ++u) out[c].x[u] = at + u < d ? row[at + u] : FromFloat<T>(0.0f);
    }
  }
}

template <int Lanes>
__device__ __forceinline__ float TeamSum(float v) {
#pragma unroll
  for (int offset = Lanes / 2; offset > 0; offset /= 2)
    v += __shfl_xor_sync(0xFFFFFFFFu, v, offset);
  return v;
}

// One block: one row, one KV head, G of the group's query heads (blockIdx.z: which). Every team
// folds its positions into its own running maximum, sum and output; the teams are merged at the end
// in a fixed order. Which team takes a position depends on the position alone, so the bits depend
// neither on the batch nor on how a prompt was cut into chunks.
template <class T, bool Wide, int Lanes, int Chunks, int G>
__global__ void __launch_bounds__(kThreads, Chunks == 1 ? 2 : 1)
    Attention(const T* q, int64_t q_stride, PagedRows rows, int32_t heads, int32_t layer,
              PagedKv kv, float scale, int32_t window, int32_t page_shift, const T* sinks, T* out) {
  using L = Layout<T, Lanes, Chunks>;
  constexpr int kElements = L::kElements;
  __shared__ float team_top[G][L::kTeams], team_sum[G][L::kTeams];
  extern __shared__ float team_out[];  // [kTeams / teams a warp][padded d]

  const int32_t d = kv.head_dim, group = heads / kv.kv_heads;
  const int64_t r = blockIdx.x;
  const auto kv_head = static_cast<int32_t>(blockIdx.y),
             first = static_cast<int32_t>(blockIdx.z) * G;
  const int lane = static_cast<int>(threadIdx.x) % Lanes,
            team = static_cast<int>(threadIdx.x) / Lanes;
  const int32_t length = rows.position[r] + 1;
  const int32_t* table = rows.page_table + int64_t{rows.slot[r]} * rows.page_table_stride;
  const T* base =
      static_cast<const T*>(kv.pages) + layer * kv.layer_stride() + kv_head * kv.head_stride();
  // positions before it are not seen
  const int32_t hidden = window > 0 ? max(0, length - window) : 0;

  float query[G][kElements], acc[G][kElements] = {}, top[G], sum[G] = {};
#pragma unroll
  for (int g = 0; g < G; ++g) {
    top[g] = -INFINITY;
    // heads past the group repeat its last
    const int32_t head = kv_head * group + min(first + g, group - 1);
    Pack<T> row[Chunks];
    LoadRow<Wide, Lanes, Chunks>(q + r * q_stride + int64_t{head} * d, d, lane, row);
#pragma unroll
    for (int e = 0; e < kElements; ++e)
      query[g][e] = ToFloat(row[e / L::kSize].x[e % L::kSize]) * scale;
  }

  // All lanes of a warp take the same number of turns: the sums over a team use the whole warp's
  // shuffle.
  constexpr int32_t kTurn = L::kTeams * kDeep;
  for (int32_t start = hidden / kTurn * kTurn; start < length; start += kTurn) {
    Pack<T> key[kDeep][Chunks], value[kDeep][Chunks];
    float score[G][kDeep];
#pragma unroll
    for (int t = 0; t < kDeep; ++t) {
      // a page that is held
      const int32_t p = start + t * L::kTeams + team,
                    at = p >= hidden && p < length ? p : length - 1;
      const int32_t page = page_shift >= 0 ? at >> page_shift : at / kv.page_tokens;
      const T* from =
          base + table[page] * kv.page_stride() + int64_t{at - page * kv.page_tokens} * d;
      LoadRow<Wide, Lanes, Chunks>(from, d, lane, key[t]);
      LoadRow<Wide, Lanes, Chunks>(from + kv.kv_stride(), d, lane, value[t]);
    }
#pragma unroll
    for (int t = 0; t < kDeep; ++t) {
      float dot[G] = {};
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        const float k = ToFloat(key[t][e / L::kSize].x[e % L::kSize]);
#pragma unroll
        for (int g = 0; g < G; ++g) dot[g] += query[g][e] * k;
      }
#pragma unroll
      for (int g = 0; g < G; ++g) {
        // every lane takes part, also those without a position
        const float sum_of_team = TeamSum<Lanes>(dot[g]);
        const int32_t p = start + t * L::kTeams + team;
        score[g][t] = p >= hidden && p < length ? sum_of_team : -INFINITY;
      }
    }
#pragma unroll
    for (int g = 0; g < G; ++g) {
      float highest = top[g];
#pragma unroll
      for (int t = 0; t < kDeep; ++t) highest = fmaxf(highest, score[g][t]);
      if (highest == -INFINITY) continue;  // this team has no position yet
      const float rescale = top[g] == -INFINITY ? 0.0f : expf(top[g] - highest);
      top[g] = highest;
      sum[g] *= rescale;
#pragma unroll
      for (int e = 0; e < kElements; ++e) acc[g][e] *= rescale;
#pragma unroll
      for (int t = 0; t < kDeep; ++t) {
        const float weight = expf(score[g][t] - highest);
        sum[g] += weight;
#pragma unroll
        for (int e = 0; e < kElements; ++e)
          acc[g][e] += weight * ToFloat(value[t][e / L::kSize].x[e % L::kSize]);
      }
    }
  }

  // Merge: all teams measure against the block's maximum, the teams of a warp add by shuffles, the
  // warps in order.
#pragma unroll
  for (int g = 0; g < G; ++g) {
    if (lane == 0) team_top[g][team] = top[g];
  }
  __syncthreads();
  constexpr int kWarps = kThreads / 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int g = 0; g < G; ++g) {
    float most = -INFINITY;
    for (int t = 0; t < L::kTeams; ++t) most = fmaxf(most, team_top[g][t]);
    const float sink =
        sinks ? ToFloat(sinks[kv_head * group + min(first + g, group - 1)]) : -INFINITY;
    most = fmaxf(most, sink);
    const float rescale = top[g] == -INFINITY ? 0.0f : expf(top[g] - most);
    if (lane == 0) team_sum[g][team] = sum[g] * rescale;
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      float a = acc[g][e] * rescale;
#pragma unroll
      for (int offset = 16; offset >= Lanes; offset /= 2)
        a += __shfl_xor_sync(0xFFFFFFFFu, a, offset);
      acc[g][e] = a;
    }
    __syncthreads();  // the last head's output is read
    if (threadIdx.x % 32 < Lanes) {
#pragma unroll
      for (int c = 0; c < Chunks; ++c) {
#pragma unroll
        for (int u = 0; u < L::kSize; ++u) {
          team_out[(warp * Chunks * Lanes + c * Lanes + lane) * L::kSize + u] =
              acc[g][c * L::kSize + u];
        }
      }
    }
    __syncthreads();
    if (first + g < group) {
      float total = expf(sink - most);  // 0 without sinks
      for (int t = 0; t < L::kTeams; ++t) total += team_sum[g][t];
      for (int32_t i = static_cast<int32_t>(threadIdx.x); i < d; i += kThreads) {
        float a = 0;
        for (int w = 0; w < kWarps; ++w) a += team_out[w * Chunks * Lanes * L::kSize + i];
        out[(r * heads + kv_head * group + first + g) * d + i] = FromFloat<T>(a / total);
      }
    }
  }
}

template <class T, bool Wide, int Lanes, int Chunks>
void Start(const Launch& launch, const AttentionPaged& k) {
  const PagedKv& kv = k.kv;
  const int32_t group = k.heads / kv.kv_heads;
  int32_t page_shift = -1;  // of pages of 2^page_shift tokens
  for (int32_t s = 0; s < 31; ++s) {
    if (kv.page_tokens == int32_t{1} << s) page_shift = s;
  }
  const size_t shared = sizeof(float) * (kThreads / 32) * Chunks * Lanes * Pack<T>::kSize;
  const auto start = [&]<int G>(std::integral_constant<int, G>) {
    const dim3 grid(static_cast<unsigned>(k.rows.rows), static_cast<unsigned>(kv.kv_heads),
                    static_cast<unsigned>((group + G - 1) / G));
    Attention<T, Wide, Lanes, Chunks, G><<<grid, kThreads, shared, StreamOf(launch)>>>(
        static_cast<const T*>(k.q), k.q_stride, k.rows, k.heads, k.layer, kv, k.scale, k.window,
        page_shift, static_cast<const T*>(k.sinks), static_cast<T*>(k.out));
  };
  if (group == 1 || Chunks > 3) start(std::integral_constant<int, 1>{});
  else if (group == 2) start(std::integral_constant<int, 2>{});
  else start(std::integral_constant < int, Chunks == 1 ? 4 : 2 > {});  // what fits in the registers
}

template <class T, bool Wide>
void ForHeadDim(const Launch& launch, const AttentionPaged& k) {
  const int32_t pieces = (k.kv.head_dim + Pack<T>::kSize - 1) / Pack<T>::kSize;
  if (pieces <= 4) Start<T, Wide, 4, 1>(launch, k);
  else if (pieces <= 8) Start<T, Wide, 8, 1>(launch, k);
  else if (pieces <= 16) Start<T, Wide, 16, 1>(launch, k);
  else if (pieces <= 32) Start<T, Wide, 32, 1>(launch, k);
  else if (pieces <= 64) Start<T, Wide, 32, 2>(launch, k);
  // One latent to all heads: 576 elements.
  else if (pieces <= 96) Start<T, Wide, 32, 3>(launch, k);
  else if (pieces <= 160) Start<T, Wide, 32, 5>(launch, k);
  else
    throw Error(ErrorCode::kUnsupported, "AttentionPaged on CUDA: head_dim " +
                                             std::to_string(k.kv.head_dim) + " is above " +
                                             std::to_string(160 * Pack<T>::kSize));
}

// A key or value at `at` of the pages (elements, or bytes of rows in fewer bits), as floats.
template <class T, int E>
__device__ __forceinline__ void LoadKvRow(const PagedKv& kv, int64_t at, float (&x)[E]) {
  const int32_t d = kv.head_dim;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (kv.format == KvFormat::kModel) {
    LoadLanes<E>(static_cast<const T*>(kv.pages) + at, d, 1.0f, x);
    return;
  }
  const uint8_t* row = static_cast<const uint8_t*>(kv.pages) + at;
  if (kv.format == KvFormat::kInt4) {
    constexpr int kBytes = kKvScaleBytes + kKvInt4Group / 2;  // of 32 numbers, one a lane
#pragma unroll
    for (int e = 0; e < E; ++e) {
      x[e] = 0;
      if (lane + 32 * e >= d) continue;
      const int code = row[e * kBytes + kKvScaleBytes + lane / 2];
      x[e] = KvScaleAt(row + e * kBytes) * OfInt4(lane % 2 == 0 ? code & 15 : code >> 4);
    }
    return;
  }
  const float scale = KvScaleAt(row);
  const bool fp8 = kv.format == KvFormat::kFp8;
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const int32_t i = lane + 32 * e;
    const uint8_t code = i < d ? row[kKvScaleBytes + i] : 0;
    x[e] = i < d ? scale * (fp8 ? OfE4M3(code) : OfInt8(code)) : 0.0f;
  }
}

// The general form: rows in fewer bits, single positions besides a window, the log-sum-exp. One
// block: one row, one KV head, G of the group's query heads. What a row sees is one list, what lies
// before the window first, and every kWarps-th of it is a warp's; warps are merged in their order.
// So the bits depend on the row and its own sequence alone.
constexpr int kWarps = kThreads / 32;

template <class T, int E, int G>
__global__ void __launch_bounds__(kThreads) Listed(AttentionPaged k) {
  __shared__ float warp_top[kWarps][G], warp_sum[kWarps][G];
  extern __shared__ float warp_mix[];  // [kWarps][d]
  const PagedKv& kv = k.kv;
  const int32_t d = kv.head_dim, group = k.heads / kv.kv_heads;
  const int64_t r = blockIdx.x;
  const auto kv_head = static_cast<int32_t>(blockIdx.y),
             first = static_cast<int32_t>(blockIdx.z) * G;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int32_t length = k.rows.position[r] + 1,
                hidden = k.window > 0 ? max(0, length - k.window) : 0;
  const int32_t* table = k.rows.page_table + int64_t{k.rows.slot[r]} * k.rows.page_table_stride;
  const int32_t* chosen = k.chosen ? k.chosen + r * k.chosen_count : nullptr;
  int32_t far = k.global_every > 0 ? (hidden + k.global_every - 1) / k.global_every : 0;
  for (int32_t high = chosen ? k.chosen_count : 0; far < high;) {  // the first -1
    const int32_t middle = (far + high) / 2;
    if (chosen[middle] >= 0) far = middle + 1;
    else high = middle;
  }
  const auto head_of = [&](int g) { return kv_head * group + min(first + g, group - 1); };

  float query[G][E];
#pragma unroll
  for (int g = 0; g < G; ++g) {
    LoadLanes<E>(static_cast<const T*>(k.q) + r * k.q_stride + int64_t{head_of(g)} * d, d, k.scale,
                 query[g]);
  }
  KeyFold<E, G> fold;
  for (int32_t i = warp; i < far + length - hidden; i += kWarps) {
    const bool before = i < far;
    const int32_t position = !before ? hidden + i - far : (chosen ? chosen[i] : i * k.global_every);
    const float extra = before && chosen ? k.chosen_weight[r * k.chosen_count + i] : 0.0f;
    const int32_t page = position / kv.page_tokens;
    const int64_t at = k.layer * kv.layer_stride() + table[page] * kv.page_stride() +
                       kv_head * kv.head_stride() +
                       int64_t{position - page * kv.page_tokens} * kv.row_stride();
    float key[E], value[E];
    LoadKvRow<T>(kv, at, key);
    LoadKvRow<T>(kv, at + kv.kv_stride(), value);
#pragma unroll
    for (int g = 0; g < G; ++g) fold.Add(g, DotLanes(query[g], key) + extra, value);
  }

  if (lane == 0) {
#pragma unroll
    for (int g = 0; g < G; ++g) {
      warp_top[warp][g] = fold.top[g];
      warp_sum[warp][g] = fold.sum[g];
    }
  }
#pragma unroll
  for (int g = 0; g < G; ++g) {
    __syncthreads();  // tops are there; the last head's output is read
    const float sink = k.sinks ? ToFloat(static_cast<const T*>(k.sinks)[head_of(g)]) : -INFINITY;
    float most = sink;
    for (int w = 0; w < kWarps; ++w) most = fmaxf(most, warp_top[w][g]);
    const float rescale = expf(fold.top[g] - most);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      if (lane + 32 * e < d) warp_mix[warp * d + lane + 32 * e] = fold.mix[g][e] * rescale;
    }
    __syncthreads();
    if (first + g >= group) continue;
    float total = expf(sink - most);  // 0 without sinks
    for (int w = 0; w < kWarps; ++w) total += warp_sum[w][g] * expf(warp_top[w][g] - most);
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < d; i += kThreads) {
      float a = 0;
      for (int w = 0; w < kWarps; ++w) a += warp_mix[w * d + i];
      static_cast<T*>(k.out)[(r * k.heads + head_of(g)) * d + i] = FromFloat<T>(a / total);
    }
    if (k.lse && threadIdx.x == 0)
      k.lse[int64_t{head_of(g)} * k.rows.rows + r] = most + logf(total);
  }
}

template <class T>
void StartListed(const Launch& launch, const AttentionPaged& k) {
  const int32_t group = k.heads / k.kv.kv_heads;
  ForLanesOf(k.kv.head_dim, [&]<int E>(std::integral_constant<int, E>) {
    const auto start = [&]<int G>(std::integral_constant<int, G>) {
      const dim3 grid(static_cast<unsigned>(k.rows.rows), static_cast<unsigned>(k.kv.kv_heads),
                      static_cast<unsigned>((group + G - 1) / G));
      const size_t shared = sizeof(float) * kWarps * static_cast<size_t>(k.kv.head_dim);
      Listed<T, E, G><<<grid, kThreads, shared, StreamOf(launch)>>>(k);
    };
    constexpr int kHeads = E > 8 ? 2 : 4;  // what fits in the registers
    if (group == 1 || E > 20) start(std::integral_constant<int, 1>{});
    else start(std::integral_constant<int, kHeads>{});
  });
}

// blockIdx.x: a pair of pages, blockIdx.y: the layer.
template <class V>
__global__ void Copy(const int32_t* from, const int32_t* to, V* pages, int64_t page_stride,
                     int64_t layer_stride) {
  const V* source = pages + blockIdx.y * layer_stride + from[blockIdx.x] * page_stride;
  V* target = pages + blockIdx.y * layer_stride + to[blockIdx.x] * page_stride;
  for (int64_t i = threadIdx.x; i < page_stride; i += blockDim.x) target[i] = source[i];
}

}  // namespace

void AttentionPaged::Cuda(const Launch& launch) const {
  PLUMB_CHECK(global_every == 0 || chosen == nullptr, "one way to see beyond a window");
  if (rows.rows == 0) return;
  // The one place where it is chosen: by what the model and its pages are, so that all rows of a
  // run go one way. Tensor cores read a prompt's keys once for a tile of its rows, and a sequence's
  // once for all heads that share them; what they cannot do goes on to the kernels above.
  if (TensorAttentionFits(launch.dtype, *this) && q_stride % 8 == 0 && Aligned16(q) &&
      Aligned16(kv.pages) && Aligned16(out)) {
    StartTensorAttention(launch, *this);
    CheckLaunch(kName);
    return;
  }
  const bool listed = kv.format != KvFormat::kModel || global_every > 0 || chosen || lse;
  ForDType(launch.dtype, [&]<class T>(T) {
    if (listed) {
      StartListed<T>(launch, *this);
      return;
    }
    constexpr int kSize = Pack<T>::kSize;
    const bool wide =
        kv.head_dim % kSize == 0 && q_stride % kSize == 0 && Aligned16(q) && Aligned16(kv.pages);
    if (wide) ForHeadDim<T, true>(launch, *this);
    else ForHeadDim<T, false>(launch, *this);
  });
  CheckLaunch(kName);
}

void CopyPages::Cuda(const Launch& launch) const {
  if (count == 0) return;
  const dim3 grid(static_cast<unsigned>(count), static_cast<unsigned>(kv.layers));
  const int64_t element = kv.element_bytes(), page = kv.page_stride() * element,
                layer = kv.layer_stride() * element;
  if (page % 16 == 0 && Aligned16(kv.pages)) {
    Copy<<<grid, 256, 0, StreamOf(launch)>>>(from, to, static_cast<uint4*>(kv.pages), page / 16,
                                             layer / 16);
  } else {
    Copy<<<grid, 256, 0, StreamOf(launch)>>>(from, to, static_cast<uint8_t*>(kv.pages), page,
                                             layer);
  }
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
