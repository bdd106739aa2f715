#include "kernels/delta/delta_step.h"

#include <cmath>

#include "kernels/delta/tiles.h"
#include "kernels/device/cpu_common.h"

namespace plumb::kernels {
namespace {

// Columns of a state in registers at a time.
constexpr int kVectors = kSums >= 24 ? 4 : 1;

// S = exp(g) S; S += k (x) beta (v - S^T k); out = S^T q, for `Vectors` vectors of columns.
template <int Vectors>
PLUMB_INLINE void Columns(const float* q, const float* k, const float* v, float decay, float beta,
                          int32_t k_dim, int32_t width, float* state, float* out) {
  FloatLanes seen[Vectors] = {};
  for (int32_t i = 0; i < k_dim; ++i) {
    float* row = state + int64_t{i} * width;
    for (int c = 0; c < Vectors; ++c) {
      const FloatLanes x = Load(row + c * kLanes) * decay;
      Store(row + c * kLanes, x);
      seen[c] += x * k[i];
    }
  }
  FloatLanes sum[Vectors] = {};
  for (int c = 0; c < Vectors; ++c) seen[c] = (Load(v + c * kLanes) - seen[c]) * beta;
  for (int32_t i = 0; i < k_dim; ++i) {
    float* row = state + int64_t{i} * width;
    for (int c = 0; c < Vectors; ++c) {
      const FloatLanes x = Load(row + c * kLanes) + seen[c] * k[i];
      Store(row + c * kLanes, x);
      sum[c] += x * q[i];
    }
  }
  for (int c = 0; c < Vectors; ++c) Store(out + c * kLanes, sum[c]);
}

template <class T>
PLUMB_INLINE void LoadVector(const T* x, int32_t d, float length, float* out) {
  WidenTo(x, d, out);
  FloatLanes squares = {};
  for (int32_t i = 0; i < d; i += kLanes) squares += Load(out + i) * Load(out + i);
  const float scale = length / std::sqrt(Sum(squares) + kDeltaNormEps);
  for (int32_t i = 0; i < d; i += kLanes) Store(out + i, Load(out + i) * scale);
}

template <class T>
void Row(const DeltaStep& d, int32_t r, int32_t head, float* work) {
  const DeltaShape& s = d.shape;
  const int32_t kw = PadToLanes(s.k_dim), vw = PadToLanes(s.v_dim),
                key_head = head / (s.v_heads / s.k_heads);
  float *q = work, *k = q + kw, *v = k + kw, *out = v + vw;
  const T* row = static_cast<const T*>(d.qkv) + r * s.width();
  LoadVector(row + int64_t{key_head} * s.k_dim, s.k_dim,
             1.0f / std::sqrt(static_cast<float>(s.k_dim)), q);
  LoadVector(row + s.key_width() + int64_t{key_head} * s.k_dim, s.k_dim, 1.0f, k);
  WidenTo(row + 2 * s.key_width() + int64_t{head} * s.v_dim, s.v_dim, v);
  float* state = d.states.data + d.rows.slot[r] * d.states.stride + d.offset + head * s.state();
  if (d.rows.position[r] == 0) std::fill_n(state, s.state(), 0.0f);
  const int64_t at = int64_t{r} * s.v_heads + head;
  const float decay = FastExp(d.g[at]), beta = d.beta[at];
  int32_t c = 0;
  for (; c + kVectors * kLanes <= vw; c += kVectors * kLanes)
    Columns<kVectors>(q, k, v + c, decay, beta, s.k_dim, vw, state + c, out + c);
  for (; c < vw; c += kLanes) Columns<1>(q, k, v + c, decay, beta, s.k_dim, vw, state + c, out + c);
  NarrowTo(out, s.v_dim, static_cast<T*>(d.out) + r * s.value_width() + int64_t{head} * s.v_dim);
}

}  // namespace

void DeltaStep::Cpu(const Launch& launch) const {
  const int64_t tasks = int64_t{rows.rows} * shape.v_heads;
  ForDType(launch.dtype, [&]<class T>(T) {
#pragma omp parallel if (tasks * shape.state() > kParallelElements)
    {
      thread_local AlignedFloats memory;
      float* work = memory.Grow(2 * (PadToLanes(shape.k_dim) + PadToLanes(shape.v_dim)));
#pragma omp for schedule(dynamic, 1)
      for (int64_t task = 0; task < tasks; ++task) {
        const auto first = static_cast<int32_t>(task / shape.v_heads),
                   head = static_cast<int32_t>(task % shape.v_heads);
        if (first > 0 && rows.slot[first - 1] == rows.slot[first]) continue;  // of the one before
        for (int32_t r = first; r < rows.rows && rows.slot[r] == rows.slot[first]; ++r)
          Row<T>(*this, r, head, work);
      }
    }
  });
}

}  // namespace plumb::kernels
