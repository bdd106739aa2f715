// Row gather and its backward.
#pragma once

#include "kernels/launch.h"

namespace plumb::kernels {

// out[r] = table[index[r]]; table: T[*, width], out: T[rows, width]. REQUIRES: indices in range (the caller checks).
void GatherRows(const Launch& launch, const void* table, const int32_t* index, int64_t rows, int64_t width, void* out);

// grad[index[r]] += d[r] in ascending r: grad float[*, width]. The order of additions to a row of grad is fixed on the CPU.
void ScatterAddRows(const Launch& launch, const void* d, const int32_t* index, int64_t rows, int64_t width, float* grad);

// out[index[r]] = d[r], T to T: the backward of a gather with distinct indices. Other rows of out are left alone.
void ScatterRows(const Launch& launch, const void* d, const int32_t* index, int64_t rows, int64_t width, void* out);

// out[r] = sum of d[index[i]] over begins[r] <= i < begins[r + 1], added in that order in float and rounded once. d: T[*, width];
// out: T, its rows `out_stride` elements apart; begins: [rows + 1].
void SumRows(const Launch& launch, const void* d, const int32_t* index, const int32_t* begins, int64_t rows, int64_t width,
             int64_t out_stride, void* out);

// qkv[r, j] += bias[j]; T[rows, width], T[width].
void AddBias(const Launch& launch, void* x, const void* bias, int64_t rows, int64_t width);
// dbias[j] += sum over r of dx[r, j]; float[width].
void BiasBackward(const Launch& launch, const void* dx, int64_t rows, int64_t width, float* dbias);

}  // namespace plumb::kernels
