// The tokens that a record of rollouts carries, for a model that may be another one.
//
// Purpose: what was sampled is trained on and scored as it was sampled, and never tokenized again;
// but ids mean something to one tokenizer only, and texts in a file may have been changed beside
// them.
// Thread safety: pure function. Errors: kInvalidArgument naming the row, where an id is none of the
// model's, or where the tokens do not spell the text of the answer, with the way out.
#pragma once

#include "common/record/preference.h"
#include "run/session/model_folder.h"

namespace plumb::run {

// The chosen (a single answer: the only one) or the rejected answer behind the prompt.
// REQUIRES: the record has tokens.
Demonstration SampledTokens(const PromptEncoder& encoder, const PreferenceRecord& record,
                            bool chosen);

}  // namespace plumb::run
