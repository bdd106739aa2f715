#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/device/cpu_common.h"
#include "kernels/head_norm.h"

namespace plumb::kernels {
namespace {

// Part p of a row: where it begins, how long it is, and which weights are its own.
struct Part {
  int64_t begin;
  int32_t size;
  bool key;
};

inline Part PartAt(const HeadNormShape& s, int32_t p) {
  if (p < s.q_parts) return {int64_t{p} * s.q_size, s.q_size, false};
  return {int64_t{s.q_parts} * s.q_size + int64_t{p - s.q_parts} * s.k_size, s.k_size, true};
}

template <class T>
void Forward(const HeadNorm& k) {
  const HeadNormShape& s = k.shape;
  const float offset = s.weight_offset;
  const int64_t normed = s.normed();
#pragma omp parallel for schedule(static) if (s.rows * normed > kParallelElements)
  for (int64_t r = 0; r < s.rows; ++r) {
    const T* in_row = static_cast<const T*>(k.x) + r * s.width;
    T* out_row = static_cast<T*>(k.y) + r * s.width;
    for (int32_t p = 0; p < s.parts(); ++p) {
      const Part part = PartAt(s, p);
      const T* in = in_row + part.begin;
      const T* w = static_cast<const T*>(part.key ? k.w_k : k.w_q);
      T* out = out_row + part.begin;
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int32_t i = 0; i < part.size; ++i) sum += ToFloat(in[i]) * ToFloat(in[i]);
      const float scale = 1.0f / std::sqrt(sum / static_cast<float>(part.size) + s.eps);
      if (k.rstd) k.rstd[r * s.parts() + p] = scale;
#pragma omp simd
      for (int32_t i = 0; i < part.size; ++i)
        out[i] = FromFloat<T>(ToFloat(in[i]) * scale * (offset + ToFloat(w[i])));
    }
    if (in_row != out_row) {
      std::memcpy(out_row + normed, in_row + normed,
                  sizeof(T) * static_cast<size_t>(s.width - normed));
    }
  }
}

// As RmsNormBackward, part by part: dx = rstd (g - x rstd^2 mean(g x)) with g = dy (offset + w).
template <class T>
void Backward(const HeadNormBackward& k) {
  const HeadNormShape& s = k.shape;
  const float offset = s.weight_offset;
  const int64_t blocks = std::min(kHeadNormScratchRows, s.rows),
                weights = int64_t{s.q_size} + s.k_size;
#pragma omp parallel for schedule(static) if (s.rows * s.normed() > kParallelElements)
  for (int64_t b = 0; b < blocks; ++b) {
    float* partial = k.scratch + b * weights;
    std::fill(partial, partial + weights, 0.0f);
    for (int64_t r = s.rows * b / blocks; r < s.rows * (b + 1) / blocks; ++r) {
      for (int32_t p = 0; p < s.parts(); ++p) {
        const Part part = PartAt(s, p);
        T* d = static_cast<T*>(k.d) + r * s.width + part.begin;
        const T* in = static_cast<const T*>(k.x) + r * s.width + part.begin;
        const T* w = static_cast<const T*>(part.key ? k.w_k : k.w_q);
        float* dw = partial + (part.key ? s.q_size : 0);
        const float scale = k.rstd[r * s.parts() + p];
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int32_t i = 0; i < part.size; ++i)
          dot += ToFloat(d[i]) * (offset + ToFloat(w[i])) * ToFloat(in[i]);
        const float c = dot * scale * scale * scale / static_cast<float>(part.size);
#pragma omp simd
        for (int32_t i = 0; i < part.size; ++i) {
          const float g = ToFloat(d[i]), x = ToFloat(in[i]);
          dw[i] += g * x * scale;
          d[i] = FromFloat<T>(g * (offset + ToFloat(w[i])) * scale - x * c);
        }
      }
    }
  }
  if (!k.dw_q && !k.dw_k) return;
  for (int64_t b = 0; b < blocks; ++b) {
    const float* partial = k.scratch + b * weights;
    for (int32_t i = 0; k.dw_q && i < s.q_size; ++i) k.dw_q[i] += partial[i];
    for (int32_t i = 0; k.dw_k && i < s.k_size; ++i) k.dw_k[i] += partial[s.q_size + i];
  }
}

}  // namespace

void HeadNorm::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Forward<T>(*this); });
}

void HeadNormBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Backward<T>(*this); });
}

}  // namespace plumb::kernels
