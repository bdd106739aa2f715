// The only bridge from raw buffers to LibTorch: matrix products.
//
// Weights lie row-major as [out, in]. Element type T is Launch::dtype. Thread safety: pure functions of their buffers.
// Rows: in fp32 the result of a row does not depend on the number of rows as long as that is a multiple of kRowMultiple;
// generation pads to it (buffers have the slack).
#pragma once

#include "kernels/launch.h"

namespace plumb::policy_model::ops {

inline constexpr int64_t kRowMultiple = 4;
inline int64_t PaddedRows(int64_t rows) { return (rows + kRowMultiple - 1) / kRowMultiple * kRowMultiple; }

// y[m, n] = x[m, k] w[n, k]^T, added to y when `accumulate`.
void Linear(const kernels::Launch& launch, const void* x, const void* w, int64_t m, int64_t n, int64_t k,
            bool accumulate, void* y);
// The same with y in float: logits.
void LinearToFloat(const kernels::Launch& launch, const void* x, const void* w, int64_t m, int64_t n, int64_t k, float* y);
// dx[m, k] = dy[m, n] w[n, k], added when `accumulate`.
void LinearBackwardInput(const kernels::Launch& launch, const void* dy, const void* w, int64_t m, int64_t n, int64_t k,
                         bool accumulate, void* dx);
// dw[n, k] (float) += dy[m, n]^T x[m, k].
void LinearBackwardWeight(const kernels::Launch& launch, const void* dy, const void* x, int64_t m, int64_t n, int64_t k,
                          float* dw);

void SetThreads(int threads);
int Threads();

}  // namespace plumb::policy_model::ops
