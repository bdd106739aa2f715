// fp32 matrix product whose rows do not depend on one another: generation's product on the CPU.
//
// Library products choose their blocking by the number of rows, so a row's last bits change with the batch (measured:
// LibTorch's sgemm differs between 4, 8, 16, ... and 320 rows from k = 96 on). Here every output is one running sum over
// k in ascending order, whatever the number of rows and threads.
#pragma once

#include "kernels/launch.h"

namespace plumb::kernels {

// y[m, n] = x[m, k] w[n, k]^T, added to y when `accumulate` (the sum over k is finished first). Any m >= 1; float only.
// CPU only: on CUDA products go through LibTorch.
void GemmRows(const Launch& launch, const float* x, const float* w, int64_t m, int64_t n, int64_t k, bool accumulate,
              float* y);

}  // namespace plumb::kernels
