// The tokenizer in the keys of a GGUF file as the files of a model folder.
//
// Byte-level BPE ("gpt2") and SentencePiece BPE ("llama") are known. The latter has no merges in
// the file: they follow from the scores of the tokens, as transformers derives them from a
// SentencePiece model (generate_merges). Thread safety: pure functions of the reader. Errors:
// kUnsupported naming a tokenizer or pre-tokenizer that is not known, kCorruption for lists that do
// not fit.
#pragma once

#include <string>

#include "policy_model/families/model_shape.h"
#include "policy_model/files/gguf_reader.h"

namespace plumb::policy_model {

std::string TokenizerJson(const GgufReader& in, const ModelShape& shape);
std::string TokenizerConfigJson(const GgufReader& in, const ModelShape& shape);

}  // namespace plumb::policy_model
