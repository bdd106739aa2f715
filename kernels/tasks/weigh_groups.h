// Low-rank products of several adapters side by side, each adapter's run of columns weighed by the
// task of its row: what is left of a gate over adapters once A has been applied.
//
// A row's results do not depend on the other rows, but for dweight, which is summed over them,
// always in the same order. Thread safety, alignment, errors: kernels/device/launch.h. Letters: R
// rows, G groups (adapters), N tasks.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

// x[r, g, :] *= scale * weight[task[r], g]
struct WeighGroups {
  static constexpr const char* kName = "WeighGroups";
  void* x = nullptr;  // T[R, G * width]
  int64_t rows = 0, width = 0;
  int32_t groups = 0;             // G
  const int32_t* task = nullptr;  // [R]
  const float* weight = nullptr;  // [N, G]
  float scale = 1;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Backward of y = WeighGroups(x): dweight[task[r], g] += scale <d[r, g, :], x[r, g, :]>; then d
// becomes the gradient of x, and x becomes y.
struct WeighGroupsBackward {
  static constexpr const char* kName = "WeighGroupsBackward";
  void* d = nullptr;  // T[R, G * width], of y
  void* x = nullptr;  // T[R, G * width]
  int64_t rows = 0, width = 0;
  int32_t groups = 0, tasks = 0;
  const int32_t* task = nullptr;
  const float* weight = nullptr;
  float scale = 1;
  double* dweight = nullptr;  // [N, G]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
