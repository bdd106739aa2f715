#include <algorithm>

#include "kernels/device/cuda_common.h"
#include "kernels/device/device_memory.h"
#include "kernels/products/expert_products.h"
#include "kernels/products/tensor_core.h"
#include "kernels/products/warpgroup_products.h"

namespace plumb::kernels {
namespace {

struct RowTile {
  int32_t expert, first, end;  // rows [first, end), at most a tile
};

// The `tile`th tile of all experts' rows; every thread of a warp asks together. expert < 0: there
// are fewer.
__device__ RowTile FindTile(const int32_t* begin, int32_t experts, int32_t tile,
                            int32_t tile_rows) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  int32_t before = 0;
  for (int32_t e0 = 0; e0 < experts; e0 += 32) {
    const int32_t e = e0 + lane;
    const int32_t rows = e < experts ? begin[e + 1] - begin[e] : 0;
    const int32_t tiles = (rows + tile_rows - 1) / tile_rows;
    int32_t up_to = tiles;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const int32_t other = __shfl_up_sync(0xFFFFFFFFu, up_to, offset);
      if (lane >= offset) up_to += other;
    }
    const unsigned behind = __ballot_sync(0xFFFFFFFFu, before + up_to > tile);
    if (behind) {
      const int owner = __ffs(static_cast<int>(behind)) - 1;
      const int32_t local = tile - before - __shfl_sync(0xFFFFFFFFu, up_to, owner) +
                            __shfl_sync(0xFFFFFFFFu, tiles, owner);
      const int32_t expert = e0 + owner, first = begin[expert] + local * tile_rows;
      return {expert, first, min(first + tile_rows, begin[expert + 1])};
    }
    before += __shfl_sync(0xFFFFFFFFu, up_to, 31);
  }
  return {-1, 0, 0};
}

constexpr int kThreads = 256;

// y[rows of a tile, 128 columns]. ByColumns: w is read as [terms][columns].
template <int TileRows, bool ByColumns>
__global__ void __launch_bounds__(kThreads)
    RowsBf16(const BFloat16* x, const BFloat16* w, const BFloat16* bias, const int32_t* begin,
             int32_t experts, int64_t n, int64_t k, int64_t x_stride, int64_t y_stride, float scale,
             bool accumulate, bool vector, BFloat16* y) {
  using Core = TensorTile<TileRows, false, ByColumns>;
  extern __shared__ __align__(16) unsigned char memory[];
  const RowTile at = FindTile(begin, experts, static_cast<int32_t>(blockIdx.y), TileRows);
  if (at.expert < 0) return;
  const int64_t terms = ByColumns ? n : k, outputs = ByColumns ? k : n,
                column = int64_t{blockIdx.x} * Core::kColumns;
  const BFloat16* matrix = w + at.expert * n * k;
  const TileSource a{x + at.first * x_stride, x_stride, at.end - at.first, terms};
  const TileSource b = ByColumns ? TileSource{matrix + column, k, terms, outputs - column}
                                 : TileSource{matrix + column * k, k, outputs - column, terms};
  Core core;
  core.Multiply(memory, a, b, terms, vector);
  core.ForEach([&](int row, int col, float even, float odd) {
    const int64_t r = at.first + row, c = column + col;
    if (r >= at.end || c >= outputs) return;
    const bool both = c + 1 < outputs;
    even *= scale, odd *= scale;
    if (bias) {
      even += ToFloat(bias[at.expert * n + c]);
      if (both) odd += ToFloat(bias[at.expert * n + c + 1]);
    }
    BFloat16* to = y + r * y_stride + c;
    if (both && reinterpret_cast<uintptr_t>(to) % 4 == 0) {
      auto* pair = reinterpret_cast<Few<2, BFloat16>*>(to);
      if (accumulate) {
        const Few<2, BFloat16> there = *pair;
        even += ToFloat(there.x[0]), odd += ToFloat(there.x[1]);
      }
      Few<2, BFloat16> out;
      out.x[0] = FromFloat<BFloat16>(even), out.x[1] = FromFloat<BFloat16>(odd);
      *pair = out;
      return;
    }
    to[0] = FromFloat<BFloat16>(accumulate ? ToFloat(to[0]) + even : even);
    if (both) to[1] = FromFloat<BFloat16>(accumulate ? ToFloat(to[1]) + odd : odd);
  });
}

// 128 x 128 of an expert's dw: all its rows are the terms.
__global__ void __launch_bounds__(kThreads)
    WeightBf16(const BFloat16* dy, const BFloat16* x, const int32_t* begin, int64_t n, int64_t k,
               int64_t dy_stride, int64_t x_stride, float scale, bool written, bool vector,
               float* dw) {
  using Core = TensorTile<128, true, true>;
  extern __shared__ __align__(16) unsigned char memory[];
  const int32_t expert = static_cast<int32_t>(blockIdx.y), first = begin[expert],
                rows = begin[expert + 1] - first;
  if (rows == 0 && !written) return;
  const int64_t across = (k + Core::kColumns - 1) / Core::kColumns;
  const int64_t row = blockIdx.x / across * 128, column = blockIdx.x % across * Core::kColumns;
  const TileSource a{dy + first * dy_stride + row, dy_stride, rows, n - row},
      b{x + first * x_stride + column, x_stride, rows, k - column};
  Core core;
  core.Multiply(memory, a, b, rows, vector);
  float* out = dw + expert * n * k;
  core.ForEach([&](int r, int c, float even, float odd) {
    if (row + r >= n || column + c >= k) return;
    float* to = out + (row + r) * k + column + c;
    to[0] = (written ? 0.0f : to[0]) + scale * even;
    if (column + c + 1 < k) to[1] = (written ? 0.0f : to[1]) + scale * odd;
  });
}

constexpr int kSide = 64, kTerms = 16;  // of a tile in float32

// 64 x 64 sums of a(i, t) b(j, t) over `terms`, 4 x 4 a thread; an operand whose terms lie one
// behind the other (Inner) is read along them.
template <bool AInner, bool BInner, class A, class B>
__device__ void MultiplyFloat(int64_t terms, const A& a, const B& b, float (&sum)[4][4]) {
  __shared__ float left[kTerms][kSide + 4], right[kTerms][kSide + 4];
  const int thread = static_cast<int>(threadIdx.x), row = thread / 16 * 4, column = thread % 16 * 4;
  const auto load = [&](bool inner, const auto& from, float(&to)[kTerms][kSide + 4], int64_t t0) {
#pragma unroll
    for (int u = 0; u < kSide * kTerms / kThreads; ++u) {
      const int i = thread + u * kThreads;
      const int side = inner ? i / kTerms : i % kSide, term = inner ? i % kTerms : i / kSide;
      to[term][side] = t0 + term < terms ? from(side, t0 + term) : 0.0f;
    }
  };
  for (int64_t t0 = 0; t0 < terms; t0 += kTerms) {
    __syncthreads();
    load(AInner, a, left, t0);
    load(BInner, b, right, t0);
    __syncthreads();
#pragma unroll
    for (int t = 0; t < kTerms; ++t) {
      const float4 l = *reinterpret_cast<const float4*>(&left[t][row]),
                   r = *reinterpret_cast<const float4*>(&right[t][column]);
      const float ls[4] = {l.x, l.y, l.z, l.w}, rs[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] += ls[i] * rs[j];
      }
    }
  }
}

template <bool ByColumns>
__global__ void __launch_bounds__(kThreads)
    RowsFloat(const float* x, const float* w, const float* bias, const int32_t* begin,
              int32_t experts, int64_t n, int64_t k, int64_t x_stride, int64_t y_stride,
              float scale, bool accumulate, float* y) {
  const RowTile at = FindTile(begin, experts, static_cast<int32_t>(blockIdx.y), kSide);
  if (at.expert < 0) return;
  const int64_t terms = ByColumns ? n : k, outputs = ByColumns ? k : n,
                column = int64_t{blockIdx.x} * kSide;
  const float* matrix = w + at.expert * n * k;
  float sum[4][4] = {};
  MultiplyFloat<true, !ByColumns>(
      terms,
      [&](int i, int64_t t) {
        return at.first + i < at.end ? x[(at.first + i) * x_stride + t] : 0.0f;
      },
      [&](int j, int64_t t) {
        if (column + j >= outputs) return 0.0f;
        return ByColumns ? matrix[t * k + column + j] : matrix[(column + j) * k + t];
      },
      sum);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t r = at.first + threadIdx.x / 16 * 4 + i, c = column + threadIdx.x % 16 * 4 + j;
      if (r >= at.end || c >= outputs) continue;
      float value = sum[i][j] * scale;
      if (bias) value += bias[at.expert * n + c];
      float& to = y[r * y_stride + c];
      to = accumulate ? to + value : value;
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    WeightFloat(const float* dy, const float* x, const int32_t* begin, int64_t n, int64_t k,
                int64_t dy_stride, int64_t x_stride, float scale, bool written, float* dw) {
  const int32_t expert = static_cast<int32_t>(blockIdx.y), first = begin[expert],
                rows = begin[expert + 1] - first;
  if (rows == 0 && !written) return;
  const int64_t across = (k + kSide - 1) / kSide;
  const int64_t row = blockIdx.x / across * kSide, column = blockIdx.x % across * kSide;
  float sum[4][4] = {};
  MultiplyFloat<false, false>(
      rows,
      [&](int i, int64_t t) { return row + i < n ? dy[(first + t) * dy_stride + row + i] : 0.0f; },
      [&](int j, int64_t t) {
        return column + j < k ? x[(first + t) * x_stride + column + j] : 0.0f;
      },
      sum);
  float* out = dw + expert * n * k;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t r = row + threadIdx.x / 16 * 4 + i, c = column + threadIdx.x % 16 * 4 + j;
      if (r < n && c < k) out[r * k + c] = (written ? 0.0f : out[r * k + c]) + scale * sum[i][j];
    }
  }
}

// 32 columns of an expert a block, as in embedding.cu.
template <class T>
__global__ void BiasGrad(const T* dy, const float* weight, const int32_t* begin, int64_t n,
                         float* dbias) {
  __shared__ float part[32][33];
  const int32_t expert = static_cast<int32_t>(blockIdx.y), end = begin[expert + 1];
  const int64_t i = int64_t{blockIdx.x} * 32 + threadIdx.x;
  float sum = 0;
  for (int64_t s = begin[expert] + static_cast<int32_t>(threadIdx.y); s < end && i < n; s += 32)
    sum += (weight ? weight[s] : 1.0f) * ToFloat(dy[s * n + i]);
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || i >= n) return;
  float total = dbias[expert * n + i];
  for (int w = 0; w < 32; ++w) total += part[w][threadIdx.x];
  dbias[expert * n + i] = total;
}

// One block a row.
template <class T>
__global__ void BiasAlong(const T* dy, const T* bias, const int32_t* begin, int32_t experts,
                          int64_t n, float* dweight) {
  const RowTile at = FindTile(begin, experts, static_cast<int32_t>(blockIdx.x), 1);
  if (at.expert < 0) return;
  float sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
    sum += ToFloat(dy[at.first * n + i]) * ToFloat(bias[at.expert * n + i]);
  sum = BlockSum(sum);
  if (threadIdx.x == 0) dweight[at.first] += sum;
}

// [rows, columns] to [columns, rows], 32 x 32 a block.
template <bool Add, class T>
__global__ void Turn(const T* x, int64_t rows, int64_t columns, T* out) {
  __shared__ T tile[32][33];
  const int64_t row = int64_t{blockIdx.x} * 32, column = int64_t{blockIdx.y} * 32;
  for (int i = static_cast<int>(threadIdx.y); i < 32; i += 8) {
    if (row + i < rows && column + threadIdx.x < columns)
      tile[i][threadIdx.x] = x[(row + i) * columns + column + threadIdx.x];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.y); i < 32; i += 8) {
    if (column + i >= columns || row + threadIdx.x >= rows) continue;
    T& to = out[(column + i) * rows + row + threadIdx.x];
    if constexpr (Add) to += tile[threadIdx.x][i];
    else to = tile[threadIdx.x][i];
  }
}

// Tiles of all experts together, at most.
unsigned Tiles(const ExpertGroups& groups, int64_t tile_rows) {
  return static_cast<unsigned>(groups.rows / tile_rows +
                               std::min<int64_t>(groups.experts, groups.rows));
}

template <int TileRows>
void LaunchRows(const Launch& launch, const ExpertProduct& p) {
  const int64_t inputs = p.by_columns ? p.n : p.k, outputs = p.by_columns ? p.k : p.n,
                x_stride = p.x_stride ? p.x_stride : inputs,
                y_stride = p.y_stride ? p.y_stride : outputs;
  const bool vector = Aligned16(p.x) && Aligned16(p.w) && x_stride % 8 == 0 && p.k % 8 == 0;
  const dim3 grid(static_cast<unsigned>((outputs + 127) / 128), Tiles(p.groups, TileRows));
  const auto go = [&](auto kernel, int bytes) {
    CheckCuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
              "to give ExpertProduct its shared memory");
    kernel<<<grid, kThreads, bytes, StreamOf(launch)>>>(
        static_cast<const BFloat16*>(p.x), static_cast<const BFloat16*>(p.w),
        static_cast<const BFloat16*>(p.bias), p.groups.begin, p.groups.experts, p.n, p.k, x_stride,
        y_stride, p.scale, p.accumulate, vector, static_cast<BFloat16*>(p.y));
  };
  if (p.by_columns) go(RowsBf16<TileRows, true>, TensorTile<TileRows, false, true>::kBytes);
  else go(RowsBf16<TileRows, false>, TensorTile<TileRows, false, false>::kBytes);
}

}  // namespace

void ExpertProduct::Cuda(const Launch& launch) const {
  if (groups.rows == 0 || WarpgroupProduct(launch, *this)) return;
  if (launch.dtype == DType::kBFloat16) {
    // As many rows a tile as an expert has, about: a row's bits are the same in each.
    const int64_t each = groups.rows / groups.experts;
    if (each >= 96) LaunchRows<128>(launch, *this);
    else if (each >= 24) LaunchRows<64>(launch, *this);
    else LaunchRows<16>(launch, *this);
  } else {
    const int64_t outputs = by_columns ? k : n;
    const int64_t from = x_stride ? x_stride : (by_columns ? n : k),
                  to = y_stride ? y_stride : outputs;
    const dim3 grid(static_cast<unsigned>((outputs + kSide - 1) / kSide), Tiles(groups, kSide));
    const auto kernel = by_columns ? RowsFloat<true> : RowsFloat<false>;
    kernel<<<grid, kThreads, 0, StreamOf(launch)>>>(
        static_cast<const float*>(x), static_cast<const float*>(w), static_cast<const float*>(bias),
        groups.begin, groups.experts, n, k, from, to, scale, accumulate, static_cast<float*>(y));
  }
  CheckLaunch(kName);
}

void GatedExpertProduct::Cuda(const Launch& launch) const {
  if (groups.rows == 0 || WarpgroupProduct(launch, *this)) return;
  ForEachPart(groups.rows, [&](const auto& part) { part.Cuda(launch); });
}

void GatedExpertBackward::Cuda(const Launch& launch) const {
  if (groups.rows == 0 || WarpgroupProduct(launch, *this)) return;
  ForEachPart(groups.rows, [&](const auto& part) { part.Cuda(launch); });
  if (Parts(ffn) > 1) {
    Zero(launch.stream, dweight + groups.rows,
         static_cast<size_t>((Parts(ffn) - 1) * groups.rows) * sizeof(float));
  }
}

void GatedExpertGradients::Cuda(const Launch& launch) const {
  if (groups.rows == 0 || WarpgroupProduct(launch, *this)) return;
  ForEachPart(groups.rows, [&](const auto& part) { part.Cuda(launch); });
}

void ExpertWeightProduct::Cuda(const Launch& launch) const {
  if (groups.rows == 0 || WarpgroupProduct(launch, *this)) return;
  const int64_t side = launch.dtype == DType::kBFloat16 ? 128 : kSide,
                from_dy = dy_stride ? dy_stride : n, from_x = x_stride ? x_stride : k;
  const dim3 grid(static_cast<unsigned>(((n + side - 1) / side) * ((k + side - 1) / side)),
                  static_cast<unsigned>(groups.experts));
  if (launch.dtype == DType::kBFloat16) {
    constexpr int kBytes = TensorTile<128, true, true>::kBytes;
    CheckCuda(cudaFuncSetAttribute(WeightBf16, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
              "to give ExpertWeightProduct its shared memory");
    WeightBf16<<<grid, kThreads, kBytes, StreamOf(launch)>>>(
        static_cast<const BFloat16*>(dy), static_cast<const BFloat16*>(x), groups.begin, n, k,
        from_dy, from_x, scale, written,
        Aligned16(dy) && from_dy % 8 == 0 && Aligned16(x) && from_x % 8 == 0, dw);
  } else {
    WeightFloat<<<grid, kThreads, 0, StreamOf(launch)>>>(static_cast<const float*>(dy),
                                                         static_cast<const float*>(x), groups.begin,
                                                         n, k, from_dy, from_x, scale, written, dw);
  }
  CheckLaunch(kName);
}

void ExpertBiasSums::Cuda(const Launch& launch) const {
  if (groups.rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    if (dbias) {
      BiasGrad<<<dim3(Blocks(n, 32), static_cast<unsigned>(groups.experts)), dim3(32, 32), 0,
                 StreamOf(launch)>>>(static_cast<const T*>(dy), weight, groups.begin, n, dbias);
      CheckLaunch("ExpertBiasSums (bias)");
    }
    if (!dweight) return;
    BiasAlong<<<static_cast<unsigned>(groups.rows), 128, 0, StreamOf(launch)>>>(
        static_cast<const T*>(dy), static_cast<const T*>(bias), groups.begin, groups.experts, n,
        dweight);
    CheckLaunch("ExpertBiasSums (weight)");
  });
}

void SplitByExpert::Cuda(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    Turn<false><<<dim3(Blocks(count, 32), Blocks(experts, 32)), dim3(32, 8), 0, StreamOf(launch)>>>(
        static_cast<const T*>(x), count, experts, static_cast<T*>(out));
  });
  CheckLaunch(kName);
}

void JoinByExpert::Cuda(const Launch& launch) const {
  Turn<true><<<dim3(Blocks(experts, 32), Blocks(count, 32)), dim3(32, 8), 0, StreamOf(launch)>>>(
      x, experts, count, out);
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
