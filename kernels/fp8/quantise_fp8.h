// A matrix in 8 bits a number for a product (fp8_codes.h), with a scale for each row or column: the
// dimension that a product sums over shares one, so that the scales stand outside its sums.
//
// On both devices the same codes and scales, bit for bit. Thread safety, alignment, errors:
// kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"
#include "kernels/fp8/fp8_codes.h"

namespace plumb::kernels {

// codes[r, c] = x[r, c] / scale[r].
struct QuantiseRows {
  static constexpr const char* kName = "QuantiseRows (FP8)";
  const void* x = nullptr;  // T[rows, columns]
  int64_t rows = 0, columns = 0;
  Fp8 format = Fp8::kE4M3;
  uint8_t* codes = nullptr;  // [rows, columns]
  float* scale = nullptr;    // [rows]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Transposed: codes[c, r] = x[r, c] / scale[c].
struct QuantiseColumns {
  static constexpr const char* kName = "QuantiseColumns (FP8)";
  const void* x = nullptr;  // T[rows, columns]
  int64_t rows = 0, columns = 0;
  Fp8 format = Fp8::kE4M3;
  uint8_t* codes = nullptr;  // [columns, rows]
  float* scale = nullptr;    // [columns]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
