// The two gates of the gated delta rule, of each token and head:
//   g = -exp(A) softplus(a + bias)   the log decay,      beta = sigmoid(b)   the strength
// Thread safety, alignment: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

// a and b are columns of wider rows.
struct DeltaGates {
  static constexpr const char* kName = "DeltaGates";
  const void* a = nullptr;  // T[heads], rows `stride` apart
  const void* b = nullptr;
  int64_t rows = 0, stride = 0;
  int32_t heads = 0;
  const void* a_log = nullptr;  // T[heads], A
  const void* bias = nullptr;   // T[heads]
  float* g = nullptr;           // [rows, heads]
  float* beta = nullptr;        // [rows, heads]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

struct DeltaGatesBackward {
  static constexpr const char* kName = "DeltaGatesBackward";
  const void* a = nullptr;  // as of the forward
  const void* b = nullptr;
  int64_t rows = 0, stride = 0;
  int32_t heads = 0;
  const void* a_log = nullptr;
  const void* bias = nullptr;
  const float* dg = nullptr;     // [rows, heads]
  const float* dbeta = nullptr;  // [rows, heads]
  void* da = nullptr;            // T[heads], rows `stride` apart, written
  void* db = nullptr;
  float* da_log = nullptr;  // [heads], added to; nullptr: not wanted
  float* dbias = nullptr;   // [heads], the same
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
