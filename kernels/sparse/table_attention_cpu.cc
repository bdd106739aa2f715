#include <algorithm>
#include <cmath>

#include "kernels/device/cpu_common.h"
#include "kernels/device/vector_math.h"
#include "kernels/sparse/table_attention.h"

namespace plumb::kernels {
namespace {

float Dot(const float* a, const float* b, int32_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int32_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

template <class T>
void Widen(const T* x, int32_t n, float scale, float* to) {
#pragma omp simd
  for (int32_t i = 0; i < n; ++i) to[i] = ToFloat(x[i]) * scale;
}

// Calls body(row, head, memory) with `floats` of memory of the thread's own.
template <class Body>
void ForRows(const TableShape& s, int64_t floats, const Body& body) {
#pragma omp parallel if (s.rows * s.heads * s.entries * s.head_dim > kParallelElements)
  {
    thread_local AlignedFloats memory;
    float* work = memory.Grow(floats);
#pragma omp for schedule(static)
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int32_t h = 0; h < s.heads; ++h) body(r, h, work);
    }
  }
}

template <class T>
void Forward(const TableAttention& k) {
  const TableShape& s = k.shape;
  const int32_t d = s.head_dim;
  ForRows(s, 2 * d + s.entries, [&](int64_t r, int32_t h, float* query) {
    float *mixed = query + d, *score = mixed + d;
    const int64_t at = (r * s.heads + h) * d;
    Widen(static_cast<const T*>(k.q) + at, d, s.scale, query);
    T* out = static_cast<T*>(k.out) + at;
    float& lse = k.lse[h * s.rows + r];
    float top = lse;
    for (int64_t n = 0; n < s.entries; ++n) {
      score[n] = Dot(query, s.keys + n * d, d);
      top = std::max(top, score[n]);
    }
    const float of_sequence = std::exp(lse - top);
    Widen(out, d, of_sequence, mixed);
    float sum = of_sequence;
    for (int64_t n = 0; n < s.entries; ++n) {
      const float p = FastExp(score[n] - top);
      const float* value = s.values + n * d;
      sum += p;
#pragma omp simd
      for (int32_t i = 0; i < d; ++i) mixed[i] += p * value[i];
    }
    const float inverse = 1 / sum;
#pragma omp simd
    for (int32_t i = 0; i < d; ++i) out[i] = FromFloat<T>(mixed[i] * inverse);
    lse = top + std::log(sum);
  });
}

template <class T>
void Backward(const TableAttentionBackward& k) {
  const TableShape& s = k.shape;
  const int32_t d = s.head_dim;
  ForRows(s, 4 * d, [&](int64_t r, int32_t h, float* query) {
    float *dout = query + d, *out = dout + d, *dq = out + d;
    const int64_t at = (r * s.heads + h) * d;
    Widen(static_cast<const T*>(k.q) + at, d, s.scale, query);
    Widen(static_cast<const T*>(k.dout) + at, d, 1, dout);
    Widen(static_cast<const T*>(k.out) + at, d, 1, out);
    std::fill_n(dq, d, 0.0f);
    const float delta = Dot(dout, out, d), lse = k.lse[h * s.rows + r];
    for (int64_t n = 0; n < s.entries; ++n) {
      const float* key = s.keys + n * d;
      const float p = FastExp(Dot(query, key, d) - lse),
                  ds = p * (Dot(dout, s.values + n * d, d) - delta);
#pragma omp simd
      for (int32_t i = 0; i < d; ++i) dq[i] += ds * key[i];
    }
    T* to = static_cast<T*>(k.dq) + at;
#pragma omp simd
    for (int32_t i = 0; i < d; ++i) to[i] = FromFloat<T>(dq[i] * s.scale);
  });
}

}  // namespace

void TableAttention::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Forward<T>(*this); });
}

void TableAttentionBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Backward<T>(*this); });
}

}  // namespace plumb::kernels
