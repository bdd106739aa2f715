// Dropout (Srivastava et al., 2014) whose draws have an address, so that the backward makes the
// mask of the forward again instead of keeping it: element (r, c) stays, divided by 1 -
// probability, where the 32 bits of Philox at (r, c / 4, layer) under `key` are not below
// probability * 2^32.
//
// The same kernel is its own backward, and the same draws on every device. Thread safety,
// alignment, errors: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct Dropout {
  static constexpr const char* kName = "Dropout";
  const void* x = nullptr;  // T[rows, columns]
  int64_t rows = 0, columns = 0;
  float probability = 0;    // in [0, 1)
  uint64_t key = 0;         // of a forward and its backward
  uint64_t layer = 0;       // tells masks of one forward apart
  bool accumulate = false;  // added to out instead of written
  void* out = nullptr;      // T[rows, columns]; may be x unless it is added to
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
