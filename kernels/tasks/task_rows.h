// Rows whose tokens are those of tasks: learned embeddings in front of a task's rows.
//
// Such a token is `first` or above; token `first` + t stride + i is the i-th of task t, i <
// per_task, and has row t per_task + i of the table. Thread safety, alignment, errors:
// kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct TaskTokenShape {
  const int32_t* tokens = nullptr;  // [rows]
  int64_t rows = 0, width = 0;
  int32_t first = 0, stride = 1, per_task = 0, tasks = 0;

  // Of the table; -1: the token is another one.
  PLUMB_HOST_DEVICE int64_t RowOf(int32_t token) const {
    if (token < first) return -1;
    return int64_t{(token - first) / stride} * per_task + (token - first) % stride;
  }
};

// The tokens, 0 in the place of tasks'.
struct KnownTokens {
  static constexpr const char* kName = "KnownTokens";
  TaskTokenShape shape;
  int32_t* known = nullptr;  // [rows]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// x[r] = the row of token r, where that is a task's; other rows stay.
struct EmbedTaskTokens {
  static constexpr const char* kName = "EmbedTaskTokens";
  TaskTokenShape shape;
  const void* table = nullptr;  // T[tasks * per_task, width]
  void* x = nullptr;            // T[rows, width]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// grad of a row of the table += the sum of d[r] over its tokens, in the order of r.
struct EmbedTaskTokensBackward {
  static constexpr const char* kName = "EmbedTaskTokensBackward";
  TaskTokenShape shape;
  const void* d = nullptr;  // T[rows, width]
  float* grad = nullptr;    // [tasks * per_task, width]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
