// Moves of whole rows, their backwards, and biases.
// Thread safety, alignment, errors: kernels/device/launch.h. REQUIRES: indices in range (the caller
// checks).
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

// out[r] = scale * table[index[r]].
struct GatherRows {
  static constexpr const char* kName = "GatherRows";
  const void* table = nullptr;     // T[*, width]
  const int32_t* index = nullptr;  // [rows]
  int64_t rows = 0, width = 0;
  void* out = nullptr;  // T[rows, width]
  float scale = 1;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// grad[index[r]] += scale * d[r] in ascending r. The order of additions to a row of grad is fixed
// on the CPU.
struct ScatterAddRows {
  static constexpr const char* kName = "ScatterAddRows";
  const void* d = nullptr;         // T[rows, width]
  const int32_t* index = nullptr;  // [rows]
  int64_t rows = 0, width = 0;
  float* grad = nullptr;  // [*, width]
  float scale = 1;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// out[index[r]] = d[r]: the backward of a gather with distinct indices. Other rows of out are left
// alone.
struct ScatterRows {
  static constexpr const char* kName = "ScatterRows";
  const void* d = nullptr;         // T[rows, width]
  const int32_t* index = nullptr;  // [rows]
  int64_t rows = 0, width = 0;
  void* out = nullptr;  // T[*, width]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// out[r] = sum of d[index[i]] over begins[r] <= i < begins[r + 1], added in that order in float and
// rounded once.
struct SumRows {
  static constexpr const char* kName = "SumRows";
  const void* d = nullptr;          // T[*, width]
  const int32_t* index = nullptr;   // [begins[rows]]
  const int32_t* begins = nullptr;  // [rows + 1]
  int64_t rows = 0, width = 0;
  int64_t out_stride = 0;  // elements between rows of out
  void* out = nullptr;     // T
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// y[i] += scale * x[i]: a branch joins the residual stream, or its gradient does.
struct AddScaled {
  static constexpr const char* kName = "AddScaled";
  const void* x = nullptr;  // T[n]
  int64_t n = 0;
  float scale = 1;
  void* y = nullptr;  // T[n]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// x[r, j] += bias[j].
struct AddBias {
  static constexpr const char* kName = "AddBias";
  void* x = nullptr;           // T[rows, width]
  const void* bias = nullptr;  // T[width]
  int64_t rows = 0, width = 0;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// dbias[j] += sum over r of dx[r, j].
struct BiasBackward {
  static constexpr const char* kName = "BiasBackward";
  const void* dx = nullptr;  // T[rows, width]
  int64_t rows = 0, width = 0;
  float* dbias = nullptr;  // [width]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
