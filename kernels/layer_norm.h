// LayerNorm (Ba, Kiros and Hinton, "Layer Normalization", 2016): y = (x - mean) * rstd * w + b,
// rstd = (mean((x - mean)^2) + eps)^-1/2. Thread safety, alignment, errors:
// kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct LayerNorm {
  static constexpr const char* kName = "LayerNorm";
  const void* x = nullptr;  // T[rows, hidden]
  const void* w = nullptr;  // T[hidden]
  const void* b = nullptr;  // T[hidden]
  int64_t rows = 0, hidden = 0;
  float eps = 0;
  void* y = nullptr;      // T[rows, hidden]; may be x
  float* rstd = nullptr;  // [rows], or nullptr
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Blocks of rows whose gradients are summed apart; a block has two rows of scratch memory.
inline constexpr int64_t kLayerNormBlocks = 32;

// The mean is computed from x again. The order in which dw and db are summed over rows is fixed for
// a given number of rows (not of threads).
struct LayerNormBackward {
  static constexpr const char* kName = "LayerNormBackward";
  const void* dy = nullptr;     // T[rows, hidden]
  const void* x = nullptr;      // T[rows, hidden]
  const void* w = nullptr;      // T[hidden]
  const float* rstd = nullptr;  // [rows]
  int64_t rows = 0, hidden = 0;
  bool accumulate_dx = false;  // dx is added to (the residual's gradient), else written
  void* dx = nullptr;          // T[rows, hidden]; may be dy unless accumulate_dx
  float* dw = nullptr;         // [hidden], added to; nullptr: not wanted, as db
  float* db = nullptr;
  float* scratch = nullptr;  // [2 * kLayerNormBlocks, hidden]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
