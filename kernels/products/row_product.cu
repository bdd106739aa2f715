#include "kernels/device/cuda_common.h"
#include "kernels/products/lt_products.h"
#include "kernels/products/row_product.h"
#include "kernels/products/tensor_core.h"

namespace plumb::kernels {
namespace {

constexpr int kThreads = 256, kSide = 16;  // kSide: of a tile in float32

template <class Y>
__device__ void Finish(const Y* residual, const Y* bias, int64_t row, int64_t column, int64_t n,
                       float sum, Y* y) {
  const int64_t at = row * n + column;
  if (residual) sum += ToFloat(residual[at]);
  if (bias) sum += ToFloat(bias[column]);
  y[at] = FromFloat<Y>(sum);
}

// y[TileRows, 128] a block; the order of a sum does not depend on TileRows.
template <int TileRows, class Y>
__global__ void __launch_bounds__(kThreads)
    TileBf16(const BFloat16* x, const BFloat16* w, const Y* residual, const Y* bias, int64_t m,
             int64_t n, int64_t k, bool vector, Y* y) {
  using Core = TensorTile<TileRows, false, false>;
  extern __shared__ __align__(16) unsigned char memory[];
  const int64_t across = (n + Core::kColumns - 1) / Core::kColumns,
                row = int64_t{blockIdx.x} / across * TileRows,
                column = int64_t{blockIdx.x} % across * Core::kColumns;
  Core core;
  core.Multiply(memory, TileSource{x + row * k, k, m - row, k},
                TileSource{w + column * k, k, n - column, k}, k, vector);
  core.ForEach([&](int r, int c, float even, float odd) {
    if (row + r >= m || column + c >= n) return;
    Finish(residual, bias, row + r, column + c, n, even, y);
    if (column + c + 1 < n) Finish(residual, bias, row + r, column + c + 1, n, odd, y);
  });
}

// 16 x 16 outputs a block, one a thread, k in ascending order.
__global__ void __launch_bounds__(kThreads)
    TileFloat(const float* x, const float* w, const float* residual, const float* bias, int64_t m,
              int64_t n, int64_t k, float* y) {
  __shared__ float left[kSide][kSide + 1], right[kSide][kSide + 1];
  const int down = static_cast<int>(threadIdx.x) / kSide,
            across = static_cast<int>(threadIdx.x) % kSide;
  const int64_t tiles = (n + kSide - 1) / kSide, row = int64_t{blockIdx.x} / tiles * kSide,
                column = int64_t{blockIdx.x} % tiles * kSide;
  float sum = 0;
  for (int64_t t = 0; t < k; t += kSide) {
    __syncthreads();  // the last tile's readers are done
    const bool term = t + across < k;
    left[down][across] = term && row + down < m ? x[(row + down) * k + t + across] : 0.0f;
    right[down][across] = term && column + down < n ? w[(column + down) * k + t + across] : 0.0f;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kSide; ++i) sum += left[down][i] * right[across][i];
  }
  if (row + down < m && column + across < n)
    Finish(residual, bias, row + down, column + across, n, sum, y);
}

template <int TileRows, class Y>
void LaunchBf16(const Launch& launch, const RowProduct& p) {
  constexpr int kBytes = TensorTile<TileRows, false, false>::kBytes;
  const auto kernel = TileBf16<TileRows, Y>;
  CheckCuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
            "to give RowProduct its shared memory");
  const int64_t blocks = (p.n + 127) / 128 * ((p.m + TileRows - 1) / TileRows);
  kernel<<<static_cast<unsigned>(blocks), kThreads, kBytes, StreamOf(launch)>>>(
      static_cast<const BFloat16*>(p.x), static_cast<const BFloat16*>(p.w),
      static_cast<const Y*>(p.residual), static_cast<const Y*>(p.bias), p.m, p.n, p.k,
      Aligned16(p.x) && Aligned16(p.w) && p.k % 8 == 0, static_cast<Y*>(p.y));
}

template <class Y>
void LaunchTiles(const Launch& launch, const RowProduct& p) {
  if (p.m <= 16) LaunchBf16<16, Y>(launch, p);
  else LaunchBf16<64, Y>(launch, p);
}

// Of sizes and addresses alone: n and k say it for all rows.
bool ForLibrary(const RowProduct& p) {
  return p.n % 8 == 0 && p.k % 8 == 0 && Aligned16(p.x) && Aligned16(p.w) && Aligned16(p.y) &&
         (!p.residual || Aligned16(p.residual)) && (!p.bias || Aligned16(p.bias));
}

}  // namespace

void RowProduct::Cuda(const Launch& launch) const {
  PLUMB_CHECK(y_dtype == launch.dtype || y_dtype == DType::kFloat32);
  if (m == 0 || n == 0) return;
  if (k > 0 && ForLibrary(*this) && LtProduct(launch, *this)) return;
  if (launch.dtype == DType::kBFloat16) {
    if (y_dtype == DType::kBFloat16) LaunchTiles<BFloat16>(launch, *this);
    else LaunchTiles<float>(launch, *this);
  } else {
    const int64_t blocks = (n + kSide - 1) / kSide * ((m + kSide - 1) / kSide);
    TileFloat<<<static_cast<unsigned>(blocks), kThreads, 0, StreamOf(launch)>>>(
        static_cast<const float*>(x), static_cast<const float*>(w),
        static_cast<const float*>(residual), static_cast<const float*>(bias), m, n, k,
        static_cast<float*>(y));
  }
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
