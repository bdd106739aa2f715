// Numbers rounded to float16 (half_codes.h), as operands of products: on a GPU their codes, which
// its products read; on the CPU what the codes say, as float, so that a product of floats has the
// terms of one of float16 to the bit (22 bits each) and sums them as floats.
//
// On both devices the same codes and values, but for which NaN. Thread safety, alignment, errors:
// kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct RoundToHalf {
  static constexpr const char* kName = "RoundToHalf";
  const void* x = nullptr;  // T[n]
  int64_t n = 0;
  // Either may be left out.
  uint16_t* code = nullptr;  // [n]
  float* value = nullptr;    // [n]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
