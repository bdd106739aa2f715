#include <algorithm>

#include "kernels/delta/gated_delta.h"
#include "kernels/products/block_products.h"

namespace plumb::kernels {
namespace {

constexpr int kChunk = kDeltaChunk;
static_assert(kChunk == 64, "a tile of BlockProduct");

// A block's work area, for the chunk and head that it is at, as that of the CPU: [kChunk, K],
// [kChunk, kChunk] and [kChunk, V].
struct Work {
  float *q, *k, *minus, *pairs, *u, *out;
  float* state;  // of a head where none is kept, or the gradients of those of a group
  float *q_k, *k_k, *dpairs, *x, *h, *g, *r, *w, *dq, *dk, *back;  // of the backward
};

__device__ Work WorkOf(const DeltaShape& s, bool backward, float* at) {
  const int64_t keys = int64_t{kChunk} * s.k_dim, values = int64_t{kChunk} * s.v_dim,
                square = kChunk * kChunk;
  const auto take = [&at](int64_t n) {
    float* taken = at;
    at += n;
    return taken;
  };
  Work w = {};
  w.q = take(keys), w.k = take(keys);
  w.minus = take(square), w.pairs = take(square);
  w.u = take(values), w.out = take(values);
  w.state = take(s.state() * (backward ? s.v_heads / s.k_heads : 1));
  if (!backward) return w;
  w.q_k = take(square), w.k_k = take(square), w.dpairs = take(square), w.x = take(square);
  w.h = take(square), w.g = take(square);
  w.r = take(values), w.w = take(values);
  w.dq = take(keys), w.dk = take(keys), w.back = take(keys);
  return w;
}

// Numbers of the chunk's tokens, in shared memory.
struct Tokens {
  float q_scale[kChunk], k_scale[kChunk];  // what the vectors were multiplied by, but for K^-1/2
  float g[kChunk];                         // the decays as given
  float sum[kChunk], decay[kChunk], rest[kChunk], strength[kChunk];
  float dc[kChunk], dbeta[kChunk];
};

// Where the sequences' states lie: gated_delta.h, as on the CPU, but where none is kept for a
// backward a sequence's own place is its number.
struct States {
  const DeltaShape& s;
  bool keep;

  __device__ int32_t begin(int32_t b) const { return s.cu_seqlens[b]; }
  __device__ int32_t end(int32_t b) const { return s.cu_seqlens[b + 1]; }
  __device__ int32_t parent(int32_t b) const { return s.parents ? s.parents[b] : -1; }
  __device__ bool IsParent(int32_t b) const {
    return s.parents && b + 1 < s.sequences && s.parents[b + 1] == b;
  }
  __device__ int32_t chunks(int32_t b) const { return (end(b) - begin(b) + kChunk - 1) / kChunk; }
  // All threads of the block ask.
  __device__ int64_t FirstSlot(int32_t b) const {
    if (!keep) return b;
    int32_t sum = 0;
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < b; i += kBlockThreads) sum += chunks(i);
    return BlockSum(sum);
  }
  __device__ int64_t At(int64_t slot, int32_t head) const {
    return (slot * s.v_heads + head) * s.state();
  }
};

// exp(c_i - c_j)
__device__ float Decay(const Tokens& t, int i, int j) { return expf(t.sum[i] - t.sum[j]); }

// Queries or keys of n tokens as vectors of length `length`, a warp each.
template <class T>
__device__ void LoadVectors(const T* x, int64_t stride, int n, int d, float length, float* out,
                            float* scale) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int i = static_cast<int>(threadIdx.x / 32); i < n; i += kBlockThreads / 32) {
    float squares = 0;
    for (int c = lane; c < d; c += 32)
      squares += ToFloat(x[i * stride + c]) * ToFloat(x[i * stride + c]);
    const float by = 1.0f / sqrtf(WarpSum(squares) + kDeltaNormEps);
    for (int c = lane; c < d; c += 32) out[i * d + c] = ToFloat(x[i * stride + c]) * by * length;
    if (lane == 0) scale[i] = by;
  }
}

template <class T>
__device__ void LoadKeyHead(const DeltaShape& s, const T* qkv, int32_t first, int n, int32_t head,
                            const Work& w, Tokens& t) {
  const T* row = qkv + first * s.width() + int64_t{head} * s.k_dim;
  __syncthreads();  // the last chunk's have been read
  LoadVectors(row, s.width(), n, s.k_dim, 1.0f / sqrtf(static_cast<float>(s.k_dim)), w.q,
              t.q_scale);
  LoadVectors(row + s.key_width(), s.width(), n, s.k_dim, 1.0f, w.k, t.k_scale);
  __syncthreads();
}

// The sums of a value head's decays and what follows from them.
__device__ void LoadGates(const DeltaShape& s, const float* g, const float* beta, int32_t first,
                          int n, int32_t head, Tokens& t) {
  const int i = static_cast<int>(threadIdx.x);
  __syncthreads();
  if (i < n) {
    const int64_t at = (first + i) * int64_t{s.v_heads} + head;
    t.g[i] = g[at];
    t.strength[i] = beta[at];
    t.dc[i] = 0;
    t.dbeta[i] = 0;
  }
  __syncthreads();
  if (i == 0) {
    float sum = 0;
    for (int j = 0; j < n; ++j) {
      sum += t.g[j];
      t.sum[j] = sum;
    }
  }
  __syncthreads();
  if (i < n) {
    t.decay[i] = expf(t.sum[i]);
    t.rest[i] = expf(t.sum[n - 1] - t.sum[i]);
  }
  __syncthreads();
}

// pairs = E q k and minus = -L from the products of all pairs.
__device__ float PairOf(const Tokens& t, int i, int j, float q_k) {
  return j <= i ? Decay(t, i, j) * q_k : 0.0f;
}
__device__ float MinusOf(const Tokens& t, int i, int j, float k_k) {
  return j < i ? Decay(t, i, j) * k_k * -t.strength[i] : 0.0f;
}

// r = v - exp(c) k S and u, which solves (1 + L) u = beta r.
template <class T>
__device__ void SolveUpdates(const DeltaShape& s, const T* qkv, int32_t first, int n, int32_t head,
                             const float* state, const Work& w, const Tokens& t, float* r) {
  const int v_pitch = (s.v_dim + 15) / 16 * 16;
  const T* values = qkv + first * s.width() + 2 * s.key_width() + int64_t{head} * s.v_dim;
  BlockProduct<true, false>(
      n, s.v_dim, state ? s.k_dim : 0, [&](int i, int c) { return w.k[i * s.k_dim + c]; },
      [&](int c, int j) { return state[c * v_pitch + j]; },
      [&](int i, int j, float sum) {
        const float x = ToFloat(values[i * s.width() + j]) - sum * t.decay[i];
        if (r) r[i * s.v_dim + j] = x;
        w.u[i * s.v_dim + j] = x * t.strength[i];
      });
  BlockSolve<false>(
      n, s.v_dim, [&](int i, int j) { return w.minus[i * kChunk + j]; }, w.u);
}

// A task: a sequence and a value head.
template <class T>
__device__ void ForwardHead(const GatedDelta& d, const States& at, int32_t b, int32_t head,
                            const Work& w, Tokens& t) {
  const DeltaShape& s = d.shape;
  const auto* qkv = static_cast<const T*>(d.qkv);
  const int32_t chunks = at.chunks(b), parent = at.parent(b), v_pitch = (s.v_dim + 15) / 16 * 16;
  const int64_t own = at.FirstSlot(b);
  const float* from = nullptr;
  if (parent >= 0) {
    const int64_t slot = at.FirstSlot(parent) + (d.keep ? at.chunks(parent) - 1 : 0);
    from = d.states + at.At(slot, head);
  }
  for (int32_t c = 0; c < chunks; ++c) {
    const int32_t first = at.begin(b) + c * kChunk;
    const int n = min(kChunk, at.end(b) - first);
    LoadKeyHead(s, qkv, first, n, head / (s.v_heads / s.k_heads), w, t);
    LoadGates(s, d.g, d.beta, first, n, head, t);
    const auto key = [&](int c2, int j) { return w.k[j * s.k_dim + c2]; };
    BlockProduct<true, true>(
        n, n, s.k_dim, [&](int i, int c2) { return w.q[i * s.k_dim + c2]; }, key,
        [&](int i, int j, float x) { w.pairs[i * kChunk + j] = PairOf(t, i, j, x); });
    BlockProduct<true, true>(
        n, n, s.k_dim, [&](int i, int c2) { return w.k[i * s.k_dim + c2]; }, key,
        [&](int i, int j, float x) { w.minus[i * kChunk + j] = MinusOf(t, i, j, x); });
    SolveUpdates<T>(s, qkv, first, n, head, from, w, t, nullptr);
    BlockProduct<true, false>(
        n, s.v_dim, from ? s.k_dim : 0, [&](int i, int c2) { return w.q[i * s.k_dim + c2]; },
        [&](int c2, int j) { return from[c2 * v_pitch + j]; },
        [&](int i, int j, float x) { w.out[i * s.v_dim + j] = x * t.decay[i]; });
    auto* out = static_cast<T*>(d.out) + first * s.value_width() + int64_t{head} * s.v_dim;
    BlockProduct<true, false>(
        n, s.v_dim, n, [&](int i, int k) { return w.pairs[i * kChunk + k]; },
        [&](int k, int j) { return w.u[k * s.v_dim + j]; },
        [&](int i, int j, float x) {
          out[i * s.value_width() + j] = FromFloat<T>(w.out[i * s.v_dim + j] + x);
        });
    const bool last = c + 1 == chunks;
    if (last && !at.IsParent(b)) continue;
    float* to = d.keep || last ? d.states + at.At(own + (d.keep ? c : 0), head) : w.state;
    BlockProduct<false, false>(
        s.k_dim, s.v_dim, n, [&](int c2, int i) { return w.k[i * s.k_dim + c2]; },
        [&](int i, int j) { return w.u[i * s.v_dim + j] * t.rest[i]; },
        [&](int c2, int j, float x) {
          to[c2 * v_pitch + j] = (from ? from[c2 * v_pitch + j] * t.decay[n - 1] : 0.0f) + x;
        });
    from = to;
  }
}

// sum over j < width of x[i, j] y[i, j] to every i < n: a warp each. add(i, sum) by one thread.
template <class Add>
__device__ void RowDots(int n, int width, const float* x, const float* y, const Add& add) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int i = static_cast<int>(threadIdx.x / 32); i < n; i += kBlockThreads / 32) {
    float sum = 0;
    for (int j = lane; j < width; j += 32) sum += x[i * width + j] * y[i * width + j];
    sum = WarpSum(sum);
    if (lane == 0) add(i, sum);
  }
  __syncthreads();
}

// Calls f(i) for i < n, and waits.
template <class F>
__device__ void ForAll(int64_t n, const F& f) {
  for (int64_t i = threadIdx.x; i < n; i += kBlockThreads) f(i);
  __syncthreads();
}

// Gradients of q or k from those of the vectors.
template <class T>
__device__ void StoreVectors(const float* vectors, const float* dvectors, const float* scale,
                             float length, int n, int d, int64_t stride, T* to) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int i = static_cast<int>(threadIdx.x / 32); i < n; i += kBlockThreads / 32) {
    float along = 0;
    for (int c = lane; c < d; c += 32) along += vectors[i * d + c] * dvectors[i * d + c];
    along = WarpSum(along) / length;
    for (int c = lane; c < d; c += 32) {
      to[i * stride + c] =
          FromFloat<T>(scale[i] * (length * dvectors[i * d + c] - along * vectors[i * d + c]));
    }
  }
}

// Gradients through E and its two triangles, of q k and of beta k k; into the sums of both over the
// value heads, and into those of c and beta.
__device__ void PairsBackward(int n, bool first, const Work& w, Tokens& t) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int i = static_cast<int>(threadIdx.x / 32); i < n; i += kBlockThreads / 32) {
    float along = 0, strength = 0;
    for (int j = lane; j < n; j += 32) {
      const int at = i * kChunk + j;
      const float e = j <= i ? Decay(t, i, j) : 0.0f;
      const float of_qk = j <= i ? e * w.dpairs[at] : 0.0f, of_kk = j < i ? e * w.x[at] : 0.0f;
      const float kk = j < i ? of_kk * w.k_k[at] : 0.0f,
                  both = (j <= i ? of_qk * w.q_k[at] : 0.0f) - kk * t.strength[i];
      along += both;
      strength += kk;
      w.h[at] = (first ? 0.0f : w.h[at]) + of_qk;
      w.g[at] = (first ? 0.0f : w.g[at]) - of_kk * t.strength[i];
      w.x[at] = both;
    }
    along = WarpSum(along);
    strength = WarpSum(strength);
    if (lane == 0) {
      t.dc[i] += along;
      t.dbeta[i] -= strength;
    }
  }
  __syncthreads();
  const int j = static_cast<int>(threadIdx.x);
  if (j < n) {
    float column = 0;
    for (int i = j; i < n; ++i) column += w.x[i * kChunk + j];
    t.dc[j] -= column;
  }
  __syncthreads();
}

// dstate holds the gradient of the state behind the chunk where `live`, and then that of the one
// before it, where there is one.
template <class T>
__device__ void ValueHeadBackward(const GatedDeltaBackward& d, int32_t first, int n, int32_t head,
                                  bool first_of_group, bool live, const float* state, float* dstate,
                                  const Work& w, Tokens& t) {
  const DeltaShape& s = d.shape;
  const auto* qkv = static_cast<const T*>(d.qkv);
  const int kd = s.k_dim, vd = s.v_dim, v_pitch = (vd + 15) / 16 * 16;
  const auto* dout_rows =
      static_cast<const T*>(d.dout) + first * s.value_width() + int64_t{head} * vd;
  const auto dout = [&](int i, int j) { return ToFloat(dout_rows[i * s.value_width() + j]); };
  LoadGates(s, d.g, d.beta, first, n, head, t);
  ForAll(n * kChunk, [&](int64_t at) {
    const int i = static_cast<int>(at / kChunk), j = static_cast<int>(at % kChunk);
    if (j >= n) return;
    w.pairs[at] = PairOf(t, i, j, w.q_k[at]);
    w.minus[at] = MinusOf(t, i, j, w.k_k[at]);
  });
  SolveUpdates<T>(s, qkv, first, n, head, state, w, t, w.r);
  // w.w: the gradient of u, then of what the triangle was solved for.
  if (live) {
    BlockProduct<true, false>(
        n, vd, kd, [&](int i, int c) { return w.k[i * kd + c]; },
        [&](int c, int j) { return dstate[c * v_pitch + j]; },
        [&](int i, int j, float x) { w.w[i * vd + j] = x * t.rest[i]; });
    __shared__ float of_rest[kChunk];
    RowDots(n, vd, w.w, w.u, [&](int i, float x) {
      of_rest[i] = x;
      t.dc[i] -= x;
    });
    float all = 0;
    for (int at = static_cast<int>(threadIdx.x); state && at < kd * vd; at += kBlockThreads) {
      const int place = at / vd * v_pitch + at % vd;
      all += dstate[place] * state[place];
    }
    all = BlockSum(all);
    if (threadIdx.x == 0) {
      all = state ? all * t.decay[n - 1] : 0.0f;
      for (int i = 0; i < n; ++i) all += of_rest[i];
      t.dc[n - 1] += all;
    }
    __syncthreads();
  }
  BlockProduct<false, false>(
      n, vd, n, [&](int i, int k) { return w.pairs[k * kChunk + i]; },
      [&](int k, int j) { return dout(k, j); },
      [&](int i, int j, float x) { w.w[i * vd + j] = (live ? w.w[i * vd + j] : 0.0f) + x; });
  BlockSolve<true>(
      n, vd, [&](int i, int j) { return w.minus[i * kChunk + j]; }, w.w);
  const auto u_turned = [&](int j, int k) { return w.u[k * vd + j]; };
  BlockProduct<true, true>(n, n, vd, dout, u_turned,
                           [&](int i, int j, float x) { w.dpairs[i * kChunk + j] = x; });
  BlockProduct<true, true>(
      n, n, vd, [&](int i, int j) { return w.w[i * vd + j]; }, u_turned,
      [&](int i, int j, float x) { w.x[i * kChunk + j] = x; });
  PairsBackward(n, first_of_group, w, t);
  RowDots(n, vd, w.w, w.r, [&](int i, float x) { t.dbeta[i] += x; });
  auto* dvalues =
      static_cast<T*>(d.dqkv) + first * s.width() + 2 * s.key_width() + int64_t{head} * vd;
  ForAll(int64_t{n} * vd, [&](int64_t at) {
    const int i = static_cast<int>(at / vd), j = static_cast<int>(at % vd);
    const float x = w.w[at] * t.strength[i];  // now the gradient of r and of v
    w.w[at] = x;
    dvalues[i * s.width() + j] = FromFloat<T>(x);
  });
  if (live) {
    BlockProduct<true, true>(
        n, kd, vd, [&](int i, int j) { return w.u[i * vd + j] * t.rest[i]; },
        [&](int j, int c) { return dstate[c * v_pitch + j]; },
        [&](int i, int c, float x) { w.dk[i * kd + c] += x; });
  }
  if (state) {
    const auto state_turned = [&](int j, int c) { return state[c * v_pitch + j]; };
    const auto of_out = [&](int i, int j) { return dout(i, j) * t.decay[i]; };
    const auto of_r = [&](int i, int j) { return w.w[i * vd + j] * -t.decay[i]; };
    const auto through = [&](const auto& from, const float* vectors, float* to) {
      BlockProduct<true, true>(n, kd, vd, from, state_turned, [&](int i, int c, float x) {
        w.back[i * kd + c] = x;
        to[i * kd + c] += x;
      });
      RowDots(n, kd, w.back, vectors, [&](int i, float x) { t.dc[i] += x; });
    };
    through(of_out, w.q, w.dq);
    through(of_r, w.k, w.dk);
    BlockProduct<false, false>(
        kd, vd, n, [&](int c, int i) { return w.q[i * kd + c]; }, of_out,
        [&](int c, int j, float x) {
          float& to = dstate[c * v_pitch + j];
          to = (live ? to * t.decay[n - 1] : 0.0f) + x;
        });
    BlockProduct<false, false>(
        kd, vd, n, [&](int c, int i) { return w.k[i * kd + c]; }, of_r,
        [&](int c, int j, float x) { dstate[c * v_pitch + j] += x; });
  }
  if (threadIdx.x == 0) {
    float behind = 0;
    for (int i = n - 1; i >= 0; --i) {
      behind += t.dc[i];
      t.dc[i] = behind;
    }
  }
  __syncthreads();
  const int i = static_cast<int>(threadIdx.x);
  if (i < n) {
    const int64_t token = (first + i) * int64_t{s.v_heads} + head;
    d.dg[token] = t.dc[i];
    d.dbeta[token] = t.dbeta[i];
  }
}

// A task: a sequence and a key head.
template <class T>
__device__ void BackwardHead(const GatedDeltaBackward& d, const States& at, int32_t b, int32_t head,
                             const Work& w, Tokens& t) {
  const DeltaShape& s = d.shape;
  const int32_t group = s.v_heads / s.k_heads, chunks = at.chunks(b), parent = at.parent(b);
  const int64_t states = group * s.state(), own = at.FirstSlot(b),
                before = parent >= 0 ? at.FirstSlot(parent) + at.chunks(parent) - 1 : 0;
  const int kd = s.k_dim;
  const auto of = [&](int32_t sequence) {
    return d.scratch + (sequence * int64_t{s.v_heads} + int64_t{head} * group) * s.state();
  };
  if (at.IsParent(b)) {
    // What those that go on from it leave, in their order.
    ForAll(states, [&](int64_t i) {
      float sum = 0;
      for (int32_t next = b + 1; next < s.sequences && at.parent(next) == b; ++next)
        sum += of(next)[i];
      w.state[i] = sum;
    });
  }
  auto* dqkv = static_cast<T*>(d.dqkv);
  for (int32_t c = chunks - 1; c >= 0; --c) {
    const int32_t first = at.begin(b) + c * kChunk;
    const int n = min(kChunk, at.end(b) - first);
    LoadKeyHead(s, static_cast<const T*>(d.qkv), first, n, head, w, t);
    const auto query = [&](int i, int c2) { return w.q[i * kd + c2]; };
    const auto key = [&](int i, int c2) { return w.k[i * kd + c2]; };
    const auto key_turned = [&](int c2, int j) { return w.k[j * kd + c2]; };
    BlockProduct<true, true>(n, n, kd, query, key_turned,
                             [&](int i, int j, float x) { w.q_k[i * kChunk + j] = x; });
    BlockProduct<true, true>(n, n, kd, key, key_turned,
                             [&](int i, int j, float x) { w.k_k[i * kChunk + j] = x; });
    ForAll(int64_t{n} * kd, [&](int64_t i) { w.dq[i] = w.dk[i] = 0; });
    for (int32_t j = 0; j < group; ++j) {
      const int32_t value_head = head * group + j;
      const float* state = nullptr;
      if (c > 0) state = d.states + at.At(own + c - 1, value_head);
      else if (parent >= 0) state = d.states + at.At(before, value_head);
      ValueHeadBackward<T>(d, first, n, value_head, j == 0, c + 1 < chunks || at.IsParent(b), state,
                           w.state + j * s.state(), w, t);
    }
    __syncthreads();
    const auto add_to = [&](float* to) {
      return [to, kd](int i, int c2, float x) { to[i * kd + c2] += x; };
    };
    const auto h = [&](int i, int k) { return w.h[i * kChunk + k]; };
    const auto h_turned = [&](int i, int k) { return w.h[k * kChunk + i]; };
    const auto g_both = [&](int i, int k) { return w.g[i * kChunk + k] + w.g[k * kChunk + i]; };
    BlockProduct<true, false>(n, kd, n, h, key, add_to(w.dq));
    BlockProduct<false, false>(n, kd, n, h_turned, query, add_to(w.dk));
    BlockProduct<true, false>(n, kd, n, g_both, key, add_to(w.dk));
    T* to = dqkv + first * s.width() + int64_t{head} * kd;
    StoreVectors(w.q, w.dq, t.q_scale, 1.0f / sqrtf(static_cast<float>(kd)), n, kd, s.width(), to);
    StoreVectors(w.k, w.dk, t.k_scale, 1.0f, n, kd, s.width(), to + s.key_width());
  }
  __syncthreads();
  if (parent >= 0) ForAll(states, [&](int64_t i) { of(b)[i] = w.state[i]; });
}

// Blocks take task after task. Of two launches the second has the tasks that wait for the first's.
template <class T>
__global__ void __launch_bounds__(kBlockThreads, 2)
    ForwardTasks(GatedDelta d, bool goes_on, int64_t work) {
  __shared__ Tokens tokens;
  const DeltaShape& s = d.shape;
  const States at{s, d.keep};
  const Work w = WorkOf(s, false, d.work + blockIdx.x * work);
  const int64_t tasks = int64_t{s.sequences} * s.v_heads;
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const auto b = static_cast<int32_t>(task / s.v_heads);
    if ((at.parent(b) >= 0) != goes_on) continue;
    ForwardHead<T>(d, at, b, static_cast<int32_t>(task % s.v_heads), w, tokens);
  }
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads, 2)
    BackwardTasks(GatedDeltaBackward d, bool goes_on, int64_t work) {
  __shared__ Tokens tokens;
  const DeltaShape& s = d.shape;
  const States at{s, true};
  const Work w = WorkOf(s, true, d.work + blockIdx.x * work);
  const int64_t tasks = int64_t{s.sequences} * s.k_heads;
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const auto b = static_cast<int32_t>(task / s.k_heads);
    if ((at.parent(b) >= 0) != goes_on) continue;
    BackwardHead<T>(d, at, b, static_cast<int32_t>(task % s.k_heads), w, tokens);
  }
}

unsigned TaskBlocks(const DeltaShape& s, bool backward) {
  return static_cast<unsigned>(GatedDeltaBlocks(s, backward));
}

}  // namespace

void GatedDelta::Cuda(const Launch& launch) const {
  if (shape.tokens == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    for (const bool goes_on : {false, true}) {
      if (goes_on && !shape.parents) continue;
      ForwardTasks<T><<<TaskBlocks(shape, false), kBlockThreads, 0, StreamOf(launch)>>>(
          *this, goes_on, GatedDeltaBlockWork(shape, false));
      CheckLaunch(kName);
    }
  });
}

void GatedDeltaBackward::Cuda(const Launch& launch) const {
  if (shape.tokens == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    for (const bool goes_on : {true, false}) {
      if (goes_on && !shape.parents) continue;
      BackwardTasks<T><<<TaskBlocks(shape, true), kBlockThreads, 0, StreamOf(launch)>>>(
          *this, goes_on, GatedDeltaBlockWork(shape, true));
      CheckLaunch(kName);
    }
  });
}

}  // namespace plumb::kernels
