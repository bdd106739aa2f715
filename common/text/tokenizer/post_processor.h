// The tokens that "post_processor" of tokenizer.json puts around a text.
//
// Thread safety: pure function. Errors: kUnsupported naming the file, the key and what is not
// known; kCorruption where a template names a token without ids.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "common/text/tokenizer/tokenizer.h"

namespace plumb {

// TemplateProcessing (its form for one text), RobertaProcessing, BertProcessing, a Sequence of
// them; ByteLevel and null put nothing.
Surroundings ReadPostProcessor(const nlohmann::ordered_json& j, const std::string& where);

}  // namespace plumb
