#include "kernels/device/cuda_common.h"
#include "kernels/embedding.h"

namespace plumb::kernels {
namespace {

// One block a row: from[index[row]] -> to[row], or from[row] -> to[index[row]]. V: the unit copied.
template <bool Gather, class V>
__global__ void CopyRows(const V* from, const int32_t* index, int64_t rows, int64_t width, V* to) {
  AwaitEarlier();
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const int64_t other = index[row];
  const V* source = from + (Gather ? other : row) * width;
  V* target = to + (Gather ? row : other) * width;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) target[i] = source[i];
}

template <bool Gather>
void Copy(const Launch& launch, const void* from, const int32_t* index, int64_t rows, int64_t width,
          void* to) {
  if (rows == 0) return;
  const int64_t bytes = width * static_cast<int64_t>(ElementSize(launch.dtype));
  // A block has 256 threads, so that short rows do not wait for blocks to begin.
  const int64_t across = bytes / 16;
  const unsigned threads = across <= 32 ? 32 : (across <= 64 ? 64 : 128), each = 256 / threads;
  const auto blocks = static_cast<unsigned>((rows + each - 1) / each);
  const dim3 block(threads, each);
  if (bytes % 16 == 0 && Aligned16(from) && Aligned16(to)) {
    LaunchEarly(CopyRows<Gather, uint4>, dim3(blocks), block, StreamOf(launch),
                static_cast<const uint4*>(from), index, rows, bytes / 16, static_cast<uint4*>(to));
  } else {
    LaunchEarly(CopyRows<Gather, uint16_t>, dim3(blocks), block, StreamOf(launch),
                static_cast<const uint16_t*>(from), index, rows, bytes / 2,
                static_cast<uint16_t*>(to));
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

// blockIdx.y and on: rows; N columns a thread.
template <int N, class T>
__global__ void Bias(T* x, const T* bias, int64_t rows, int64_t width) {
  const int64_t i = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * N;
  if (i >= width) return;
  const auto add = *reinterpret_cast<const Few<N, T>*>(bias + i);
#pragma unroll 4
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    auto* at = reinterpret_cast<Few<N, T>*>(x + r * width + i);
    Few<N, T> v = *at;
#pragma unroll
    for (int u = 0; u < N; ++u) v.x[u] = FromFloat<T>(ToFloat(v.x[u]) + ToFloat(add.x[u]));
    *at = v;
  }
}

constexpr int kBiasThreads = 512, kBiasWarps = kBiasThreads / 32;

// N columns a thread, kLanes * N a block; its threads take the rows in turns, a thread sums its
// own, a warp those of its lanes, and the first threads add the warps' in order.
template <int N, class T>
__global__ void __launch_bounds__(kBiasThreads)
    BiasGrad(const T* dx, int64_t rows, int64_t width, float* dbias) {
  constexpr int kLanes = N == 1 ? 32 : 2, kTurn = kBiasThreads / kLanes;
  __shared__ float part[kBiasWarps][kLanes * N];
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int64_t i = (int64_t{blockIdx.x} * kLanes + lane) * N;
  float sum[N] = {};
#pragma unroll 8
  for (int64_t r = static_cast<int>(threadIdx.x) / kLanes; r < rows; r += kTurn) {
    if (i >= width) continue;
    const auto d = *reinterpret_cast<const Few<N, T>*>(dx + r * width + i);
#pragma unroll
    for (int u = 0; u < N; ++u) sum[u] += ToFloat(d.x[u]);
  }
#pragma unroll
  for (int u = 0; u < N; ++u) {
#pragma unroll
    for (int offset = 16; offset >= kLanes; offset /= 2)
      sum[u] += __shfl_xor_sync(0xFFFFFFFFu, sum[u], offset);
    if (threadIdx.x % 32 < kLanes) part[threadIdx.x / 32][lane * N + u] = sum[u];
  }
  __syncthreads();
  const int64_t column = int64_t{blockIdx.x} * kLanes * N + threadIdx.x;
  if (threadIdx.x >= kLanes * N || column >= width) return;
  float total = dbias[column];
  for (int w = 0; w < kBiasWarps; ++w) total += part[w][threadIdx.x];
  dbias[column] = total;
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
    constexpr int kWide = Pack<T>::kSize;
    const bool wide = width % kWide == 0 && Aligned16(x) && Aligned16(bias);
    const auto kernel = wide ? Bias<kWide, T> : Bias<1, T>;
    constexpr int64_t kRows = 4, kMostY = 65535;  // rows a block; of a grid
    const int64_t turns = (rows + kRows - 1) / kRows;
    const dim3 grid(Blocks(width / (wide ? kWide : 1), 128),
                    static_cast<unsigned>(turns < kMostY ? turns : kMostY));
    kernel<<<grid, 128, 0, StreamOf(launch)>>>(static_cast<T*>(x), static_cast<const T*>(bias),
                                               rows, width);
  });
  CheckLaunch(kName);
}

void BiasBackward::Cuda(const Launch& launch) const {
  if (rows * width == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    constexpr int kWide = Pack<T>::kSize;
    const bool wide = width % kWide == 0 && Aligned16(dx);
    const auto kernel = wide ? BiasGrad<kWide, T> : BiasGrad<1, T>;
    kernel<<<Blocks(width, wide ? 2 * kWide : 32), kBiasThreads, 0, StreamOf(launch)>>>(
        static_cast<const T*>(dx), rows, width, dbias);
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
