// RMSNorm of each head, times a gate: y = w x rstd(x) silu(z), w of one head's size.
//
// z lies in columns of wider rows. Thread safety, alignment: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct GatedNorm {
  static constexpr const char* kName = "GatedNorm";
  const void* x = nullptr;  // T[rows, heads * dim]
  const void* z = nullptr;  // T[heads * dim], rows z_stride apart
  const void* w = nullptr;  // T[dim]
  int64_t rows = 0, z_stride = 0;
  int32_t heads = 0, dim = 0;
  float eps = 0;
  void* y = nullptr;  // T[rows, heads * dim]; may be x
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

inline constexpr int64_t kGatedNormScratchRows = 64;

// The order in which dw is summed is fixed for a given number of rows.
struct GatedNormBackward {
  static constexpr const char* kName = "GatedNormBackward";
  const void* dy = nullptr;
  const void* x = nullptr;  // as of the forward
  const void* z = nullptr;
  const void* w = nullptr;
  int64_t rows = 0, z_stride = 0;
  int32_t heads = 0, dim = 0;
  float eps = 0;
  void* dx = nullptr;        // T[rows, heads * dim], written; may be dy
  void* dz = nullptr;        // T[heads * dim], rows z_stride apart, written
  float* dw = nullptr;       // [dim], added to; nullptr: not wanted
  float* scratch = nullptr;  // [kGatedNormScratchRows, dim]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
