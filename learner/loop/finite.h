// NaN and infinity in weights, before anybody else sees them.
//
// Thread safety: pure function. Cost: one pass over the bytes.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "common/base/dtype.h"
#include "policy_model/memory/weights.h"

namespace plumb::learner {

// `flat` is the host copy of a flat buffer of that table in float32 or bfloat16. Names the first
// tensor that holds a value which is not finite.
std::optional<std::string> FirstNonFinite(const policy_model::TensorList& table, DType dtype,
                                          std::span<const std::byte> flat);

// The same of every set of a model where it lies: on a device only the place of the first such
// value comes to the host.
std::optional<std::string> FirstNonFinite(const policy_model::Weights& weights);

}  // namespace plumb::learner
