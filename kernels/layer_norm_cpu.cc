#include <algorithm>
#include <cmath>

#include "kernels/device/cpu_common.h"
#include "kernels/layer_norm.h"

namespace plumb::kernels {
namespace {

template <class T>
float Mean(const T* x, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += ToFloat(x[i]);
  return sum / static_cast<float>(n);
}

template <class T>
void Forward(const LayerNorm& k) {
  const auto* x = static_cast<const T*>(k.x);
  const auto* w = static_cast<const T*>(k.w);
  const auto* b = static_cast<const T*>(k.b);
  const int64_t hidden = k.hidden;
#pragma omp parallel for schedule(static) if (k.rows * hidden > kParallelElements)
  for (int64_t r = 0; r < k.rows; ++r) {
    const T* in = x + r * hidden;
    T* out = static_cast<T*>(k.y) + r * hidden;
    const float mean = Mean(in, hidden);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < hidden; ++i) {
      const float apart = ToFloat(in[i]) - mean;
      sum += apart * apart;
    }
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(hidden) + k.eps);
    if (k.rstd) k.rstd[r] = scale;
#pragma omp simd
    for (int64_t i = 0; i < hidden; ++i)
      out[i] = FromFloat<T>((ToFloat(in[i]) - mean) * scale * ToFloat(w[i]) + ToFloat(b[i]));
  }
}

// With n = (x - mean) rstd and g = dy w: dx = rstd (g - mean(g) - n mean(g n)); dw += dy n, db +=
// dy. Rows are cut into at most kLayerNormBlocks blocks that each sum their own, so the order of
// additions does not depend on the threads.
template <class T>
void Backward(const LayerNormBackward& k) {
  const auto* w = static_cast<const T*>(k.w);
  const int64_t hidden = k.hidden, blocks = std::min(kLayerNormBlocks, k.rows);
  const bool accumulate = k.accumulate_dx;
#pragma omp parallel for schedule(static) if (k.rows * hidden > kParallelElements)
  for (int64_t b = 0; b < blocks; ++b) {
    float* weight = k.scratch + 2 * b * hidden;
    float* bias = weight + hidden;
    std::fill(weight, weight + 2 * hidden, 0.0f);
    for (int64_t r = k.rows * b / blocks; r < k.rows * (b + 1) / blocks; ++r) {
      const T* dy = static_cast<const T*>(k.dy) + r * hidden;
      const T* in = static_cast<const T*>(k.x) + r * hidden;
      T* out = static_cast<T*>(k.dx) + r * hidden;
      const float s = k.rstd[r], mean = Mean(in, hidden);
      float sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
      for (int64_t i = 0; i < hidden; ++i) {
        const float g = ToFloat(dy[i]) * ToFloat(w[i]);
        sum += g;
        dot += g * (ToFloat(in[i]) - mean);
      }
      const float level = sum / static_cast<float>(hidden),
                  slope = dot * s * s / static_cast<float>(hidden);
#pragma omp simd
      for (int64_t i = 0; i < hidden; ++i) {
        const float gi = ToFloat(dy[i]), apart = ToFloat(in[i]) - mean;
        weight[i] += gi * apart * s;
        bias[i] += gi;
        const float d = s * (gi * ToFloat(w[i]) - level - apart * slope);
        out[i] = FromFloat<T>(accumulate ? ToFloat(out[i]) + d : d);
      }
    }
  }
  float* dw = k.dw;
  float* db = k.db;
  if (!dw) return;
  for (int64_t b = 0; b < blocks; ++b) {
    const float* weight = k.scratch + 2 * b * hidden;
    const float* bias = weight + hidden;
#pragma omp simd
    for (int64_t i = 0; i < hidden; ++i) dw[i] += weight[i];
#pragma omp simd
    for (int64_t i = 0; i < hidden; ++i) db[i] += bias[i];
  }
}

}  // namespace

void LayerNorm::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Forward<T>(*this); });
}

void LayerNormBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Backward<T>(*this); });
}

}  // namespace plumb::kernels
