// Zeros in many short runs of one array, in one launch: the gradients of norms and biases, each too
// small to be worth a launch of its own. Thread safety, alignment, errors: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct ZeroRange {
  int64_t at = 0, n = 0;
};

struct ZeroRanges {
  static constexpr const char* kName = "ZeroRanges";
  float* data = nullptr;
  const ZeroRange* ranges = nullptr;  // [count], in the memory of the device
  int64_t count = 0;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
