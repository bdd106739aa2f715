// How expected an answer is to a language model: kind = "perplexity".
//
// Purpose: fluency of an answer given its prompt, from a model that is not trained in the run.
//   nll     mean of -log p(token | prompt and the tokens before it) over the answer's tokens, its
//           end token among them, in nats
//   PPL     exp(nll)
//   value   min(1, max(0, (ln high - nll) / (ln high - ln low))): 1 up to the perplexity `low`, 0
//           from `high` on, between them in equal steps of the logarithm; the middle, 1/2, is the
//           perplexity sqrt(low * high)
// The perplexity itself is reported as <part>.ppl. Text that repeats itself is highly expected:
// combine it with a part that knows what is right or says something new.
// Options: path = the folder of a language model whose tokenizer is the policy's, token by token;
// args: low=P (10), high=P (1000), dtype=bfloat16|float32, device=cpu|cuda|cuda:N, batch_tokens=N,
// as of reward/models/reward_model.h, with which it shares the target that links LibTorch.
// Thread safety: Score() from any thread; calls wait for each other. Ownership: owns the weights.
// Errors: as a reward model's; a model with a scalar head is refused, an answer without tokens is a
// failure of its own.
#pragma once

#include <memory>

#include "common/text/tokenizer/tokenizer.h"
#include "configs/config.h"
#include "reward/part/reward.h"

namespace plumb::reward {

// The formula.
double PerplexityScore(double nll, double low, double high);

// `policy`: the tokenizer that wrote the trajectories' tokens; borrowed during the call.
std::unique_ptr<RewardFunction> MakePerplexity(const configs::RewardPartConfig& part,
                                               const Tokenizer& policy);

}  // namespace plumb::reward
