// A language model as the judge, asked through an OpenAI-compatible endpoint.
//
// Purpose: kind = "judge". Each answer is one POST to .../v1/chat/completions with
// {"model","messages":[{user, judge_prompt with {prompt}, {completion}, {ground_truth} put
// in}],"temperature":0,"max_tokens"}. From the text of its first choice `score_regex` (PCRE2, group
// 1; its last match counts) takes a number; the score is number / scale. A text without a number,
// or with one outside [0, scale], is a failure: nothing is clamped or guessed. What stands in the
// answer is never read as part of the template, and the number is looked for in the judge's words
// only; that an answer talks the judge into a score remains possible.
// Provenance: "judge:<model>:sha256:<endpoint, model, template, regex, scale>".
// Thread safety, errors: as RewardFunction; construction throws for a template without
// {completion}, a pattern that does not compile or has no group, an environment variable that is
// not set. The key is sent and never written anywhere.
#pragma once

#include <memory>
#include <string>

#include "configs/config.h"
#include "reward/doors/plugin.h"
#include "reward/part/reward.h"

namespace plumb::reward {

std::unique_ptr<RewardFunction> MakeJudge(const configs::RewardPartConfig& part,
                                          const HostOptions& options = {});

// The template with its three names replaced, each once over: what is put in is not looked at
// again.
std::string FillJudgePrompt(const std::string& text, const Prompt& prompt,
                            const std::string& completion);

}  // namespace plumb::reward
