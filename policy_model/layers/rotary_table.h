// Cosines, sines and the scale of queries by position, in the device's memory: what attention
// stages read of a RotarySpec (families/layer_spec.h).
//
// Thread safety: const after construction. Ownership: owns its buffers. Errors: none of its own.
#pragma once

#include <cstdint>
#include <vector>

#include "policy_model/families/layer_spec.h"
#include "policy_model/memory/flat_buffer.h"

namespace plumb::policy_model {

struct RotaryTable {
  FlatBuffer cos_sin;  // float[max_positions, dims]
  int32_t dims = 0;
  bool interleaved = false;
  FlatBuffer query_scale;  // float[max_positions]; empty: queries are not scaled
};

RotaryTable MakeRotaryTable(const RotarySpec& spec, int64_t max_positions, const Stream& stream);

}  // namespace plumb::policy_model
