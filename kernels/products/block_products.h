// Products of small float matrices by one block of 256 threads: what delta/tiles.h is to a thread.
//
// Operands and results are given as functions of their indices, and lie wherever these read and
// write: mostly in a work area of the block's own. Sums are taken in ascending order of their
// terms. A product ends with a barrier: what it stored is there for the whole block. Included by
// .cu files only. Thread safety: of its block; all threads call. REQUIRES: blockDim.x == 256.
#pragma once

#include "kernels/device/cuda_common.h"

namespace plumb::kernels {

inline constexpr int kBlockThreads = 256;
inline constexpr int kSolveRows = 16;  // that are solved column by column

// The tiles of all products of a kernel, one after the other.
struct ProductTiles {
  static constexpr int kSide = 64, kTerms = 32;
  float left[kTerms][kSide + 4], right[kTerms][kSide + 4];
  float near[kSolveRows][kSolveRows + 1];
};
__device__ inline ProductTiles& SharedTiles() {
  __shared__ __align__(16) ProductTiles tiles;
  return tiles;
}

// store(i, j, sum over t of a(i, t) b(t, j)) for all i < rows, j < columns. AInner: a lies with its
// terms one behind the other, BInner: so does b; reads go along what lies so.
template <bool AInner, bool BInner, class A, class B, class Store>
__device__ void BlockProduct(int rows, int columns, int terms, const A& a, const B& b,
                             const Store& store) {
  constexpr int kSide = ProductTiles::kSide, kTerms = ProductTiles::kTerms;
  auto& left = SharedTiles().left;
  auto& right = SharedTiles().right;
  const int thread = static_cast<int>(threadIdx.x), row = thread / 16 * 4, column = thread % 16 * 4;
  for (int i0 = 0; i0 < rows; i0 += kSide) {
    for (int j0 = 0; j0 < columns; j0 += kSide) {
      float sum[4][4] = {};
      for (int t0 = 0; t0 < terms; t0 += kTerms) {
        __syncthreads();
#pragma unroll
        for (int u = 0; u < kSide * kTerms / kBlockThreads; ++u) {
          const int at = thread + u * kBlockThreads;
          const int i = AInner ? at / kTerms : at % kSide, ti = AInner ? at % kTerms : at / kSide;
          left[ti][i] = t0 + ti < terms && i0 + i < rows ? a(i0 + i, t0 + ti) : 0.0f;
          const int j = BInner ? at / kTerms : at % kSide, tj = BInner ? at % kTerms : at / kSide;
          right[tj][j] = t0 + tj < terms && j0 + j < columns ? b(t0 + tj, j0 + j) : 0.0f;
        }
        __syncthreads();
        const int there = min(kTerms, terms - t0);
        for (int t = 0; t < there; ++t) {
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
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if (i0 + row + i < rows && j0 + column + j < columns)
            store(i0 + row + i, j0 + column + j, sum[i][j]);
        }
      }
    }
  }
  __syncthreads();
}

// (1 - t) x = x in place for x [n, width], t(i, j) a strictly lower triangle; or, when `Turned`,
// (1 - t)^T x = x.
template <bool Turned, class Triangle>
__device__ void BlockSolve(int n, int width, const Triangle& t, float* x) {
  auto& near = SharedTiles().near;
  const int thread = static_cast<int>(threadIdx.x), blocks = (n + kSolveRows - 1) / kSolveRows;
  for (int step = 0; step < blocks; ++step) {
    const int first = (Turned ? blocks - 1 - step : step) * kSolveRows,
              rows = min(kSolveRows, n - first);
    // What the rows that are done add.
    const int done = Turned ? n - first - rows : first, from = Turned ? first + rows : 0;
    if (done > 0) {
      BlockProduct<!Turned, false>(
          rows, width, done,
          [&](int i, int k) { return Turned ? t(from + k, first + i) : t(first + i, from + k); },
          [&](int k, int j) { return x[(from + k) * width + j]; },
          [&](int i, int j, float sum) { x[(first + i) * width + j] += sum; });
    }
    {
      const int i = thread / kSolveRows, k = thread % kSolveRows;
      const bool there = i < rows && k < rows && k < i;
      const float value = there ? t(first + i, first + k) : 0.0f;
      if (Turned) near[k][i] = value;
      else near[i][k] = value;
    }
    __syncthreads();
    for (int j = thread; j < width; j += kBlockThreads) {
      float own[kSolveRows];
#pragma unroll
      for (int i = 0; i < kSolveRows; ++i) own[i] = i < rows ? x[(first + i) * width + j] : 0.0f;
#pragma unroll
      for (int at = 1; at < kSolveRows; ++at) {
        const int i = Turned ? kSolveRows - 1 - at : at;
#pragma unroll
        for (int k = 0; k < kSolveRows; ++k) {
          if (Turned ? k > i : k < i) own[i] += near[i][k] * own[k];
        }
      }
#pragma unroll
      for (int i = 0; i < kSolveRows; ++i) {
        if (i < rows) x[(first + i) * width + j] = own[i];
      }
    }
    __syncthreads();
  }
}

}  // namespace plumb::kernels
