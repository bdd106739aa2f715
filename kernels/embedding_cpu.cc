#include <algorithm>
#include <cstring>

#include "kernels/cpu_common.h"
#include "kernels/cuda_twins.h"
#include "kernels/embedding.h"

namespace plumb::kernels {
namespace {

template <class T>
void Gather(const T* table, const int32_t* index, int64_t rows, int64_t width, T* out) {
#pragma omp parallel for schedule(static) if (rows * width > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(out + r * width, table + index[r] * width, sizeof(T) * static_cast<size_t>(width));
  }
}

// Threads own column ranges, so that each element is summed in ascending row order by one thread.
template <class T>
void ScatterAdd(const T* d, const int32_t* index, int64_t rows, int64_t width, float* grad) {
  const int64_t strips = std::max<int64_t>(1, width / 64);
#pragma omp parallel for schedule(static) if (rows * width > kParallelElements)
  for (int64_t s = 0; s < strips; ++s) {
    const int64_t begin = width * s / strips, end = width * (s + 1) / strips;
    for (int64_t r = 0; r < rows; ++r) {
      const T* from = d + r * width;
      float* to = grad + index[r] * width;
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) to[i] += ToFloat(from[i]);
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
void Sums(const T* d, const int32_t* index, const int32_t* begins, int64_t rows, int64_t width, int64_t out_stride, T* out) {
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
void Bias(T* x, const T* bias, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static) if (rows * width > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) x[r * width + i] = FromFloat<T>(ToFloat(x[r * width + i]) + ToFloat(bias[i]));
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

void GatherRows(const Launch& launch, const void* table, const int32_t* index, int64_t rows, int64_t width, void* out) {
  PLUMB_DISPATCH_CUDA(launch, GatherRows(launch, table, index, rows, width, out))
  ForDType(launch.dtype, [&]<class T>(T) { Gather(static_cast<const T*>(table), index, rows, width, static_cast<T*>(out)); });
}

void ScatterAddRows(const Launch& launch, const void* d, const int32_t* index, int64_t rows, int64_t width, float* grad) {
  PLUMB_DISPATCH_CUDA(launch, ScatterAddRows(launch, d, index, rows, width, grad))
  ForDType(launch.dtype, [&]<class T>(T) { ScatterAdd(static_cast<const T*>(d), index, rows, width, grad); });
}

void ScatterRows(const Launch& launch, const void* d, const int32_t* index, int64_t rows, int64_t width, void* out) {
  PLUMB_DISPATCH_CUDA(launch, ScatterRows(launch, d, index, rows, width, out))
  ForDType(launch.dtype, [&]<class T>(T) { Scatter(static_cast<const T*>(d), index, rows, width, static_cast<T*>(out)); });
}

void SumRows(const Launch& launch, const void* d, const int32_t* index, const int32_t* begins, int64_t rows, int64_t width,
             int64_t out_stride, void* out) {
  PLUMB_DISPATCH_CUDA(launch, SumRows(launch, d, index, begins, rows, width, out_stride, out))
  ForDType(launch.dtype, [&]<class T>(T) {
    Sums(static_cast<const T*>(d), index, begins, rows, width, out_stride, static_cast<T*>(out));
  });
}

void AddBias(const Launch& launch, void* x, const void* bias, int64_t rows, int64_t width) {
  PLUMB_DISPATCH_CUDA(launch, AddBias(launch, x, bias, rows, width))
  ForDType(launch.dtype, [&]<class T>(T) { Bias(static_cast<T*>(x), static_cast<const T*>(bias), rows, width); });
}

void BiasBackward(const Launch& launch, const void* dx, int64_t rows, int64_t width, float* dbias) {
  PLUMB_DISPATCH_CUDA(launch, BiasBackward(launch, dx, rows, width, dbias))
  ForDType(launch.dtype, [&]<class T>(T) { BiasGrad(static_cast<const T*>(dx), rows, width, dbias); });
}

}  // namespace plumb::kernels
