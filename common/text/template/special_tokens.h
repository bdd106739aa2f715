// The texts of a model's special tokens, as its tokenizer's files name them.
//
// Thread safety: pure function of the files. Errors: kCorruption with the file.
#pragma once

#include <map>
#include <string>

namespace plumb {

// "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token" ->
// text, those that the model has. From `directory`/tokenizer_config.json and
// special_tokens_map.json, either may be missing; where both name one, the second holds, as with
// transformers.
std::map<std::string, std::string> ReadSpecialTokens(const std::string& directory);

}  // namespace plumb
