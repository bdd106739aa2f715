// fp32 matrix product whose rows do not depend on one another: generation's product on the CPU.
//
// Library products choose their blocking by the number of rows, so a row's last bits change with
// the batch (measured: LibTorch's sgemm differs between 4, 8, 16, ... and 320 rows from k = 96 on).
// Here every output is one running sum over k in ascending order, whatever the number of rows and
// threads.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

// y[m, n] = x[m, k] w[n, k]^T, added to y when `accumulate` (the sum over k is finished first). Any
// m >= 1; float only.
// CPU only: on CUDA products go through LibTorch.
struct GemmRows {
  static constexpr const char* kName = "GemmRows (on CUDA: cuBLAS, through policy_model/ops)";
  const float* x = nullptr;  // [m, k]
  const float* w = nullptr;  // [n, k]
  int64_t m = 0, n = 0, k = 0;
  bool accumulate = false;
  float* y = nullptr;  // [m, n]
  void Cpu(const Launch& launch) const;
};

}  // namespace plumb::kernels
