// GGUF files in: F32, F16, BF16, Q8_0, Q4_0 and Q4_1 tensors of Llama-family models, with tokenizer
// and chat template.
//
// Thread safety: functions without state. Errors: kCorruption with file and offset, kUnsupported
// naming the type.
#pragma once

#include <string>

#include "common/base/dtype.h"

namespace plumb::policy_model {

// Writes `directory` as an HF model folder (config.json, generation_config.json, model.safetensors,
// tokenizer.json, tokenizer_config.json, chat_template.jinja) such that transformers and this
// project read the same model. Weights are dequantised to `dtype`. q and k rows are un-permuted to
// HF's rotary layout. Refuses an existing model in `directory` unless `overwrite`.
void ConvertGguf(const std::string& gguf, const std::string& directory, DType dtype,
                 bool overwrite);

}  // namespace plumb::policy_model
