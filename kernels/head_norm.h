// RMSNorm of the queries and keys inside merged rows (QK-norm), in front of the rotation. A row's
// queries are cut into `q_parts` pieces that are normed each by itself, its keys into `k_parts`:
// the number of heads where every head is normed by itself (Qwen 3, Gemma 3), one where the whole
// width is (OLMo 2 and 3). y = x * rstd * (weight_offset + w). Thread safety, alignment, errors:
// kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

// Which columns of a row T[width] are normed: queries from column 0 on, keys behind them; what
// follows (values) stays.
struct HeadNormShape {
  int64_t rows = 0;
  int64_t width = 0;  // of a row
  int32_t q_parts = 0, k_parts = 0;
  int32_t q_size = 0, k_size = 0;  // columns of a part
  float eps = 0;
  float weight_offset = 0;
  PLUMB_HOST_DEVICE int64_t normed() const {
    return int64_t{q_parts} * q_size + int64_t{k_parts} * k_size;
  }
  PLUMB_HOST_DEVICE int32_t parts() const { return q_parts + k_parts; }
};

struct HeadNorm {
  static constexpr const char* kName = "HeadNorm";
  HeadNormShape shape;
  const void* x = nullptr;    // T[rows, width]
  const void* w_q = nullptr;  // T[q_size]
  const void* w_k = nullptr;  // T[k_size]
  void* y = nullptr;          // T[rows, width], all columns written; may be x
  float* rstd = nullptr;      // [rows, q_parts + k_parts], or nullptr
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

inline constexpr int64_t kHeadNormScratchRows = 64;

// The order in which dw is summed over rows is fixed for a given number of rows (not of threads).
struct HeadNormBackward {
  static constexpr const char* kName = "HeadNormBackward";
  HeadNormShape shape;
  // T[rows, width]: gradient of y, replaced by that of x; columns behind the keys stay
  void* d = nullptr;
  const void* x = nullptr;      // T[rows, width], as the forward saw it
  const void* w_q = nullptr;    // T[q_size]
  const void* w_k = nullptr;    // T[k_size]
  const float* rstd = nullptr;  // [rows, q_parts + k_parts]
  float* dw_q = nullptr;        // [q_size], added to; nullptr: it is not wanted
  float* dw_k = nullptr;        // [k_size], the same
  float* scratch = nullptr;     // [kHeadNormScratchRows, q_size + k_size]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
