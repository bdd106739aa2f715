#include <algorithm>
#include <cmath>

#include "kernels/attention_varlen.h"
#include "kernels/device/cpu_common.h"
#include "kernels/device/vector_math.h"

namespace plumb::kernels {
namespace {

// Query rows handled together: each key or value that is loaded serves all of them, or as many as
// have room in registers.
constexpr int32_t kQueries = 8, kAtOnce = kSums >= kQueries ? kQueries : kSums >= 4 ? 4 : 2;
constexpr int32_t kWidest = kSums / kAtOnce >= 3 ? 3 : 1;  // vectors of a block

template <class T>
PLUMB_INLINE FloatLanes LoadUpTo(const T* x, int32_t n) {
  return n >= kLanes ? Load(x) : LoadPart(x, n);
}

// n rows of d elements to [d][stride] floats, so that loops over rows vectorise; rows up to
// `stride` are 0.
template <class T>
void TransposeRows(const T* x, int64_t row_stride, int32_t n, int32_t d, int32_t stride,
                   float* out) {
  for (int32_t j = 0; j < n; j += kLanes) {
    const int32_t rows = std::min(kLanes, n - j);
    for (int32_t i = 0; i < d; i += kLanes) {
      const int32_t cols = std::min(kLanes, d - i);
      FloatLanes block[kLanes];
      for (int32_t r = 0; r < kLanes; ++r)
        block[r] = r < rows ? LoadUpTo(x + (j + r) * row_stride + i, cols) : FloatLanes{};
      Transpose(block);
      for (int32_t c = 0; c < cols; ++c) Store(out + int64_t{i + c} * stride + j, block[c]);
    }
  }
}

// One row of d elements, times `scale`, to floats; zeros up to the padded width.
template <class T>
PLUMB_INLINE void WidenRow(const T* x, int32_t d, float scale, float* out) {
  for (int32_t i = 0; i < d; i += kLanes) Store(out + i, LoadUpTo(x + i, d - i) * scale);
}

template <class T>
PLUMB_INLINE void NarrowRow(const float* x, int32_t d, float scale, T* out) {
#pragma omp simd
  for (int32_t i = 0; i < d; ++i) out[i] = FromFloat<T>(x[i] * scale);
}

// s[q][j] = sum_i a[q][i] b_t[i][j] for Width vectors of j.
template <int Width>
PLUMB_INLINE void ProductBlock(const float* a, int32_t a_stride, const float* b_t, int32_t d,
                               int32_t stride, float* s) {
  for (int q0 = 0; q0 < kQueries; q0 += kAtOnce) {
    FloatLanes sum[kAtOnce][Width] = {};
    for (int32_t i = 0; i < d; ++i) {
      FloatLanes b[Width];
      for (int w = 0; w < Width; ++w) b[w] = Load(b_t + int64_t{i} * stride + w * kLanes);
      for (int q = 0; q < kAtOnce; ++q) {
        const float x = a[(q0 + q) * a_stride + i];
        for (int w = 0; w < Width; ++w) sum[q][w] += b[w] * x;
      }
    }
    for (int q = 0; q < kAtOnce; ++q) {
      for (int w = 0; w < Width; ++w) Store(s + int64_t{q0 + q} * stride + w * kLanes, sum[q][w]);
    }
  }
}

void Products(const float* a, int32_t a_stride, const float* b_t, int32_t n, int32_t d,
              int32_t stride, float* s) {
  int32_t j = 0;
  for (; j + kWidest * kLanes <= n; j += kWidest * kLanes)
    ProductBlock<kWidest>(a, a_stride, b_t + j, d, stride, s + j);
  if (n - j > 2 * kLanes) ProductBlock<3>(a, a_stride, b_t + j, d, stride, s + j);
  else if (n - j > kLanes) ProductBlock<2>(a, a_stride, b_t + j, d, stride, s + j);
  else if (n > j) ProductBlock<1>(a, a_stride, b_t + j, d, stride, s + j);
}

// out[q][i] = sum_j p[q][j] x[j][i] for j < n, a pair of vectors of i at a time.
template <int Width>
PLUMB_INLINE void MixBlock(const float* p, int32_t p_stride, const float* x, int32_t n,
                           int32_t width, float* out) {
  for (int q0 = 0; q0 < kQueries; q0 += kAtOnce) {
    FloatLanes sum[kAtOnce][Width] = {};
    for (int32_t j = 0; j < n; ++j) {
      FloatLanes v[Width];
      for (int w = 0; w < Width; ++w) v[w] = Load(x + int64_t{j} * width + w * kLanes);
      for (int q = 0; q < kAtOnce; ++q) {
        const float s = p[int64_t{q0 + q} * p_stride + j];
        for (int w = 0; w < Width; ++w) sum[q][w] += v[w] * s;
      }
    }
    for (int q = 0; q < kAtOnce; ++q) {
      for (int w = 0; w < Width; ++w) Store(out + (q0 + q) * width + w * kLanes, sum[q][w]);
    }
  }
}

void Mix(const float* p, int32_t p_stride, const float* x, int32_t n, int32_t width, float* out) {
  constexpr int kWide = std::min(2, kWidest);
  int32_t i = 0;
  for (; i + kWide * kLanes <= width; i += kWide * kLanes)
    MixBlock<kWide>(p, p_stride, x + i, n, width, out + i);
  if (i < width) MixBlock<1>(p, p_stride, x + i, n, width, out + i);
}

// x[j][i] += sum_q p[q][j] a[q][i] for j < n.
template <int Width>
PLUMB_INLINE void SpreadBlock(const float* p, int32_t p_stride, const float* a, int32_t n,
                              int32_t width, float* x) {
  for (int q0 = 0; q0 < kQueries; q0 += kAtOnce) {
    FloatLanes row[kAtOnce][Width];
    for (int q = 0; q < kAtOnce; ++q) {
      for (int w = 0; w < Width; ++w) row[q][w] = Load(a + (q0 + q) * width + w * kLanes);
    }
    for (int32_t j = 0; j < n; ++j) {
      float* to = x + int64_t{j} * width;
      FloatLanes sum[Width];
      for (int w = 0; w < Width; ++w) sum[w] = Load(to + w * kLanes);
      for (int q = 0; q < kAtOnce; ++q) {
        const float s = p[int64_t{q0 + q} * p_stride + j];
        for (int w = 0; w < Width; ++w) sum[w] += row[q][w] * s;
      }
      for (int w = 0; w < Width; ++w) Store(to + w * kLanes, sum[w]);
    }
  }
}

void Spread(const float* p, int32_t p_stride, const float* a, int32_t n, int32_t width, float* x) {
  constexpr int kWide = std::min(2, kWidest);
  int32_t i = 0;
  for (; i + kWide * kLanes <= width; i += kWide * kLanes)
    SpreadBlock<kWide>(p, p_stride, a + i, n, width, x + i);
  if (i < width) SpreadBlock<1>(p, p_stride, a + i, n, width, x + i);
}

// A sequence: its own tokens and those it goes on from. Key j < base is token prefix + j, the
// others are begin + j - base.
struct Place {
  int32_t begin, own;    // its tokens
  int32_t prefix, base;  // the tokens before them
};

PLUMB_INLINE Place PlaceOf(const VarlenShape& shape, int32_t b) {
  const int32_t begin = shape.cu_seqlens[b], parent = shape.parents ? shape.parents[b] : -1;
  Place place = {begin, shape.cu_seqlens[b + 1] - begin, begin, 0};
  if (parent >= 0) {
    place.prefix = shape.cu_seqlens[parent];
    place.base = shape.cu_seqlens[parent + 1] - place.prefix;
  }
  return place;
}

// Keys before this one are not seen by query i (places in the sequence, the tokens it goes on from
// included).
PLUMB_INLINE int32_t HiddenBefore(const VarlenShape& shape, int32_t i) {
  return shape.window > 0 ? std::max(0, i + 1 - shape.window) : 0;
}

// How many of the positions that all see lie before the window of query i; those within count as
// the others there.
PLUMB_INLINE int32_t GlobalsBefore(const VarlenShape& shape, int32_t i) {
  const int32_t every = shape.global_every;
  return every > 0 ? (HiddenBefore(shape, i) + every - 1) / every : 0;
}

// The first key of whole vectors that query i or a later one sees: where a block's work begins.
PLUMB_INLINE int32_t FirstSeen(const VarlenShape& shape, int32_t i) {
  return HiddenBefore(shape, i) / kLanes * kLanes;
}

// Lanes before `begin` and from `end` on become `value`.
PLUMB_INLINE FloatLanes KeepBetween(FloatLanes x, int32_t begin, int32_t end, float value) {
  x = KeepFirst(x, end, value);
  return begin > 0 ? DropFirst(x, begin, value) : x;
}

// A thread's work areas for sequences up to n tokens, with those that all see once more in front.
// `keys` rows are padded to `stride`, `width` is d padded.
struct Work {
  AlignedFloats memory;
  float *k_t, *v_t, *k, *dk, *dv, *query, *dout, *out, *more, *s, *dp;
  void Reserve(int64_t n, int64_t d, int64_t stride, int64_t width, bool backward) {
    const int64_t columns = d * stride, rows = n * width, few = kQueries * width,
                  scores = kQueries * stride;
    float* at =
        memory.Grow((backward ? 2 * columns + 3 * rows : columns + rows) + 4 * few + 2 * scores);
    const auto take = [&at](int64_t size) {
      float* taken = at;
      at += size;
      return taken;
    };
    k_t = take(columns);
    k = take(rows);
    query = take(few);
    dout = take(few);
    out = take(few);
    more = take(few);
    s = take(scores);
    dp = take(scores);
    if (!backward) return;
    v_t = take(columns);
    dk = take(rows);
    dv = take(rows);
  }
};

// The keys or values that all see, of a sequence of n tokens, as columns in front of the others and
// as rows; either may be missing. `at` is where the token of a place begins.
template <class At>
PLUMB_INLINE void GatherGlobals(int32_t count, int32_t every, int32_t padded, int32_t d,
                                int32_t stride, int32_t width, const At& at, float* columns,
                                float* rows) {
  for (int32_t m = 0; m < count; ++m) {
    const auto* from = at(m * every);
    if (rows) WidenRow(from, d, 1.0f, rows + int64_t{m} * width);
    for (int32_t i = 0; columns && i < d; ++i) columns[int64_t{i} * stride + m] = ToFloat(from[i]);
  }
  for (int32_t i = 0; columns && i < d; ++i)
    std::fill(columns + int64_t{i} * stride + count, columns + int64_t{i} * stride + padded, 0.0f);
}

// out[q] = p[q] x over the keys that all see, then over those of the window.
PLUMB_INLINE void MixBoth(const float* p, int32_t p_stride, const float* globals, int32_t count,
                          const float* x, int32_t n, int32_t width, float* more, float* out) {
  Mix(p + PadToLanes(count), p_stride, x, n, width, out);
  if (count == 0) return;
  Mix(p, p_stride, globals, count, width, more);
#pragma omp simd
  for (int32_t i = 0; i < kQueries * width; ++i) out[i] += more[i];
}

template <class T>
void Forward(const VarlenShape& shape, const T* qkv, T* out, float* lse) {
  const int32_t d = shape.head_dim, width = PadToLanes(d), group = shape.heads / shape.kv_heads;
  const int64_t row = int64_t{shape.heads + 2 * shape.kv_heads} * d;
  const float scale = shape.scale;
  const int64_t tasks = int64_t{shape.sequences} * shape.kv_heads;
#pragma omp parallel if (shape.tokens * row > kParallelElements)
  {
    thread_local Work w;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; ++task) {
      const auto h = static_cast<int32_t>(task % shape.kv_heads);
      const auto [begin, own, prefix, base] =
          PlaceOf(shape, static_cast<int32_t>(task / shape.kv_heads));
      const int32_t n = base + own, globals = GlobalsBefore(shape, n - 1),
                    front = PadToLanes(globals),
                    stride = front + PadToLanes(base + PadToLanes(own));
      w.Reserve(front + n, d, stride, width, false);
      const int64_t k_at = int64_t{shape.heads + h} * d,
                    v_at = int64_t{shape.heads + shape.kv_heads + h} * d;
      float* k_t = w.k_t + front;
      float* values = w.k + int64_t{front} * width;
      if (base > 0) TransposeRows(qkv + prefix * row + k_at, row, base, d, stride, k_t);
      // over what padded the columns before
      TransposeRows(qkv + begin * row + k_at, row, own, d, stride, k_t + base);
      const auto token = [&](int32_t j) {
        return qkv + int64_t{j < base ? prefix + j : begin + j - base} * row;
      };
      for (int32_t j = 0; j < n; ++j)
        WidenRow(token(j) + v_at, d, 1.0f, values + int64_t{j} * width);
      const auto gather = [&](int64_t at, float* columns, float* rows) {
        GatherGlobals(
            globals, shape.global_every, front, d, stride, width,
            [&](int32_t j) { return token(j) + at; }, columns, rows);
      };
      gather(k_at, w.k_t, nullptr);
      gather(v_at, nullptr, w.k);
      for (int32_t task_head = 0; task_head < group; ++task_head) {
        const int32_t head = h * group + task_head;
        for (int32_t i0 = 0; i0 < own; i0 += kQueries) {
          const int32_t queries = std::min(kQueries, own - i0), from = FirstSeen(shape, base + i0);
          // counted from key `from` on
          const int32_t keys = base + i0 + queries - from,
                        seen = GlobalsBefore(shape, base + i0 + queries - 1),
                        ahead = PadToLanes(seen), padded = PadToLanes(keys);
          // rows past the end repeat the last and are not stored
          for (int32_t q = 0; q < kQueries; ++q) {
            WidenRow(qkv + (begin + i0 + std::min(q, queries - 1)) * row + int64_t{head} * d, d,
                     scale, w.query + q * width);
          }
          Products(w.query, width, w.k_t, seen, d, stride, w.s);
          Products(w.query, width, k_t + from, keys, d, stride, w.s + ahead);
          float inverse[kQueries];
          for (int32_t q = 0; q < queries; ++q) {
            float* s = w.s + int64_t{q} * stride;
            const int32_t visible = base + i0 + q + 1 - from,
                          hidden = HiddenBefore(shape, base + i0 + q) - from;
            FloatLanes most = Broadcast(-INFINITY);
            const int32_t global = GlobalsBefore(shape, base + i0 + q);
            for (int32_t j = 0; j < ahead; j += kLanes) {
              const FloatLanes x = KeepFirst(Load(s + j), global - j, -INFINITY);
              Store(s + j, x);
              most = Larger(x, most);
            }
            for (int32_t j = 0; j < padded; j += kLanes) {
              const FloatLanes x =
                  KeepBetween(Load(s + ahead + j), hidden - j, visible - j, -INFINITY);
              Store(s + ahead + j, x);
              most = Larger(x, most);
            }
            const float top = Max(most);
            FloatLanes sum = {};
            for (int32_t j = 0; j < ahead + padded; j += kLanes) {
              const FloatLanes e = Exp(Load(s + j) - top);
              Store(s + j, e);
              sum += e;
            }
            const float total = Sum(sum);
            lse[int64_t{head} * shape.tokens + begin + i0 + q] = top + std::log(total);
            inverse[q] = 1.0f / total;
          }
          for (int32_t q = queries; q < kQueries; ++q)
            std::fill_n(w.s + int64_t{q} * stride, ahead + padded, 0.0f);
          MixBoth(w.s, stride, w.k, seen, values + int64_t{from} * width, keys, width, w.more,
                  w.out);
          for (int32_t q = 0; q < queries; ++q) {
            NarrowRow(w.out + q * width, d, inverse[q],
                      out + (int64_t{begin + i0 + q} * shape.heads + head) * d);
          }
        }
      }
    }
  }
}

PLUMB_INLINE bool IsParent(const VarlenShape& shape, int32_t b) {
  return shape.parents && b + 1 < shape.sequences && shape.parents[b + 1] == b;
}

// The gradient of a prefix's keys and values is a sum over the sequences behind it, each of which
// leaves its part in the scratch memory: two blocks [PartRows(b), width] of every sequence and KV
// head.
PLUMB_INLINE int64_t PartRows(const VarlenShape& shape, int32_t b) {
  const Place place = PlaceOf(shape, b);
  return IsParent(shape, b) ? place.own : place.base;
}

PLUMB_INLINE int64_t PartsBefore(const VarlenShape& shape, int32_t b) {
  int64_t rows = 0;
  for (int32_t i = 0; shape.parents && i < b; ++i) rows += PartRows(shape, i);
  return rows;
}

PLUMB_INLINE float* Part(const VarlenShape& shape, float* scratch, int32_t b, int32_t kv_head) {
  const int64_t rows = PartsBefore(shape, b) * shape.kv_heads + PartRows(shape, b) * kv_head;
  return scratch + 2 * rows * PadToLanes(shape.head_dim);
}

// With P = exp(S - lse), D_i = dO_i . O_i: dS = P (dO V^T - D), dQ = dS K scale, dK = dS^T Q scale,
// dV = P^T dO. One task owns a sequence's KV head, so nothing is shared.
template <class T>
void Backward(const VarlenShape& shape, const T* dout, const T* qkv, const T* out, const float* lse,
              T* dqkv, float* scratch) {
  const int32_t d = shape.head_dim, width = PadToLanes(d), group = shape.heads / shape.kv_heads;
  const int64_t row = int64_t{shape.heads + 2 * shape.kv_heads} * d;
  const float scale = shape.scale;
  const int64_t tasks = int64_t{shape.sequences} * shape.kv_heads;
#pragma omp parallel if (shape.tokens * row > kParallelElements)
  {
    thread_local Work w;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; ++task) {
      const auto b = static_cast<int32_t>(task / shape.kv_heads),
                 h = static_cast<int32_t>(task % shape.kv_heads);
      const auto [begin, own, prefix, base] = PlaceOf(shape, b);
      const int32_t n = base + own, globals = GlobalsBefore(shape, n - 1),
                    front = PadToLanes(globals),
                    stride = front + PadToLanes(base + PadToLanes(own));
      w.Reserve(front + n, d, stride, width, true);
      const int64_t k_at = int64_t{shape.heads + h} * d,
                    v_at = int64_t{shape.heads + shape.kv_heads + h} * d;
      float *k_t = w.k_t + front, *v_t = w.v_t + front, *k = w.k + int64_t{front} * width,
            *dk = w.dk + int64_t{front} * width, *dv = w.dv + int64_t{front} * width;
      if (base > 0) {
        TransposeRows(qkv + prefix * row + k_at, row, base, d, stride, k_t);
        TransposeRows(qkv + prefix * row + v_at, row, base, d, stride, v_t);
      }
      TransposeRows(qkv + begin * row + k_at, row, own, d, stride, k_t + base);
      TransposeRows(qkv + begin * row + v_at, row, own, d, stride, v_t + base);
      const auto token = [&](int32_t j) {
        return qkv + int64_t{j < base ? prefix + j : begin + j - base} * row;
      };
      for (int32_t j = 0; j < n; ++j) WidenRow(token(j) + k_at, d, 1.0f, k + int64_t{j} * width);
      const auto gather = [&](int64_t at, float* columns, float* rows) {
        GatherGlobals(
            globals, shape.global_every, front, d, stride, width,
            [&](int32_t j) { return token(j) + at; }, columns, rows);
      };
      gather(k_at, w.k_t, w.k);
      gather(v_at, w.v_t, nullptr);
      std::fill_n(w.dk, int64_t{front + n} * width, 0.0f);
      std::fill_n(w.dv, int64_t{front + n} * width, 0.0f);
      for (int32_t task_head = 0; task_head < group; ++task_head) {
        const int32_t head = h * group + task_head;
        for (int32_t i0 = 0; i0 < own; i0 += kQueries) {
          const int32_t queries = std::min(kQueries, own - i0), from = FirstSeen(shape, base + i0);
          const int32_t keys = base + i0 + queries - from,
                        seen = GlobalsBefore(shape, base + i0 + queries - 1),
                        ahead = PadToLanes(seen), padded = PadToLanes(keys);
          float delta[kQueries] = {};
          for (int32_t q = 0; q < kQueries; ++q) {
            const int64_t at = begin + i0 + std::min(q, queries - 1);
            WidenRow(qkv + at * row + int64_t{head} * d, d, scale, w.query + q * width);
            WidenRow(dout + (at * shape.heads + head) * d, d, 1.0f, w.dout + q * width);
            WidenRow(out + (at * shape.heads + head) * d, d, 1.0f, w.out + q * width);
            FloatLanes dot = {};
            for (int32_t i = 0; i < width; i += kLanes)
              dot += Load(w.dout + q * width + i) * Load(w.out + q * width + i);
            delta[q] = Sum(dot);
          }
          Products(w.query, width, w.k_t, seen, d, stride, w.s);
          Products(w.dout, width, w.v_t, seen, d, stride, w.dp);
          Products(w.query, width, k_t + from, keys, d, stride, w.s + ahead);
          Products(w.dout, width, v_t + from, keys, d, stride, w.dp + ahead);
          for (int32_t q = 0; q < kQueries; ++q) {
            float* s = w.s + int64_t{q} * stride;
            float* dp = w.dp + int64_t{q} * stride;
            // repeated rows count nothing
            const int32_t visible = q < queries ? base + i0 + q + 1 - from : 0;
            const int32_t hidden = HiddenBefore(shape, base + i0 + q) - from;
            const float l = q < queries ? lse[int64_t{head} * shape.tokens + begin + i0 + q] : 0.0f;
            const int32_t global = q < queries ? GlobalsBefore(shape, base + i0 + q) : 0;
            for (int32_t j = 0; j < ahead; j += kLanes) {
              const FloatLanes p = Exp(Load(s + j) - l), ds = p * (Load(dp + j) - delta[q]);
              Store(s + j, KeepFirst(p, global - j, 0.0f));
              Store(dp + j, KeepFirst(ds, global - j, 0.0f));
            }
            for (int32_t j = 0; j < padded; j += kLanes) {
              float *sj = s + ahead + j, *dpj = dp + ahead + j;
              const FloatLanes p = Exp(Load(sj) - l), ds = p * (Load(dpj) - delta[q]);
              Store(sj, KeepBetween(p, hidden - j, visible - j, 0.0f));
              Store(dpj, KeepBetween(ds, hidden - j, visible - j, 0.0f));
            }
          }
          MixBoth(w.dp, stride, w.k, seen, k + int64_t{from} * width, keys, width, w.more, w.out);
          // the query is already times scale
          Spread(w.dp, stride, w.query, seen, width, w.dk);
          Spread(w.s, stride, w.dout, seen, width, w.dv);
          Spread(w.dp + ahead, stride, w.query, keys, width, dk + int64_t{from} * width);
          Spread(w.s + ahead, stride, w.dout, keys, width, dv + int64_t{from} * width);
          for (int32_t q = 0; q < queries; ++q) {
            NarrowRow(w.out + q * width, d, scale,
                      dqkv + (begin + i0 + q) * row + int64_t{head} * d);
          }
        }
      }
      for (int32_t m = 0; m < globals; ++m) {
        const int64_t to = int64_t{m} * shape.global_every * width, from = int64_t{m} * width;
#pragma omp simd
        for (int32_t i = 0; i < width; ++i) {
          dk[to + i] += w.dk[from + i];
          dv[to + i] += w.dv[from + i];
        }
      }
      const int64_t part = PartRows(shape, b) * width;
      if (part > 0) {
        float* to = Part(shape, scratch, b, h);
        std::copy_n(dk, part, to);
        std::copy_n(dv, part, to + part);
      }
      if (IsParent(shape, b)) continue;
      for (int32_t j = base; j < n; ++j) {
        NarrowRow(dk + int64_t{j} * width, d, 1.0f, dqkv + (begin + j - base) * row + k_at);
        NarrowRow(dv + int64_t{j} * width, d, 1.0f, dqkv + (begin + j - base) * row + v_at);
      }
    }
    // What lies before several sequences: their parts in the order of the sequences, whatever the
    // threads.
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; ++task) {
      const auto b = static_cast<int32_t>(task / shape.kv_heads),
                 h = static_cast<int32_t>(task % shape.kv_heads);
      if (!IsParent(shape, b)) continue;
      const auto [begin, own, prefix, base] = PlaceOf(shape, b);
      const int64_t k_at = int64_t{shape.heads + h} * d,
                    v_at = int64_t{shape.heads + shape.kv_heads + h} * d;
      const int64_t part = int64_t{own} * width;
      float* sum = Part(shape, scratch, b, h);
      for (int32_t next = b + 1; next < shape.sequences && shape.parents[next] == b; ++next) {
        const float* more = Part(shape, scratch, next, h);
#pragma omp simd
        for (int64_t i = 0; i < 2 * part; ++i) sum[i] += more[i];
      }
      for (int32_t j = 0; j < own; ++j) {
        NarrowRow(sum + int64_t{j} * width, d, 1.0f, dqkv + (begin + j) * row + k_at);
        NarrowRow(sum + part + int64_t{j} * width, d, 1.0f, dqkv + (begin + j) * row + v_at);
      }
    }
  }
}

}  // namespace

int64_t AttentionVarlenScratch(
    const VarlenShape& shape) {  // the CPU's other work areas belong to its threads
  return 2 * PartsBefore(shape, shape.sequences) * shape.kv_heads * PadToLanes(shape.head_dim);
}

void AttentionVarlen::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    Forward(shape, static_cast<const T*>(qkv), static_cast<T*>(out), lse);
  });
}

void AttentionVarlenBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    Backward(shape, static_cast<const T*>(dout), static_cast<const T*>(qkv),
             static_cast<const T*>(out), lse, static_cast<T*>(dqkv), scratch);
  });
}

}  // namespace plumb::kernels
