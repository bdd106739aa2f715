// The bridge from raw buffers to LibTorch: matrix products (attention.h is its neighbour).
//
// Weights lie row-major as [out, in]. Element type T is Launch::dtype. Thread safety: pure
// functions of their buffers. On a GPU they are enqueued on Launch::stream; a step can be captured
// in a graph once it has run on that stream by the same thread, which takes their workspace. There
// Linear and LinearToFloat are RowProducts (kernels/products/row_product.h), unless run.exact is
// off. On the CPU LibTorch's fp32 products choose their blocking by the number of rows: a row's
// last bits change with the batch. The *Rows forms do not, and generation uses them; under
// kernels::SetExactOnCpu both are one product.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::policy_model::ops {

// y[m, n] = x[m, k] w[n, k]^T, added to y when `accumulate`.
void Linear(const kernels::Launch& launch, const void* x, const void* w, int64_t m, int64_t n,
            int64_t k, bool accumulate, void* y);
// The same with y in float: logits.
void LinearToFloat(const kernels::Launch& launch, const void* x, const void* w, int64_t m,
                   int64_t n, int64_t k, float* y);
// Both once more, each row independent of the others (fp32 on the CPU: bit for bit).
void LinearRows(const kernels::Launch& launch, const void* x, const void* w, int64_t m, int64_t n,
                int64_t k, bool accumulate, void* y);
void LinearRowsToFloat(const kernels::Launch& launch, const void* x, const void* w, int64_t m,
                       int64_t n, int64_t k, float* y);
// dx[m, k] = dy[m, n] w[n, k], added when `accumulate`.
void LinearBackwardInput(const kernels::Launch& launch, const void* dy, const void* w, int64_t m,
                         int64_t n, int64_t k, bool accumulate, void* dx);
// dw[n, k] (float) += dy[m, n]^T x[m, k]; written when not `accumulate`.
void LinearBackwardWeight(const kernels::Launch& launch, const void* dy, const void* x, int64_t m,
                          int64_t n, int64_t k, float* dw, bool accumulate = true);

// The same of bfloat16 written as bfloat16, summed in float and rounded once. On a GPU.
void LinearBackwardWeightNarrow(const kernels::Launch& launch, const void* dy, const void* x,
                                int64_t m, int64_t n, int64_t k, BFloat16* dw);

// A low-rank matrix beside w in one product, where that is the CPU's own (JoinsLowRank): what it
// adds costs its terms and no pass over the result.
struct LowRankOperands {
  const void* rows = nullptr;    // T[m, rank]
  const void* matrix = nullptr;  // T[n, rank] forward, T[rank, k] backward
  int64_t rank = 0;
};
bool JoinsLowRank(const kernels::Launch& launch);
// y (+)= x w^T + rows matrix^T; dx (+)= dy w + rows matrix. REQUIRES: JoinsLowRank.
void LinearJoined(const kernels::Launch& launch, const void* x, const void* w, int64_t m, int64_t n,
                  int64_t k, const LowRankOperands& more, bool accumulate, void* y);
void LinearBackwardInputJoined(const kernels::Launch& launch, const void* dy, const void* w,
                               int64_t m, int64_t n, int64_t k, const LowRankOperands& more,
                               bool accumulate, void* dx);

// x[n] *= scale.
void Scale(const kernels::Launch& launch, int64_t n, float scale, void* x);
// x[n] rounded to T.
void Round(const kernels::Launch& launch, const float* x, int64_t n, void* out);
// x[n] = sigmoid(x), and of the gradient d of such a y: d *= y (1 - y).
void Sigmoid(const kernels::Launch& launch, int64_t n, float* x);
void SigmoidBackward(const kernels::Launch& launch, const float* y, int64_t n, float* d);
// Columns [first, first + n) of y[m, width]: x[m, n] is added to them, or they are copied to x.
void AddToColumns(const kernels::Launch& launch, const void* x, int64_t m, int64_t n, int64_t width,
                  int64_t first, void* y);
void CopyColumns(const kernels::Launch& launch, const void* y, int64_t m, int64_t width,
                 int64_t first, int64_t n, void* x);

void SetThreads(int threads);
int Threads();

}  // namespace plumb::policy_model::ops
