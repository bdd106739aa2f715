// RMSNorm (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019): y = x * rstd *
// (weight_offset + w), rstd = (mean(x^2) + eps)^-1/2. weight_offset is 1 where a family stores its
// weights as their distance from 1 (Gemma). Thread safety, alignment, errors:
// kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct RmsNorm {
  static constexpr const char* kName = "RmsNorm";
  const void* x = nullptr;  // T[rows, hidden]
  const void* w = nullptr;  // T[hidden]
  int64_t rows = 0, hidden = 0;
  float eps = 0;
  float weight_offset = 0;
  void* y = nullptr;      // T[rows, hidden]; may be x
  float* rstd = nullptr;  // [rows], or nullptr
  void* copy = nullptr;   // T[rows, hidden], neither x nor y: becomes x; nullptr: not wanted
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

inline constexpr int64_t kRmsNormScratchRows = 512;

// The order in which dw is summed over rows is fixed for a given number of rows (not of threads).
struct RmsNormBackward {
  static constexpr const char* kName = "RmsNormBackward";
  const void* dy = nullptr;     // T[rows, hidden]
  const void* x = nullptr;      // T[rows, hidden]
  const void* w = nullptr;      // T[hidden]
  const float* rstd = nullptr;  // [rows]
  int64_t rows = 0, hidden = 0;
  float weight_offset = 0;
  bool accumulate_dx = false;  // dx is added to (the residual's gradient), else written
  void* dx = nullptr;          // T[rows, hidden]; may be dy unless accumulate_dx
  float* dw = nullptr;         // [hidden], added to; nullptr: not wanted
  float* scratch = nullptr;    // [kRmsNormScratchRows, hidden]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
