#include <algorithm>
#include <cmath>

#include "kernels/device/cpu_common.h"
#include "kernels/rms_norm.h"

namespace plumb::kernels {
namespace {

constexpr int64_t kBlocks = 64;  // of rows
static_assert(kBlocks <= kRmsNormScratchRows);

template <class T>
void Forward(const RmsNorm& k) {
  const auto* x = static_cast<const T*>(k.x);
  const auto* w = static_cast<const T*>(k.w);
  const int64_t hidden = k.hidden;
  const float offset = k.weight_offset;
#pragma omp parallel for schedule(static) if (k.rows * hidden > kParallelElements)
  for (int64_t r = 0; r < k.rows; ++r) {
    const T* in = x + r * hidden;
    T* out = static_cast<T*>(k.y) + r * hidden;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < hidden; ++i) sum += ToFloat(in[i]) * ToFloat(in[i]);
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(hidden) + k.eps);
    if (k.rstd) k.rstd[r] = scale;
    if (k.copy) std::copy_n(in, hidden, static_cast<T*>(k.copy) + r * hidden);
#pragma omp simd
    for (int64_t i = 0; i < hidden; ++i)
      out[i] = FromFloat<T>(ToFloat(in[i]) * scale * (offset + ToFloat(w[i])));
  }
}

// dx = rstd (g - x rstd^2 mean(g x)) with g = dy w; dw += dy x rstd. Rows are cut into at most
// kBlocks blocks that each sum their dw, so the order of additions does not depend on the threads.
template <class T>
void Backward(const RmsNormBackward& k) {
  const auto* w = static_cast<const T*>(k.w);
  const int64_t hidden = k.hidden, blocks = std::min(kBlocks, k.rows);
  const float offset = k.weight_offset;
  const bool accumulate = k.accumulate_dx;
#pragma omp parallel for schedule(static) if (k.rows * hidden > kParallelElements)
  for (int64_t b = 0; b < blocks; ++b) {
    float* partial = k.scratch + b * hidden;
    std::fill(partial, partial + hidden, 0.0f);
    for (int64_t r = k.rows * b / blocks; r < k.rows * (b + 1) / blocks; ++r) {
      const T* g = static_cast<const T*>(k.dy) + r * hidden;
      const T* in = static_cast<const T*>(k.x) + r * hidden;
      T* out = static_cast<T*>(k.dx) + r * hidden;
      const float s = k.rstd[r];
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t i = 0; i < hidden; ++i)
        dot += ToFloat(g[i]) * (offset + ToFloat(w[i])) * ToFloat(in[i]);
      const float c = dot * s * s * s / static_cast<float>(hidden);
#pragma omp simd
      for (int64_t i = 0; i < hidden; ++i) {
        const float gi = ToFloat(g[i]), xi = ToFloat(in[i]);
        partial[i] += gi * xi * s;
        const float d = gi * (offset + ToFloat(w[i])) * s - xi * c;
        out[i] = FromFloat<T>(accumulate ? ToFloat(out[i]) + d : d);
      }
    }
  }
  float* dw = k.dw;
  if (!dw) return;
  for (int64_t b = 0; b < blocks; ++b) {
    const float* partial = k.scratch + b * hidden;
#pragma omp simd
    for (int64_t i = 0; i < hidden; ++i) dw[i] += partial[i];
  }
}

}  // namespace

void RmsNorm::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Forward<T>(*this); });
}

void RmsNormBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Backward<T>(*this); });
}

}  // namespace plumb::kernels
