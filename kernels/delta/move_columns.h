// Runs of columns of one matrix to other places in another: what files interleave by heads, one
// behind the other, and back.
//
// The list of runs lies in the host's memory. Thread safety, alignment: kernels/device/launch.h.
#pragma once

#include <vector>

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct ColumnRun {
  int64_t from = 0, to = 0, count = 0;
};

inline std::vector<ColumnRun> Reversed(std::vector<ColumnRun> runs) {
  for (ColumnRun& run : runs) run = {run.to, run.from, run.count};
  return runs;
}

struct MoveColumns {
  static constexpr const char* kName = "MoveColumns";
  const void* x = nullptr;  // T[rows, x_width]
  int64_t rows = 0, x_width = 0, y_width = 0;
  const ColumnRun* runs = nullptr;
  int64_t count = 0;  // of runs
  void* y = nullptr;  // T[rows, y_width]; columns that no run names stay
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
