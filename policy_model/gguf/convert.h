// A GGUF file, or the files of a split one, into a Hugging Face model folder.
//
// Thread safety: functions without state. Errors: those of GgufReader; kUnsupported naming the
// architecture, key or tensor that is not computed here.
#pragma once

#include <string>

#include "common/base/dtype.h"

namespace plumb::policy_model {

// Writes `directory` as an HF model folder (config.json, generation_config.json, model.safetensors,
// tokenizer.json, tokenizer_config.json, chat_template.jinja) such that transformers and this
// project read the same model. Weights are dequantised to `dtype`, tensor by tensor: memory stays
// within the largest of them and the tokenizer. Refuses an existing model in `directory` unless
// `overwrite`.
void ConvertGguf(const std::string& gguf, const std::string& directory, DType dtype,
                 bool overwrite);

}  // namespace plumb::policy_model
