// What share of the machine's speed a training step used: floating-point operations of a model, and
// how fast products are here.
//
// A product of a weight matrix costs 2 operations a parameter and token forward and 4 backward: 6 P
// n for n trained tokens. Attention scores, norms and the embedding's lookup are left out, as
// usual; passes without gradients too, so the share is a lower bound.
// Thread safety: ParametersInProducts: all; MeasureProductSpeed: one thread, it uses every thread
// of SetThreads.
#pragma once

#include <cstdint>

#include "common/base/dtype.h"
#include "kernels/device/stream.h"
#include "policy_model/families/model_config.h"

namespace plumb::policy_model {

// Parameters of the matrices that every token is multiplied with; the head is one of them, the
// embedding is not.
int64_t ParametersInProducts(const ModelShape& shape);

// Operations per second of the best square product [n, n] x [n, n] that this build does, n doubled
// until one takes 2 ms or is 4096 wide: some 10 ms on a CPU. A yardstick measured at that moment,
// not a data sheet's number.
double MeasureProductSpeed(const Stream& stream, DType dtype);

}  // namespace plumb::policy_model
