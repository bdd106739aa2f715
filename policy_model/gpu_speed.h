// How fast a GPU is at what a model does with it, and what exact products (run.exact) cost there:
// the figures of `plumb doctor --gpu`.
//
// Purpose: copies, one large product, and the products of usual models once as cuBLAS chooses and
// once exactly. Times are of recorded work that goes through several copies of a matrix, so that
// it comes from the device's memory as in a step.
// Thread safety: one thread; meanwhile it says for the process whether products are exact, and
// leaves that as it was. Ownership: values; takes and gives back some 2 GB of the device.
// Errors: kUnsupported on the CPU and in a build without CUDA; otherwise those of
// kernels/device/stream.h.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/device/stream.h"

namespace plumb::policy_model {

struct ProductSpeed {
  int64_t rows = 0;
  double default_us = 0, exact_us = 0;  // of one product
  std::string choice;                   // of the exact one: "algorithm 66, tile 64x8, ..."
};

struct ProductFigures {
  std::string name;
  int64_t n = 0, k = 0;
  // Numbers of rows at which the first row has other bits than alone.
  std::vector<int64_t> default_changes, exact_changes;
  std::vector<ProductSpeed> speeds;
};

struct GpuFigures {
  double copy_gb_s = 0;  // read and written
  double tflop_s = 0;    // bfloat16, 8192 x 8192 x 8192
  std::vector<ProductFigures> products;
  std::vector<std::string> left_out;  // for want of time
};

// The numbers of rows whose bits are compared.
const std::vector<int64_t>& ComparedRows();
// Ends soon after `limit`, and leaves out what it did not get to.
GpuFigures MeasureGpu(const Stream& stream, std::chrono::seconds limit);

// What exact products cost at `rows` rows, over all products that were measured there: the
// geometric mean of exact over default, less 1, in percent. 0 where none was.
double ExactCostPercent(const GpuFigures& figures, int64_t rows);

}  // namespace plumb::policy_model
