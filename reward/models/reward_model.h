// A trained reward model as a part of a reward: kind = "reward_model".
//
// Purpose: scores whole sequences (prompt + completion, the trajectory's own tokens, never
// tokenized again) with a model of the ...ForSequenceClassification form. The value is the head's
// number at the last token of the sequence that is not the folder's pad_token_id (as transformers
// has it: one that pads with the end token is not asked there), as it is: any real number, not one
// in [0, 1]; weight, whitening or a reward clip are the recipe's.
// A CMake target of its own: the only file of this folder that links LibTorch, through
// policy_model.
// Part options: path = the model folder; args: "dtype=bfloat16|float32" (default: what config.json
// names), "device=cpu|cuda|cuda:N", "batch_tokens=N" (tokens of one forward pass, 8192). workers
// has to be 1: one copy of the model, one group at a time.
// Thread safety: Score() from any thread; calls wait for each other. Ownership: owns the weights.
// Errors: construction throws kNotFound (no such folder), kInvalidArgument (no scalar head, no or
// another tokenizer, options) and what the files throw. A sequence that the model cannot read and a
// number that is not finite fail alone. The deadline is looked at between forward passes.
#pragma once

#include <memory>

#include "common/text/tokenizer/tokenizer.h"
#include "configs/config.h"
#include "reward/doors/plugin.h"
#include "reward/part/reward.h"

namespace plumb::reward {

// `policy`: the tokenizer that wrote the trajectories' tokens; borrowed during the call.
std::unique_ptr<RewardFunction> MakeRewardModel(const configs::RewardPartConfig& part,
                                                const Tokenizer& policy);

// What a GroupScorer needs to make model parts and to decode tokens. `policy` is borrowed for as
// long as the scorer lives.
HostOptions WithModelParts(const Tokenizer& policy, HostOptions options = {});

}  // namespace plumb::reward
