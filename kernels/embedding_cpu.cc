#include <algorithm>
#include <cstring>

#include "kernels/device/cpu_common.h"
#include "kernels/embedding.h"

namespace plumb::kernels {
namespace {

template <class T>
void Gather(const T* table, const int32_t* index, int64_t rows, int64_t width, float scale,
            T* out) {
#pragma omp parallel for schedule(static) if (rows * width > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    const T* from = table + index[r] * width;
    T* to = out + r * width;
    if (scale == 1) {
      std::memcpy(to, from, sizeof(T) * static_cast<size_t>(width));
      continue;
    }
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) to[i] = FromFloat<T>(ToFloat(from[i]) * scale);
  }
}

// Threads own column ranges, so that each element is summed in ascending row order by one thread.
template <class T>
void ScatterAdd(const T* d, const int32_t* index, int64_t rows, int64_t width, float scale,
                float* grad) {
  const int64_t strips = std::max<int64_t>(1, width / 64);
#pragma omp parallel for schedule(static) if (rows * width > kParallelElements)
  for (int64_t s = 0; s < strips; ++s) {
    const int64_t begin = width * s / strips, end = width * (s + 1) / strips;
    for (int64_t r = 0; r < rows; ++r) {
      const T* from = d + r * width;
      float* to = grad + index[r] * width;
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) to[i] += ToFloat(from[i]) * scale;
    }
  }
}

template <class T>
void Scatter(const T* d, const int32_t* index, int64_t rows, int64_t width, T* out) {
#pragma omp parallel for schedule(static) if (rows * width > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(out + index[r] * width, d + r * width, sizeof(T) * static_cast<size_t>(width));
  }
}

template <class T>
void Sums(const T* d, const int32_t* index, const int32_t* begins, int64_t rows, int64_t width,
          int64_t out_stride, T* out) {
#pragma omp parallel for schedule(static) if (rows * width > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < width; ++i) {
      float sum = 0;
      for (int32_t k = begins[r]; k < begins[r + 1]; ++k) sum += ToFloat(d[index[k] * width + i]);
      out[r * out_stride + i] = FromFloat<T>(sum);
    }
  }
}

template <class T>
void Add(const T* x, int64_t n, float scale, T* y) {
#pragma omp parallel for simd schedule(static) if (n > kParallelElements)
  for (int64_t i = 0; i < n; ++i) y[i] = FromFloat<T>(ToFloat(y[i]) + ToFloat(x[i]) * scale);
}

template <class T>
void Bias(T* x, const T* bias, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static) if (rows * width > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i)
      x[r * width + i] = FromFloat<T>(ToFloat(x[r * width + i]) + ToFloat(bias[i]));
  }
}

template <class T>
void BiasGrad(const T* dx, int64_t rows, int64_t width, float* dbias) {
  const int64_t strips = std::max<int64_t>(1, width / 64);
#pragma omp parallel for schedule(static) if (rows * width > kParallelElements)
  for (int64_t s = 0; s < strips; ++s) {
    const int64_t begin = width * s / strips, end = width * (s + 1) / strips;
    for (int64_t r = 0; r < rows; ++r) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) dbias[i] += ToFloat(dx[r * width + i]);
    }
  }
}

}  // namespace

void GatherRows::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    Gather(static_cast<const T*>(table), index, rows, width, scale, static_cast<T*>(out));
  });
}

void ScatterAddRows::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    ScatterAdd(static_cast<const T*>(d), index, rows, width, scale, grad);
  });
}

void ScatterRows::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    Scatter(static_cast<const T*>(d), index, rows, width, static_cast<T*>(out));
  });
}

void SumRows::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    Sums(static_cast<const T*>(d), index, begins, rows, width, out_stride, static_cast<T*>(out));
  });
}

void AddScaled::Cpu(const Launch& launch) const {
  ForDType(launch.dtype,
           [&]<class T>(T) { Add(static_cast<const T*>(x), n, scale, static_cast<T*>(y)); });
}

void AddBias::Cpu(const Launch& launch) const {
  ForDType(launch.dtype,
           [&]<class T>(T) { Bias(static_cast<T*>(x), static_cast<const T*>(bias), rows, width); });
}

void BiasBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype,
           [&]<class T>(T) { BiasGrad(static_cast<const T*>(dx), rows, width, dbias); });
}

}  // namespace plumb::kernels
