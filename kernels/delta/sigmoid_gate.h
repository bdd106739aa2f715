// y = x sigmoid(gate), element by element: the output gate of attention.
//
// Thread safety, alignment: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct SigmoidGate {
  static constexpr const char* kName = "SigmoidGate";
  const void* x = nullptr;     // T[n]
  const void* gate = nullptr;  // T[n]
  int64_t n = 0;
  void* y = nullptr;  // T[n]; may be x
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

struct SigmoidGateBackward {
  static constexpr const char* kName = "SigmoidGateBackward";
  const void* dy = nullptr;    // T[n]
  const void* x = nullptr;     // as of the forward
  const void* gate = nullptr;  // as of the forward
  int64_t n = 0;
  void* dx = nullptr;     // T[n], written; may be dy
  void* dgate = nullptr;  // T[n], written; may be gate
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
