// Frequencies of rotary positions under the stretchings that transformers knows
// (modeling_rope_utils).
//
// Sources: linear (kaiokendev 2023), llama3 (Llama 3.1's model card), YaRN (Peng et al., "YaRN:
// Efficient Context Window Extension of Large Language Models", 2023), longrope (Ding et al.,
// "LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens", 2024). `dynamic` equals the
// default up to max_positions, beyond which nothing is computed.
// Thread safety: pure function.
#pragma once

#include "policy_model/families/layer_spec.h"
#include "policy_model/families/model_shape.h"

namespace plumb::policy_model {

// `dims` rotated dimensions of a head (even), base `theta`; `max_positions` stands in for an
// original length that is not given.
RotarySpec RotaryOf(const RopeScaling& scaling, double theta, int64_t dims, int64_t max_positions);

}  // namespace plumb::policy_model
