#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/attention_paged.h"
#include "kernels/device/cpu_common.h"
#include "kernels/device/vector_math.h"
#include "kernels/quantised/kv_rows.h"

namespace plumb::kernels {
namespace {

// Keys or values of 16 consecutive positions, as rows of floats; positions from n on repeat the
// first (their weight will be 0), so that all loops have fixed lengths. Float pages whose rows are
// whole vectors are read where they lie; others are widened into `staged` first.
template <class T>
PLUMB_INLINE void Rows(const T* const* from, int32_t n, int32_t d, int32_t width, float* staged,
                       const float** rows) {
  if (std::is_same_v<T, float> && width == d) {
    for (int32_t t = 0; t < kLanes; ++t)
      rows[t] = reinterpret_cast<const float*>(from[t < n ? t : 0]);
    return;
  }
  for (int32_t t = 0; t < n; ++t) {
    float* to = staged + t * width;
    int32_t i = 0;
    for (; i + kLanes <= d; i += kLanes) Store(to + i, Load(from[t] + i));
    if (i < d) Store(to + i, LoadPart(from[t] + i, d - i));
    rows[t] = to;
  }
  for (int32_t t = n; t < kLanes; ++t) rows[t] = staged;
}

// The same of rows in fewer bits: they are widened always.
PLUMB_INLINE void Rows(KvFormat format, const uint8_t* const* from, int32_t n, int32_t d,
                       int32_t width, float* staged, const float** rows) {
  for (int32_t t = 0; t < n; ++t) {
    float* to = staged + t * width;
    UnpackKvRow(format, from[t], {to, static_cast<size_t>(d)});
    std::fill(to + d, to + width, 0.0f);
    rows[t] = to;
  }
  for (int32_t t = n; t < kLanes; ++t) rows[t] = staged;
}

template <class T>
PLUMB_INLINE void Rows(KvFormat, const T* const* from, int32_t n, int32_t d, int32_t width,
                       float* staged, const float** rows) {
  Rows(from, n, d, width, staged, rows);
}

// Lane t: query . row[t]. Chunks vectors a row; 0: as many as `width` says.
template <int Chunks>
PLUMB_INLINE FloatLanes Scores(const float* query, const float* const* row, int32_t width) {
  const int32_t end = Chunks > 0 ? Chunks * kLanes : width;
  FloatLanes part[kLanes];
#pragma GCC unroll 16
  for (int32_t t = 0; t < kLanes; ++t) {
    FloatLanes sum = Load(query) * Load(row[t]);
#pragma GCC unroll 8
    for (int32_t i = kLanes; i < end; i += kLanes) sum += Load(query + i) * Load(row[t] + i);
    part[t] = sum;
  }
  return SumRows(part);
}

// acc = acc * rescale + sum_t weight[t] row[t] for Width vectors; two running sums hide the latency
// of the additions.
template <int Width>
PLUMB_INLINE void AddRows(const float* weight, const float* const* row, int32_t at, float rescale,
                          float* acc) {
  FloatLanes even[Width], odd[Width] = {};
  for (int w = 0; w < Width; ++w) even[w] = Load(acc + at + w * kLanes) * rescale;
  for (int32_t t = 0; t < kLanes; t += 2) {
    for (int w = 0; w < Width; ++w) {
      even[w] += Load(row[t] + at + w * kLanes) * weight[t];
      odd[w] += Load(row[t + 1] + at + w * kLanes) * weight[t + 1];
    }
  }
  for (int w = 0; w < Width; ++w) Store(acc + at + w * kLanes, even[w] + odd[w]);
}

// One row and one KV head: the group's query heads read each key and value once. Sixteen positions
// at a time are scored and folded into the running maximum, sum and output (online softmax),
// whatever the page size. Positions before `hidden` are not seen, but for those that `every`
// divides, or the `chosen_count` chosen ones, which come first; 0: none. sinks: of the group's
// heads, or nullptr. lse: of the group's heads, lse_stride apart, or nullptr.
template <int Chunks, class T, class Page>
void RowHead(const T* q, const T* sinks, int32_t group, int32_t d, float scale, int32_t hidden,
             int32_t every, const int32_t* chosen, const float* chosen_weight, int32_t chosen_count,
             int32_t length, const int32_t* table, const Page* layer, int32_t kv_head,
             const PagedKv& kv, T* out, float* lse, int64_t lse_stride, float* work) {
  const int32_t width = Chunks > 0 ? Chunks * kLanes : PadToLanes(d);
  float* query = work;                    // [group, width]
  float* acc = query + group * width;     // [group, width]
  float* keys = acc + group * width;      // [16, width]
  float* values = keys + kLanes * width;  // [16, width]
  float* top = values + kLanes * width;   // [group]
  float* sum = top + group;               // [group]
  std::fill(query, keys, 0.0f);
  for (int32_t g = 0; g < group; ++g) {
    for (int32_t i = 0; i < d; ++i) query[g * width + i] = ToFloat(q[g * d + i]) * scale;
    top[g] = sinks ? ToFloat(sinks[g]) : -INFINITY;
    sum[g] = sinks ? 1.0f : 0.0f;
  }
  const int32_t globals = every > 0 ? (hidden + every - 1) / every : chosen_count,
                ahead = PadToLanes(globals), begin = hidden / kLanes * kLanes;
  for (int32_t at = 0; at < ahead + length - begin; at += kLanes) {
    const bool global = at < ahead;
    const int32_t start = global ? at : begin + at - ahead,
                  n = std::min(kLanes, (global ? globals : length) - start);
    const Page* k_at[kLanes] = {};
    const Page* v_at[kLanes] = {};
    const bool listed = global && every == 0;
    int32_t position = listed ? chosen[start] : global ? start * every : start;
    int32_t page = position / kv.page_tokens, in_page = position % kv.page_tokens;
    for (int32_t t = 0; t < n; ++t) {
      k_at[t] = layer + table[page] * kv.page_stride() + kv_head * kv.head_stride() +
                in_page * kv.row_stride();
      v_at[t] = k_at[t] + kv.kv_stride();
      if (global) {
        if (!listed) position += every;
        else if (t + 1 < n) position = chosen[start + t + 1];
        page = position / kv.page_tokens, in_page = position % kv.page_tokens;
      } else if (++in_page == kv.page_tokens) {
        in_page = 0;
        ++page;
      }
    }
    // their pages may be another sequence's by now; their weight is 0
    const int32_t unseen = global ? 0 : hidden - start;
    for (int32_t t = 0; t < unseen; ++t) {
      k_at[t] = k_at[unseen];
      v_at[t] = v_at[unseen];
    }
    const float *k_row[kLanes], *v_row[kLanes];
    Rows(kv.format, k_at, n, d, width, keys, k_row);
    if (kv.keys_only) std::copy_n(k_row, kLanes, v_row);
    else Rows(kv.format, v_at, n, d, width, values, v_row);
    for (int32_t g = 0; g < group; ++g) {
      FloatLanes score = Scores<Chunks>(query + g * width, k_row, width);
      if (listed)
        score += n < kLanes ? LoadPart(chosen_weight + start, n) : Load(chosen_weight + start);
      score = KeepFirst(score, n, -INFINITY);
      if (unseen > 0) score = DropFirst(score, unseen, -INFINITY);
      const float highest = std::max(top[g], Max(score));
      const FloatLanes weights = Exp(score - highest);
      float weight[kLanes];
      Store(weight, weights);
      // 0 at the first positions
      const float rescale = highest == top[g] ? 1.0f : FastExp(top[g] - highest);
      top[g] = highest;
      sum[g] = sum[g] * rescale + Sum(weights);
      float* a = acc + g * width;
      int32_t i = 0;
      for (; i + 4 * kLanes <= width; i += 4 * kLanes) AddRows<4>(weight, v_row, i, rescale, a);
      for (; i + 2 * kLanes <= width; i += 2 * kLanes) AddRows<2>(weight, v_row, i, rescale, a);
      for (; i < width; i += kLanes) AddRows<1>(weight, v_row, i, rescale, a);
    }
  }
  for (int32_t g = 0; g < group; ++g) {
    const float inverse = 1.0f / sum[g];
    if (lse) lse[g * lse_stride] = top[g] + std::log(sum[g]);
#pragma omp simd
    for (int32_t i = 0; i < d; ++i) out[g * d + i] = FromFloat<T>(acc[g * width + i] * inverse);
  }
}

template <class T, class Page>
void Attention(const AttentionPaged& k) {
  const PagedKv& kv = k.kv;
  const PagedRows& rows = k.rows;
  const int32_t d = kv.head_dim, heads = k.heads, group = heads / kv.kv_heads, window = k.window,
                every = k.global_every;
  const float scale = k.scale;
  const auto* q = static_cast<const T*>(k.q);
  const Page* base = static_cast<const Page*>(kv.pages) + k.layer * kv.layer_stride();
  const int64_t tasks = int64_t{rows.rows} * kv.kv_heads;
  const int64_t work_size = int64_t{2} * (group + kLanes) * PadToLanes(d) + 2 * group;
#pragma omp parallel if (tasks * group * d > 2048)
  {
    thread_local AlignedFloats work;  // grows once a thread
    float* memory = work.Grow(work_size);
    // Rows differ in length: hand them out in small portions.
#pragma omp for schedule(dynamic, 8)
    for (int64_t task = 0; task < tasks; ++task) {
      const auto r = static_cast<int32_t>(task / kv.kv_heads),
                 h = static_cast<int32_t>(task % kv.kv_heads);
      const int32_t length = rows.position[r] + 1,
                    hidden = window > 0 ? std::max(0, length - window) : 0;
      const int32_t* chosen = k.chosen ? k.chosen + int64_t{r} * k.chosen_count : nullptr;
      const auto chosen_count =
          k.chosen ? static_cast<int32_t>(std::find(chosen, chosen + k.chosen_count, -1) - chosen)
                   : 0;
      const auto call = [&]<int Chunks>(std::integral_constant<int, Chunks>) {
        RowHead<Chunks>(
            q + r * k.q_stride + int64_t{h} * group * d,
            k.sinks ? static_cast<const T*>(k.sinks) + int64_t{h} * group : nullptr, group, d,
            scale, hidden, every, chosen,
            k.chosen ? k.chosen_weight + int64_t{r} * k.chosen_count : nullptr, chosen_count,
            length, rows.page_table + int64_t{rows.slot[r]} * rows.page_table_stride, base, h, kv,
            static_cast<T*>(k.out) + (int64_t{r} * heads + int64_t{h} * group) * d,
            k.lse ? k.lse + int64_t{h} * group * rows.rows + r : nullptr, rows.rows, memory);
      };
      if (d == 32) call(std::integral_constant<int, 2>{});
      else if (d == 64) call(std::integral_constant<int, 4>{});
      else if (d == 128) call(std::integral_constant<int, 8>{});
      else call(std::integral_constant<int, 0>{});
    }
  }
}

}  // namespace

void AttentionPaged::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    if (kv.format == KvFormat::kModel) Attention<T, T>(*this);
    else Attention<T, uint8_t>(*this);
  });
}

void CopyPages::Cpu(const Launch&) const {
  const auto element = static_cast<size_t>(kv.element_bytes());
  auto* base = static_cast<std::byte*>(kv.pages);
  for (int32_t layer = 0; layer < kv.layers; ++layer) {
    for (int32_t i = 0; i < count; ++i) {
      std::memcpy(
          base +
              static_cast<size_t>(layer * kv.layer_stride() + to[i] * kv.page_stride()) * element,
          base +
              static_cast<size_t>(layer * kv.layer_stride() + from[i] * kv.page_stride()) * element,
          static_cast<size_t>(kv.page_stride()) * element);
    }
  }
}

}  // namespace plumb::kernels
