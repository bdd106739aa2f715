// Gradients that are kept in 16 bits: what a pass has summed in float joins them.
//
// Purpose: optimizer.gradients = "bfloat16" (learner/update/gradients/gradient_rooms.h): a layer's
// gradients are summed in float32 over the tokens of a micro-batch, and come to those of the
// micro-batches before with one rounding. The first that comes to an element, which is 0 before, is
// rounded to the nearest; further ones up or down at random, so that the sum over many
// micro-batches is right in the mean (to the nearest, what is smaller than 2^-9 of the sum would be
// lost each time). Random numbers: a function of (seed, draw, index of the element), on any number
// of threads. CPU and CUDA give the same bits. Thread safety, alignment, errors:
// kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct NarrowGradients {
  static constexpr const char* kName = "NarrowGradients";
  const float* room = nullptr;  // [n], added
  BFloat16* sum = nullptr;      // [n]
  int64_t n = 0;
  // The address of the draws; first: the place of sum[0] among all, a multiple of 8.
  uint64_t seed = 0;
  uint32_t draw = 0;
  int64_t first = 0;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
