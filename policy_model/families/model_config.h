// config.json to and from a ModelShape.
//
// Reads what transformers 4 and 5 write (`torch_dtype`/`dtype`, `rope_theta` + `rope_scaling` /
// `rope_parameters`, also by layer type; `text_config` of wrappers); writes keys that both read.
// Thread safety: pure functions of their files. Errors: kCorruption / kInvalidArgument /
// kUnsupported with file and key.
#pragma once

#include <string>

#include "policy_model/families/model_shape.h"

namespace plumb::policy_model {

// `directory`/config.json (and generation_config.json for end tokens when present). Refuses rotary
// types, activation functions and model types that this build does not compute, by name. What a
// file leaves out is what transformers takes for its model_type. Where the config ties the head to
// the embedding and the folder's weights hold another head, the shape is untied, with a warning, as
// transformers does.
//
// `longest`: tokens of the longest sequence that will be computed; 0: unknown. It matters to
// longrope alone, where all positions turn otherwise once a sequence is longer than the
// pretraining's: transformers changes over from sequence to sequence, and in the middle of one that
// grows. Here a model is one or the other: up to the original length (short_factor, max_positions
// says so), or, where `longest` is beyond it, for all lengths (long_factor).
ModelShape ReadModelConfig(const std::string& directory, int64_t longest = 0);
// Writes config.json (and generation_config.json) that transformers reads, and beside it the memory
// table of a model that has one; atomic.
void WriteModelConfig(const ModelShape& shape, const std::string& directory,
                      const std::string& torch_dtype);

}  // namespace plumb::policy_model
