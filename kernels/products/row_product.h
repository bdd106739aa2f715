// A product whose rows do not depend on one another: a row has the same bits whatever it is
// computed beside.
//
// Purpose: an answer computed alone, in a batch, and once more by the learner meets the same
// numbers. A library that is left to itself splits the sum over k by the number of rows, and the
// last bits of a row change with the batch.
// On a GPU it is cuBLASLt with the number of splits fixed to 1 and everything else tuned by timing
// (kernels/products/lt_products.h), or, where that takes no such sizes or addresses (n, k
// multiples of 8; 16 bytes), tiles of our own; which of the two depends on sizes and addresses
// alone, never on m. The first call of a kind outside a record (kernels/device/recorded_work.h)
// may time algorithms, which takes memory and a fraction of a second; all others take nothing.
// On the CPU it is the reference: one running sum over k in ascending order.
// Sums are float32. Thread safety, alignment, errors: kernels/device/launch.h; kIo for what the
// library refuses.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

// y[m, n] = x[m, k] w[n, k]^T + residual + bias, rounded once; with a bfloat16 residual cuBLASLt
// rounds the product before it adds (the same in every batch).
struct RowProduct {
  static constexpr const char* kName = "RowProduct";
  const void* x = nullptr;  // T[m, k]
  const void* w = nullptr;  // T[n, k]
  int64_t m = 0, n = 0, k = 0;
  const void* residual = nullptr;   // [m, n] of y's type, may be y; nullptr: none
  const void* bias = nullptr;       // [n] of y's type; nullptr: none
  DType y_dtype = DType::kFloat32;  // T or float
  void* y = nullptr;                // [m, n]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Whether a learner's forward on a GPU computes as generation does (run.exact): products as
// RowProducts, attention by the kernel that reads pages. Off, both are what LibTorch makes of them.
// Of the process, like the number of threads; true until it is said otherwise. Thread safety: all.
void SetExactProducts(bool exact);
bool ExactProducts();

// The same of the CPU, where the learner's own products, head and attention are faster by more than
// run.exact is to cost (docs/models.md): off until it is said otherwise. For who wants to see, on
// any machine, that the two passes differ in nothing else.
void SetExactOnCpu(bool exact);
bool ExactOnCpu();

inline bool ExactOn(Device device) { return device.is_cpu() ? ExactOnCpu() : ExactProducts(); }

}  // namespace plumb::kernels
