#include "kernels/delta/gated_delta.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/delta/tiles.h"
#include "kernels/device/cpu_common.h"

namespace plumb::kernels {
namespace {

constexpr int32_t kChunk = kDeltaChunk;

// Where the sequences' states lie: one of all value heads for each chunk, as it ends, or only the
// last one of those that others go on from.
class States {
 public:
  States(const DeltaShape& shape, bool keep) : shape_(shape), keep_(keep) {
    int64_t slot = 0;
    for (int32_t b = 0; b < shape.sequences; ++b) {
      first_.push_back(slot);
      slot += keep ? chunks(b) : IsParent(b) ? 1 : 0;
    }
  }
  int32_t begin(int32_t b) const { return shape_.cu_seqlens[b]; }
  int32_t end(int32_t b) const { return shape_.cu_seqlens[b + 1]; }
  int32_t parent(int32_t b) const { return shape_.parents ? shape_.parents[b] : -1; }
  bool IsParent(int32_t b) const {
    return shape_.parents && b + 1 < shape_.sequences && shape_.parents[b + 1] == b;
  }
  int32_t chunks(int32_t b) const { return (end(b) - begin(b) + kChunk - 1) / kChunk; }
  // The state of a head behind chunk c; REQUIRES: it is kept.
  template <class F>
  F* Behind(F* states, int32_t b, int32_t c, int32_t head) const {
    const int64_t slot = first_[static_cast<size_t>(b)] + (keep_ ? c : 0);
    return states + (slot * shape_.v_heads + head) * shape_.state();
  }
  // The state that a sequence begins with; nullptr: zeros.
  const float* First(const float* states, int32_t b, int32_t head) const {
    const int32_t before = parent(b);
    return before < 0 ? nullptr : Behind(states, before, chunks(before) - 1, head);
  }

 private:
  const DeltaShape& shape_;
  const bool keep_;
  std::vector<int64_t> first_;  // [B]
};

// A thread's work areas, for the chunk and head that it is at.
struct Work {
  AlignedFloats memory;
  int32_t kw, vw;  // K and V in whole vectors
  // Of a key head: vectors of length 1, and keys as columns; products of all pairs.
  float *q, *k, *k_t, *q_k, *k_k;
  float q_scale[kChunk], k_scale[kChunk];  // what the vectors were multiplied by, but for K^-1/2
  // Of a value head. minus: -L; pairs: E q k.
  float sum[kChunk] = {}, decay[kChunk], rest[kChunk], strength[kChunk];
  float *minus, *pairs, *u, *out;
  float* state;  // [group][state] where none is kept, or the gradients of states
  // Of the backward.
  float *r, *dout, *w, *u_t, *dpairs, *x, *h, *g, *dq, *dk, *back, *turned;

  void Reserve(const DeltaShape& s, int64_t states, bool backward) {
    kw = PadToLanes(s.k_dim);
    vw = PadToLanes(s.v_dim);
    const int64_t keys = int64_t{kChunk} * kw, values = int64_t{kChunk} * vw,
                  square = kChunk * kChunk;
    const int64_t own = 3 * keys + 4 * square + 2 * values + states * s.state();
    const int64_t more = 4 * values + 4 * square + 3 * keys + int64_t{kw} * vw;
    float* at = memory.Grow(own + (backward ? more : 0));
    const auto take = [&at](int64_t n) {
      float* taken = at;
      at += n;
      return taken;
    };
    q = take(keys), k = take(keys), k_t = take(keys);
    q_k = take(square), k_k = take(square), minus = take(square), pairs = take(square);
    u = take(values), out = take(values);
    state = take(states * s.state());
    if (!backward) return;
    r = take(values), dout = take(values), w = take(values), u_t = take(values);
    dpairs = take(square), x = take(square), h = take(square), g = take(square);
    dq = take(keys), dk = take(keys), back = take(keys);
    turned = take(int64_t{kw} * vw);
  }
};

PLUMB_INLINE float DotOf(const float* a, const float* b, int64_t n) {
  FloatLanes sum = {};
  for (int64_t i = 0; i < n; i += kLanes) sum += Load(a + i) * Load(b + i);
  return Sum(sum);
}

PLUMB_INLINE void ScaleRow(float* x, int32_t n, float by) {
  for (int32_t i = 0; i < n; i += kLanes) Store(x + i, Load(x + i) * by);
}

// to[i] = by[i] * x[i] for n rows.
PLUMB_INLINE void ScaleRows(const float* x, const float* by, int32_t n, int32_t width, float* to) {
  for (int32_t i = 0; i < n; ++i) {
    for (int32_t c = 0; c < width; c += kLanes)
      Store(to + i * width + c, Load(x + i * width + c) * by[i]);
  }
}

// Queries or keys of n tokens as vectors of length `length`.
template <class T>
void LoadVectors(const T* x, int64_t stride, int32_t n, int32_t d, int32_t width, float length,
                 float* out, float* scale) {
  for (int32_t i = 0; i < n; ++i) {
    float* row = out + int64_t{i} * width;
    WidenTo(x + i * stride, d, row);
    scale[i] = 1.0f / std::sqrt(DotOf(row, row, width) + kDeltaNormEps);
    ScaleRow(row, width, scale[i] * length);
  }
}

template <class T>
void LoadKeyHead(const DeltaShape& s, const T* qkv, int32_t first, int32_t n, int32_t head,
                 Work& w) {
  const T* row = qkv + first * s.width() + int64_t{head} * s.k_dim;
  const float length = 1.0f / std::sqrt(static_cast<float>(s.k_dim));
  LoadVectors(row, s.width(), n, s.k_dim, w.kw, length, w.q, w.q_scale);
  LoadVectors(row + s.key_width(), s.width(), n, s.k_dim, w.kw, 1.0f, w.k, w.k_scale);
  TransposeTile(w.k, w.kw, n, w.kw, kChunk, w.k_t);
  LowerProduct(n, w.kw, {w.q, w.kw, 1}, w.k_t, kChunk, w.q_k, kChunk);
  LowerProduct(n, w.kw, {w.k, w.kw, 1}, w.k_t, kChunk, w.k_k, kChunk);
}

// exp(c_i - c_j) for 16 j from `at` on; where j > i it is anything.
PLUMB_INLINE FloatLanes DecayFrom(const Work& w, int32_t i, int32_t at) {
  return Exp(Broadcast(w.sum[i]) - Load(w.sum + at));
}

// Everything of a value head up to what its tokens write: r = v - exp(c) k S, u.
template <class T>
void LoadValueHead(const DeltaShape& s, const T* qkv, const float* g, const float* beta,
                   int32_t first, int32_t n, int32_t head, const float* state, Work& w, float* r) {
  float sum = 0;
  for (int32_t i = 0; i < n; ++i) {
    const int64_t at = (first + i) * int64_t{s.v_heads} + head;
    sum += g[at];
    w.sum[i] = sum;
    w.strength[i] = beta[at];
  }
  for (int32_t i = 0; i < n; ++i) {
    w.decay[i] = FastExp(w.sum[i]);
    w.rest[i] = FastExp(sum - w.sum[i]);
  }
  for (int32_t i = 0; i < n; ++i) {
    const int64_t row = int64_t{i} * kChunk;
    for (int32_t j = 0; j <= i; j += kLanes) {
      const FloatLanes e = DecayFrom(w, i, j);
      Store(w.pairs + row + j, KeepFirst(e * Load(w.q_k + row + j), i + 1 - j, 0.0f));
      Store(w.minus + row + j, KeepFirst(e * Load(w.k_k + row + j) * -w.strength[i], i - j, 0.0f));
    }
  }
  if (state) Product(n, w.vw, s.k_dim, {w.k, w.kw, 1}, state, w.vw, false, r, w.vw);
  const T* values = qkv + first * s.width() + 2 * s.key_width() + int64_t{head} * s.v_dim;
  for (int32_t i = 0; i < n; ++i) {
    const T* v = values + i * s.width();
    for (int32_t c = 0; c < w.vw; c += kLanes) {
      FloatLanes x = LoadUpTo(v + c, s.v_dim - c);
      if (state) x = x - Load(r + i * w.vw + c) * w.decay[i];
      Store(r + i * w.vw + c, x);
      Store(w.u + i * w.vw + c, x * w.strength[i]);
    }
  }
  SolveLower(n, w.vw, w.minus, kChunk, w.u, w.vw);
}

template <class T>
void ForwardHead(const GatedDelta& d, const States& at, int32_t b, int32_t head, Work& w) {
  const DeltaShape& s = d.shape;
  const auto* qkv = static_cast<const T*>(d.qkv);
  const int32_t group = s.v_heads / s.k_heads, chunks = at.chunks(b);
  for (int32_t c = 0; c < chunks; ++c) {
    const int32_t first = at.begin(b) + c * kChunk, n = std::min(kChunk, at.end(b) - first);
    LoadKeyHead(s, qkv, first, n, head, w);
    for (int32_t j = 0; j < group; ++j) {
      const int32_t value_head = head * group + j;
      float* own = w.state + j * s.state();
      const float* from = c == 0   ? at.First(d.states, b, value_head)
                          : d.keep ? at.Behind(d.states, b, c - 1, value_head)
                                   : own;
      LoadValueHead(s, qkv, d.g, d.beta, first, n, value_head, from, w, w.out);
      if (from) {
        Product(n, w.vw, s.k_dim, {w.q, w.kw, 1}, from, w.vw, false, w.out, w.vw);
        ScaleRows(w.out, w.decay, n, w.vw, w.out);
      }
      TriangleProduct(n, w.vw, w.pairs, kChunk, w.u, w.vw, from != nullptr, w.out, w.vw);
      auto* out = static_cast<T*>(d.out) + first * s.value_width() + int64_t{value_head} * s.v_dim;
      for (int32_t i = 0; i < n; ++i)
        NarrowTo(w.out + i * w.vw, s.v_dim, out + i * s.value_width());
      const bool last = c + 1 == chunks;
      if (last && !at.IsParent(b)) continue;
      float* to = d.keep || last ? at.Behind(d.states, b, c, value_head) : own;
      ScaleRows(w.u, w.rest, n, w.vw, w.out);
      for (int64_t i = 0; from && i < s.state(); i += kLanes)
        Store(to + i, Load(from + i) * w.decay[n - 1]);
      Product(s.k_dim, w.vw, n, {w.k, 1, w.kw}, w.out, w.vw, from != nullptr, to, w.vw);
    }
  }
}

// Gradients of q or k from those of the vectors.
template <class T>
void StoreVectors(const float* vectors, const float* dvectors, const float* scale, float length,
                  int32_t n, int32_t d, int32_t width, int64_t stride, T* to) {
  for (int32_t i = 0; i < n; ++i) {
    const float* v = vectors + int64_t{i} * width;
    const float* dv = dvectors + int64_t{i} * width;
    const float along = DotOf(v, dv, width) / length;
    T* out = to + i * stride;
#pragma omp simd
    for (int32_t c = 0; c < d; ++c)
      out[c] = FromFloat<T>(scale[i] * (length * dv[c] - along * v[c]));
  }
}

// Gradients through E and its two triangles, of q k and of beta k k; into the sums of both over the
// value heads, and into those of c and beta.
PLUMB_INLINE void PairsBackward(int32_t n, bool first, Work& w, float* dc, float* dbeta) {
  float columns[kChunk] = {};
  for (int32_t i = 0; i < n; ++i) {
    const int64_t row = int64_t{i} * kChunk;
    FloatLanes along = {}, strength = {};
    for (int32_t j = 0; j <= i; j += kLanes) {
      const FloatLanes e = DecayFrom(w, i, j);
      const FloatLanes of_qk = KeepFirst(e * Load(w.dpairs + row + j), i + 1 - j, 0.0f),
                       of_kk = KeepFirst(e * Load(w.x + row + j), i - j, 0.0f);
      const FloatLanes qk = KeepFirst(of_qk * Load(w.q_k + row + j), i + 1 - j, 0.0f),
                       kk = KeepFirst(of_kk * Load(w.k_k + row + j), i - j, 0.0f);
      const FloatLanes both = qk - kk * w.strength[i];
      along += both;
      strength += kk;
      Store(columns + j, Load(columns + j) + both);
      const FloatLanes before_h = first ? FloatLanes{} : Load(w.h + row + j),
                       before_g = first ? FloatLanes{} : Load(w.g + row + j);
      Store(w.h + row + j, before_h + of_qk);
      Store(w.g + row + j, before_g - of_kk * w.strength[i]);
    }
    dc[i] += Sum(along);
    dbeta[i] -= Sum(strength);
  }
  for (int32_t j = 0; j < n; ++j) dc[j] -= columns[j];
}

// w.state holds the gradient of the state behind the chunk where `live`, and then that of the one
// before it, where there is one.
template <class T>
void ChunkBackward(const GatedDeltaBackward& d, const States& at, int32_t b, int32_t c,
                   int32_t head, bool live, Work& w) {
  const DeltaShape& s = d.shape;
  const auto* qkv = static_cast<const T*>(d.qkv);
  const int32_t group = s.v_heads / s.k_heads, first = at.begin(b) + c * kChunk,
                n = std::min(kChunk, at.end(b) - first);
  const int64_t stride = s.width();
  LoadKeyHead(s, qkv, first, n, head, w);
  std::fill_n(w.dq, int64_t{n} * w.kw, 0.0f);
  std::fill_n(w.dk, int64_t{n} * w.kw, 0.0f);
  auto* dqkv = static_cast<T*>(d.dqkv) + first * stride;
  for (int32_t j = 0; j < group; ++j) {
    const int32_t value_head = head * group + j;
    const float* state =
        c == 0 ? at.First(d.states, b, value_head) : at.Behind(d.states, b, c - 1, value_head);
    float* dstate = w.state + j * s.state();
    float dc[kChunk] = {}, dbeta[kChunk] = {};
    LoadValueHead(s, qkv, d.g, d.beta, first, n, value_head, state, w, w.r);
    const auto* dout =
        static_cast<const T*>(d.dout) + first * s.value_width() + int64_t{value_head} * s.v_dim;
    for (int32_t i = 0; i < n; ++i) WidenTo(dout + i * s.value_width(), s.v_dim, w.dout + i * w.vw);
    // w: the gradient of u, then of what the triangle was solved for.
    if (live) {
      Product(n, w.vw, s.k_dim, {w.k, w.kw, 1}, dstate, w.vw, false, w.w, w.vw);
      ScaleRows(w.w, w.rest, n, w.vw, w.w);
      float all = 0;
      for (int32_t i = 0; i < n; ++i) {
        const float of_rest = DotOf(w.w + i * w.vw, w.u + i * w.vw, w.vw);
        dc[i] -= of_rest;
        all += of_rest;
      }
      if (state) all += w.decay[n - 1] * DotOf(dstate, state, s.state());
      dc[n - 1] += all;
    }
    TriangleTransposedProduct(n, w.vw, w.pairs, kChunk, w.dout, w.vw, live, w.w, w.vw);
    SolveLowerTransposed(n, w.vw, w.minus, kChunk, w.w, w.vw);
    TransposeTile(w.u, w.vw, n, w.vw, kChunk, w.u_t);
    LowerProduct(n, w.vw, {w.dout, w.vw, 1}, w.u_t, kChunk, w.dpairs, kChunk);
    LowerProduct(n, w.vw, {w.w, w.vw, 1}, w.u_t, kChunk, w.x, kChunk);
    PairsBackward(n, j == 0, w, dc, dbeta);
    for (int32_t i = 0; i < n; ++i) dbeta[i] += DotOf(w.w + i * w.vw, w.r + i * w.vw, w.vw);
    ScaleRows(w.w, w.strength, n, w.vw, w.w);  // now the gradient of r and of v
    for (int32_t i = 0; i < n; ++i) {
      NarrowTo(w.w + i * w.vw, s.v_dim,
               dqkv + i * stride + 2 * s.key_width() + int64_t{value_head} * s.v_dim);
    }
    if (live) {
      TransposeTile(dstate, w.vw, s.k_dim, w.vw, w.kw, w.turned);
      ScaleRows(w.u, w.rest, n, w.vw, w.u);
      Product(n, w.kw, w.vw, {w.u, w.vw, 1}, w.turned, w.kw, true, w.dk, w.kw);
    }
    if (state) {
      TransposeTile(state, w.vw, s.k_dim, w.vw, w.kw, w.turned);
      ScaleRows(w.dout, w.decay, n, w.vw, w.dout);
      float minus[kChunk];
      for (int32_t i = 0; i < n; ++i) minus[i] = -w.decay[i];
      ScaleRows(w.w, minus, n, w.vw, w.w);
      const auto through = [&](const float* from, const float* vectors, float* to) {
        Product(n, w.kw, w.vw, {from, w.vw, 1}, w.turned, w.kw, false, w.back, w.kw);
        for (int32_t i = 0; i < n; ++i) {
          dc[i] += DotOf(w.back + i * w.kw, vectors + i * w.kw, w.kw);
          for (int32_t v = i * w.kw; v < (i + 1) * w.kw; v += kLanes)
            Store(to + v, Load(to + v) + Load(w.back + v));
        }
      };
      through(w.dout, w.q, w.dq);
      through(w.w, w.k, w.dk);
      for (int64_t i = 0; live && i < s.state(); i += kLanes)
        Store(dstate + i, Load(dstate + i) * w.decay[n - 1]);
      Product(s.k_dim, w.vw, n, {w.q, 1, w.kw}, w.dout, w.vw, live, dstate, w.vw);
      Product(s.k_dim, w.vw, n, {w.k, 1, w.kw}, w.w, w.vw, true, dstate, w.vw);
    }
    float behind = 0;
    for (int32_t i = n - 1; i >= 0; --i) {
      const int64_t token = (first + i) * int64_t{s.v_heads} + value_head;
      behind += dc[i];
      d.dg[token] = behind;
      d.dbeta[token] = dbeta[i];
    }
  }
  TriangleProduct(n, w.kw, w.h, kChunk, w.k, w.kw, true, w.dq, w.kw);
  TriangleTransposedProduct(n, w.kw, w.h, kChunk, w.q, w.kw, true, w.dk, w.kw);
  TriangleProduct(n, w.kw, w.g, kChunk, w.k, w.kw, true, w.dk, w.kw);
  TriangleTransposedProduct(n, w.kw, w.g, kChunk, w.k, w.kw, true, w.dk, w.kw);
  T* to = dqkv + int64_t{head} * s.k_dim;
  const float length = 1.0f / std::sqrt(static_cast<float>(s.k_dim));
  StoreVectors(w.q, w.dq, w.q_scale, length, n, s.k_dim, w.kw, stride, to);
  StoreVectors(w.k, w.dk, w.k_scale, 1.0f, n, s.k_dim, w.kw, stride, to + s.key_width());
}

template <class T>
void BackwardHead(const GatedDeltaBackward& d, const States& at, int32_t b, int32_t head, Work& w) {
  const DeltaShape& s = d.shape;
  const int32_t group = s.v_heads / s.k_heads, chunks = at.chunks(b);
  const int64_t states = group * s.state();
  const auto of = [&](int32_t sequence) {
    return d.scratch + (sequence * int64_t{s.v_heads} + int64_t{head} * group) * s.state();
  };
  if (at.IsParent(b)) {
    // What those that go on from it leave, in their order.
    std::fill_n(w.state, states, 0.0f);
    for (int32_t next = b + 1; next < s.sequences && at.parent(next) == b; ++next) {
      const float* more = of(next);
      for (int64_t i = 0; i < states; i += kLanes)
        Store(w.state + i, Load(w.state + i) + Load(more + i));
    }
  }
  for (int32_t c = chunks - 1; c >= 0; --c)
    ChunkBackward<T>(d, at, b, c, head, c + 1 < chunks || at.IsParent(b), w);
  if (at.parent(b) >= 0) std::copy_n(w.state, states, of(b));
}

// Calls body(sequence, key head, work) for all, a thread each; those that go on from others after
// these, or before.
template <class Body>
void ForEachHead(const DeltaShape& s, const States& at, int64_t states, bool backward,
                 const Body& body) {
  const int64_t tasks = int64_t{s.sequences} * s.k_heads;
  for (const bool second : {false, true}) {
    if (second && !s.parents) return;
#pragma omp parallel if (s.tokens * s.width() > kParallelElements)
    {
      thread_local Work work;
      work.Reserve(s, states, backward);
#pragma omp for schedule(dynamic, 1)
      for (int64_t task = 0; task < tasks; ++task) {
        const auto b = static_cast<int32_t>(task / s.k_heads);
        const bool goes_on = at.parent(b) >= 0;
        if (s.parents && goes_on != (second != backward)) continue;
        body(b, static_cast<int32_t>(task % s.k_heads), work);
      }
    }
  }
}

}  // namespace

void GatedDelta::Cpu(const Launch& launch) const {
  const States at(shape, keep);
  ForDType(launch.dtype, [&]<class T>(T) {
    ForEachHead(shape, at, keep ? 0 : shape.v_heads / shape.k_heads, false,
                [&](int32_t b, int32_t head, Work& w) { ForwardHead<T>(*this, at, b, head, w); });
  });
}

void GatedDeltaBackward::Cpu(const Launch& launch) const {
  const States at(shape, true);
  ForDType(launch.dtype, [&]<class T>(T) {
    ForEachHead(shape, at, shape.v_heads / shape.k_heads, true,
                [&](int32_t b, int32_t head, Work& w) { BackwardHead<T>(*this, at, b, head, w); });
  });
}

}  // namespace plumb::kernels
