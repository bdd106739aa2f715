#include <omp.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu_common.h"
#include "kernels/cuda_twins.h"
#include "kernels/rms_norm.h"

namespace plumb::kernels {
namespace {

template <class T>
void Forward(const T* x, const T* w, int64_t rows, int64_t hidden, float eps, T* y, float* rstd) {
#pragma omp parallel for schedule(static) if (rows * hidden > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    const T* in = x + r * hidden;
    T* out = y + r * hidden;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < hidden; ++i) sum += ToFloat(in[i]) * ToFloat(in[i]);
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(hidden) + eps);
    if (rstd) rstd[r] = scale;
#pragma omp simd
    for (int64_t i = 0; i < hidden; ++i) out[i] = FromFloat<T>(ToFloat(in[i]) * scale * ToFloat(w[i]));
  }
}

// dx = rstd (g - x rstd^2 mean(g x)) with g = dy w; dw += dy x rstd. Rows are cut into at most kRmsNormScratchRows
// blocks that each sum their dw, so the order of additions does not depend on the threads.
template <class T>
void Backward(const T* dy, const T* x, const T* w, const float* rstd, int64_t rows, int64_t hidden, bool accumulate,
              T* dx, float* dw, float* scratch) {
  const int64_t blocks = std::min(kRmsNormScratchRows, rows);
#pragma omp parallel for schedule(static) if (rows * hidden > kParallelElements)
  for (int64_t b = 0; b < blocks; ++b) {
    float* partial = scratch + b * hidden;
    std::fill(partial, partial + hidden, 0.0f);
    for (int64_t r = rows * b / blocks; r < rows * (b + 1) / blocks; ++r) {
      const T* g = dy + r * hidden;
      const T* in = x + r * hidden;
      T* out = dx + r * hidden;
      const float s = rstd[r];
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t i = 0; i < hidden; ++i) dot += ToFloat(g[i]) * ToFloat(w[i]) * ToFloat(in[i]);
      const float c = dot * s * s * s / static_cast<float>(hidden);
#pragma omp simd
      for (int64_t i = 0; i < hidden; ++i) {
        const float gi = ToFloat(g[i]), xi = ToFloat(in[i]);
        partial[i] += gi * xi * s;
        const float d = gi * ToFloat(w[i]) * s - xi * c;
        out[i] = FromFloat<T>(accumulate ? ToFloat(out[i]) + d : d);
      }
    }
  }
  for (int64_t b = 0; b < blocks; ++b) {
#pragma omp simd
    for (int64_t i = 0; i < hidden; ++i) dw[i] += scratch[b * hidden + i];
  }
}

}  // namespace

void RmsNormForward(const Launch& launch, const void* x, const void* w, int64_t rows, int64_t hidden, float eps,
                    void* y, float* rstd) {
  PLUMB_DISPATCH_CUDA(launch, RmsNormForward(launch, x, w, rows, hidden, eps, y, rstd))
  ForDType(launch.dtype, [&]<class T>(T) {
    Forward(static_cast<const T*>(x), static_cast<const T*>(w), rows, hidden, eps, static_cast<T*>(y), rstd);
  });
}

void RmsNormBackward(const Launch& launch, const void* dy, const void* x, const void* w, const float* rstd, int64_t rows,
                     int64_t hidden, bool accumulate_dx, void* dx, float* dw, float* scratch) {
  PLUMB_DISPATCH_CUDA(launch, RmsNormBackward(launch, dy, x, w, rstd, rows, hidden, accumulate_dx, dx, dw, scratch))
  ForDType(launch.dtype, [&]<class T>(T) {
    Backward(static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<const T*>(w), rstd, rows, hidden,
             accumulate_dx, static_cast<T*>(dx), dw, scratch);
  });
}

}  // namespace plumb::kernels
