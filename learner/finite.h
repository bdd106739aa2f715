// NaN and infinity in weights, before anybody else sees them.
//
// Thread safety: pure function. Cost: one pass over the bytes.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "common/dtype.h"
#include "policy_model/families/tensor_table.h"

namespace plumb::learner {

// `flat` is the host copy of a flat buffer of that table in float32 or bfloat16. Names the first tensor that holds a value which is not
// finite; empty: none does.
std::string FirstNonFinite(const policy_model::TensorTable& table, DType dtype, std::span<const std::byte> flat);

}  // namespace plumb::learner
