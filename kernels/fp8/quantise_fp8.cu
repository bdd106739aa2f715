#include <cuda_fp8.h>

#include "kernels/device/cuda_common.h"
#include "kernels/fp8/quantise_fp8.h"

namespace plumb::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 64;       // columns and rows that are turned together
constexpr int64_t kTall = 512;  // rows that a block looks through for its columns' largest

// C::Code with the processor's own instruction where it has one: the same rounding and saturation.
template <class C>
__device__ __forceinline__ uint8_t CodeOf(float x) {
#if __CUDA_ARCH__ >= 890
  constexpr auto kFormat = C::kMostBits == E4M3::kMostBits ? __NV_E4M3 : __NV_E5M2;
  return static_cast<uint8_t>(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, kFormat));
#else
  return C::Code(x);
#endif
}

// A block a row; twice over it, the second time out of the cache.
template <class C, bool Wide, class T>
__global__ void __launch_bounds__(kThreads)
    Rows(const T* x, int64_t rows, int64_t columns, uint8_t* codes, float* scale) {
  constexpr int kEach = Wide ? Pack<T>::kSize : 1;
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    const T* const row = x + r * columns;
    float largest = 0;
    for (int64_t c = int64_t{threadIdx.x} * kEach; c < columns; c += kThreads * kEach) {
      if constexpr (Wide) {
        const Pack<T> p = LoadPack(row + c);
#pragma unroll
        for (int u = 0; u < kEach; ++u) largest = fmaxf(largest, fabsf(ToFloat(p.x[u])));
      } else {
        largest = fmaxf(largest, fabsf(ToFloat(row[c])));
      }
    }
    const float of_row = Fp8Scale<C>(BlockMax(largest)), inverse = 1.0f / of_row;
    if (threadIdx.x == 0) scale[r] = of_row;
    for (int64_t c = int64_t{threadIdx.x} * kEach; c < columns; c += kThreads * kEach) {
      if constexpr (Wide) {
        const Pack<T> p = LoadPack(row + c);
        Few<kEach, uint8_t> out;
#pragma unroll
        for (int u = 0; u < kEach; ++u) out.x[u] = CodeOf<C>(ToFloat(p.x[u]) * inverse);
        *reinterpret_cast<Few<kEach, uint8_t>*>(codes + r * columns + c) = out;
      } else {
        codes[r * columns + c] = CodeOf<C>(ToFloat(row[c]) * inverse);
      }
    }
  }
}

// largest[c], which was 0, is the magnitude of some rows of the column, whatever their order.
template <class T>
__global__ void __launch_bounds__(kThreads)
    ColumnLargest(const T* x, int64_t rows, int64_t columns, float* largest) {
  const int64_t c = int64_t{blockIdx.x} * kTile + threadIdx.x % kTile;
  const int64_t first = int64_t{blockIdx.y} * kTall,
                end = first + kTall < rows ? first + kTall : rows;
  float most = 0;
  if (c < columns) {
    for (int64_t r = first + threadIdx.x / kTile; r < end; r += kThreads / kTile)
      most = fmaxf(most, fabsf(ToFloat(x[r * columns + c])));
  }
  __shared__ float part[kThreads];
  part[threadIdx.x] = most;
  __syncthreads();
  if (threadIdx.x >= kTile || c >= columns) return;
#pragma unroll
  for (int i = 1; i < kThreads / kTile; ++i) most = fmaxf(most, part[threadIdx.x + i * kTile]);
  // Of numbers that are not negative the order of bits is theirs.
  atomicMax(reinterpret_cast<int*>(largest + c), __float_as_int(most));
}

template <class C, class T>
__global__ void __launch_bounds__(kThreads)
    Turn(const T* x, int64_t rows, int64_t columns, const float* largest, uint8_t* codes) {
  __shared__ uint8_t tile[kTile][kTile + 4];
  __shared__ float inverse[kTile];
  const int64_t c0 = int64_t{blockIdx.x} * kTile, r0 = int64_t{blockIdx.y} * kTile;
  if (threadIdx.x < kTile && c0 + threadIdx.x < columns)
    inverse[threadIdx.x] = 1.0f / Fp8Scale<C>(largest[c0 + threadIdx.x]);
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kTile * kTile / kThreads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + kThreads * i, r = at / kTile, c = at % kTile;
    if (r0 + r < rows && c0 + c < columns)
      tile[c][r] = CodeOf<C>(ToFloat(x[(r0 + r) * columns + c0 + c]) * inverse[c]);
  }
  __syncthreads();
  if (rows % 4 == 0 && reinterpret_cast<uintptr_t>(codes) % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kTile * kTile / 4 / kThreads; ++i) {
      const int at = static_cast<int>(threadIdx.x) + kThreads * i, c = at / (kTile / 4),
                r = at % (kTile / 4) * 4;
      if (r0 + r < rows && c0 + c < columns)
        *reinterpret_cast<uint32_t*>(codes + (c0 + c) * rows + r0 + r) =
            *reinterpret_cast<const uint32_t*>(&tile[c][r]);
    }
    return;
  }
  for (int at = static_cast<int>(threadIdx.x); at < kTile * kTile; at += kThreads) {
    const int c = at / kTile, r = at % kTile;
    if (r0 + r < rows && c0 + c < columns) codes[(c0 + c) * rows + r0 + r] = tile[c][r];
  }
}

template <class C>
__global__ void ToScales(int64_t columns, float* largest) {
  const int64_t c = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (c < columns) largest[c] = Fp8Scale<C>(largest[c]);
}

}  // namespace

void QuantiseRows::Cuda(const Launch& launch) const {
  if (rows == 0 || columns == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    ForFp8(format, [&]<class C>(C) {
      constexpr int kEach = Pack<T>::kSize;
      const bool wide = columns % kEach == 0 && Aligned16(x) && Aligned16(codes);
      const auto kernel = wide ? Rows<C, true, T> : Rows<C, false, T>;
      kernel<<<Blocks(rows, 1), kThreads, 0, StreamOf(launch)>>>(static_cast<const T*>(x), rows,
                                                                 columns, codes, scale);
    });
  });
  CheckLaunch(kName);
}

void QuantiseColumns::Cuda(const Launch& launch) const {
  if (rows == 0 || columns == 0) return;
  CheckCuda(
      cudaMemsetAsync(scale, 0, static_cast<size_t>(columns) * sizeof(float), StreamOf(launch)),
      "to zero what the largest of columns is");
  const auto wide = static_cast<unsigned>((columns + kTile - 1) / kTile);
  const dim3 looks(wide, static_cast<unsigned>((rows + kTall - 1) / kTall)),
      turns(wide, static_cast<unsigned>((rows + kTile - 1) / kTile));
  PLUMB_CHECK(turns.y <= 65535, "more rows than a grid has");
  ForDType(launch.dtype, [&]<class T>(T) {
    ForFp8(format, [&]<class C>(C) {
      const auto* from = static_cast<const T*>(x);
      ColumnLargest<<<looks, kThreads, 0, StreamOf(launch)>>>(from, rows, columns, scale);
      Turn<C><<<turns, kThreads, 0, StreamOf(launch)>>>(from, rows, columns, scale, codes);
      ToScales<C><<<Blocks(columns, kThreads), kThreads, 0, StreamOf(launch)>>>(columns, scale);
    });
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
