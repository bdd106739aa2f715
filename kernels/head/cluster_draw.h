// Draws without filters, by clusters of blocks (thread block clusters of Hopper and later).
//
// Purpose: what SampleTokens (kernels/sampling.h) tries first on a GPU. A cluster's blocks hold a
// row of logits among them, so that it is read once; one block that goes over the row several times
// is the slowest kernel of a step with many rows, and with few rows most of the GPU stands still
// beside it. Token and log-prob have the bits of the other way: masses are whole numbers.
// Thread safety, errors: kernels/device/launch.h. Only in builds with CUDA.
#pragma once

#include "kernels/sampling.h"

namespace plumb::kernels {

// False, and nothing is done: there are filters or sets to keep, a row is not whole 16 bytes or too
// long for a cluster, or the GPU has no clusters (compute capability 9).
bool DrawByClusters(const Launch& launch, const SampleTokens& s);

}  // namespace plumb::kernels
