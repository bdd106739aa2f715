#include "kernels/device/cuda_common.h"
#include "kernels/embedding.h"

namespace plumb::kernels {
namespace {

// One block a row: from[index[row]] -> to[row], or from[row] -> to[index[row]]. V: the unit copied.
template <bool Gather, class V>
__global__ void CopyRows(const V* from, const int32_t* index, int64_t width, V* to) {
  const int64_t row = blockIdx.x, other = index[row];
  const V* source = from + (Gather ? other : row) * width;
  V* target = to + (Gather ? row : other) * width;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) target[i] = source[i];
}

template <bool Gather>
void Copy(const Launch& launch, const void* from, const int32_t* index, int64_t rows, int64_t width,
          void* to) {
  if (rows == 0) return;
  const int64_t bytes = width * static_cast<int64_t>(ElementSize(launch.dtype));
  const auto blocks = static_cast<unsigned>(rows);
  if (bytes % 16 == 0 && Aligned16(from) && Aligned16(to)) {
    CopyRows<Gather><<<blocks, 128, 0, StreamOf(launch)>>>(static_cast<const uint4*>(from), index,
                                                           bytes / 16, static_cast<uint4*>(to));
  } else {
    CopyRows<Gather><<<blocks, 128, 0, StreamOf(launch)>>>(
        static_cast<const uint16_t*>(from), index, bytes / 2, static_cast<uint16_t*>(to));
  }
}

template <class T>
__global__ void ScaledGather(const T* table, const int32_t* index, int64_t width, float scale,
                             T* out) {
  const T* from = table + index[blockIdx.x] * width;
  T* to = out + blockIdx.x * width;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x)
    to[i] = FromFloat<T>(ToFloat(from[i]) * scale);
}

template <class T>
__global__ void Add(const T* x, int64_t n, float scale, T* y) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x) {
    y[i] = FromFloat<T>(ToFloat(y[i]) + ToFloat(x[i]) * scale);
  }
}

// Rows that share an index add in any order.
template <class T>
__global__ void ScatterAdd(const T* d, const int32_t* index, int64_t width, float scale,
                           float* grad) {
  const T* from = d + blockIdx.x * width;
  float* to = grad + index[blockIdx.x] * width;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x)
    atomicAdd(to + i, ToFloat(from[i]) * scale);
}

// One block a row of out.
template <class T>
__global__ void Sums(const T* d, const int32_t* index, const int32_t* begins, int64_t width,
                     int64_t out_stride, T* out) {
  const int32_t begin = begins[blockIdx.x], end = begins[blockIdx.x + 1];
  T* to = out + blockIdx.x * out_stride;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    float sum = 0;
    for (int32_t k = begin; k < end; ++k) sum += ToFloat(d[index[k] * width + i]);
    to[i] = FromFloat<T>(sum);
  }
}

template <class T>
__global__ void Bias(T* x, const T* bias, int64_t rows, int64_t width) {
  for (int64_t k = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; k < rows * width;
       k += int64_t{gridDim.x} * blockDim.x) {
    x[k] = FromFloat<T>(ToFloat(x[k]) + ToFloat(bias[k % width]));
  }
}

// 32 columns a block; warp w sums rows w, w + 32, ..., and the first warp adds the 32 sums in
// order.
template <class T>
__global__ void BiasGrad(const T* dx, int64_t rows, int64_t width, float* dbias) {
  __shared__ float part[32][33];
  const int64_t i = int64_t{blockIdx.x} * 32 + threadIdx.x;
  float sum = 0;
  for (int64_t r = threadIdx.y; r < rows && i < width; r += 32) sum += ToFloat(dx[r * width + i]);
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || i >= width) return;
  float total = dbias[i];
  for (int w = 0; w < 32; ++w) total += part[w][threadIdx.x];
  dbias[i] = total;
}

}  // namespace

void GatherRows::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  if (scale == 1) {
    Copy<true>(launch, table, index, rows, width, out);
  } else {
    ForDType(launch.dtype, [&]<class T>(T) {
      ScaledGather<<<static_cast<unsigned>(rows), 256, 0, StreamOf(launch)>>>(
          static_cast<const T*>(table), index, width, scale, static_cast<T*>(out));
    });
  }
  CheckLaunch(kName);
}

void ScatterRows::Cuda(const Launch& launch) const {
  Copy<false>(launch, d, index, rows, width, out);
  CheckLaunch(kName);
}

void ScatterAddRows::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    ScatterAdd<<<static_cast<unsigned>(rows), 256, 0, StreamOf(launch)>>>(
        static_cast<const T*>(d), index, width, scale, grad);
  });
  CheckLaunch(kName);
}

void SumRows::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Sums<<<static_cast<unsigned>(rows), 128, 0, StreamOf(launch)>>>(
        static_cast<const T*>(d), index, begins, width, out_stride, static_cast<T*>(out));
  });
  CheckLaunch(kName);
}

void AddScaled::Cuda(const Launch& launch) const {
  if (n == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Add<<<Blocks(n, 1024), 256, 0, StreamOf(launch)>>>(static_cast<const T*>(x), n, scale,
                                                       static_cast<T*>(y));
  });
  CheckLaunch(kName);
}

void AddBias::Cuda(const Launch& launch) const {
  if (rows * width == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Bias<<<Blocks(rows * width, 1024), 256, 0, StreamOf(launch)>>>(
        static_cast<T*>(x), static_cast<const T*>(bias), rows, width);
  });
  CheckLaunch(kName);
}

void BiasBackward::Cuda(const Launch& launch) const {
  if (rows * width == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    BiasGrad<<<Blocks(width, 32), dim3(32, 32), 0, StreamOf(launch)>>>(static_cast<const T*>(dx),
                                                                       rows, width, dbias);
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
