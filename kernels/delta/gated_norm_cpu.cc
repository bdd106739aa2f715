#include "kernels/delta/gated_norm.h"

#include <algorithm>
#include <cmath>

#include "kernels/device/cpu_common.h"

namespace plumb::kernels {
namespace {

template <class T>
inline float Rstd(const T* x, int32_t dim, float eps) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int32_t i = 0; i < dim; ++i) sum += ToFloat(x[i]) * ToFloat(x[i]);
  return 1.0f / std::sqrt(sum / static_cast<float>(dim) + eps);
}

template <class T>
void Forward(const GatedNorm& k) {
  const int64_t width = int64_t{k.heads} * k.dim;
  const T* w = static_cast<const T*>(k.w);
#pragma omp parallel for schedule(static) if (k.rows * width > kParallelElements)
  for (int64_t r = 0; r < k.rows; ++r) {
    for (int32_t h = 0; h < k.heads; ++h) {
      const int64_t at = int64_t{h} * k.dim;
      const T* x = static_cast<const T*>(k.x) + r * width + at;
      const T* z = static_cast<const T*>(k.z) + r * k.z_stride + at;
      T* y = static_cast<T*>(k.y) + r * width + at;
      const float rstd = Rstd(x, k.dim, k.eps);
#pragma omp simd
      for (int32_t i = 0; i < k.dim; ++i) {
        const float gate = ToFloat(z[i]);
        y[i] =
            FromFloat<T>(ToFloat(w[i]) * (ToFloat(x[i]) * rstd) * gate / (1.0f + FastExp(-gate)));
      }
    }
  }
}

template <class T>
void Backward(const GatedNormBackward& k) {
  const int64_t width = int64_t{k.heads} * k.dim;
  const T* w = static_cast<const T*>(k.w);
  // Runs of rows, each with its own sum of dw.
  const int64_t runs = std::min(kGatedNormScratchRows, std::max<int64_t>(1, k.rows));
#pragma omp parallel for schedule(static) if (k.rows * width > kParallelElements)
  for (int64_t run = 0; run < runs; ++run) {
    float* sum = k.scratch + run * k.dim;
    std::fill_n(sum, k.dim, 0.0f);
    for (int64_t r = k.rows * run / runs; r < k.rows * (run + 1) / runs; ++r) {
      for (int32_t h = 0; h < k.heads; ++h) {
        const int64_t at = int64_t{h} * k.dim;
        const T* x = static_cast<const T*>(k.x) + r * width + at;
        const T* z = static_cast<const T*>(k.z) + r * k.z_stride + at;
        const T* dy = static_cast<const T*>(k.dy) + r * width + at;
        T* dx = static_cast<T*>(k.dx) + r * width + at;
        T* dz = static_cast<T*>(k.dz) + r * k.z_stride + at;
        const float rstd = Rstd(x, k.dim, k.eps);
        float along = 0;  // of the normed vector
#pragma omp simd reduction(+ : along)
        for (int32_t i = 0; i < k.dim; ++i) {
          const float gate = ToFloat(z[i]), s = 1.0f / (1.0f + FastExp(-gate)),
                      normed = ToFloat(x[i]) * rstd;
          along += ToFloat(dy[i]) * gate * s * ToFloat(w[i]) * normed;
        }
        along /= static_cast<float>(k.dim);
#pragma omp simd
        for (int32_t i = 0; i < k.dim; ++i) {
          const float gate = ToFloat(z[i]), s = 1.0f / (1.0f + FastExp(-gate)),
                      normed = ToFloat(x[i]) * rstd, d = ToFloat(dy[i]), weight = ToFloat(w[i]);
          sum[i] += d * gate * s * normed;
          dz[i] = FromFloat<T>(d * weight * normed * s * (1.0f + gate * (1.0f - s)));
          dx[i] = FromFloat<T>(rstd * (d * gate * s * weight - along * normed));
        }
      }
    }
  }
  if (!k.dw) return;
  for (int64_t run = 0; run < runs; ++run) {
    for (int32_t i = 0; i < k.dim; ++i) k.dw[i] += k.scratch[run * k.dim + i];
  }
}

}  // namespace

void GatedNorm::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Forward<T>(*this); });
}

void GatedNormBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Backward<T>(*this); });
}

}  // namespace plumb::kernels
