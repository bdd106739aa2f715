// Answers to try a reward on before a run is started: read from a file, or made from the recipe's
// own data.
//
// Purpose: what `plumb reward test` scores. A file has one JSON object per line: a prompt with its
// ground truth and extra columns in any form that `plumb data import` reads, and what was answered
// as "completion", "response" or "output" (text, or a list with one assistant message), or several
// as "completions"; or a conversation in "messages" whose last turn is the assistant's. The prompt
// is what the reward will see: data.system_prompt and data.prompt_suffix are not added to it. Rows
// that follow one another and differ only in their answer are one group, as the answers of a prompt
// are in a run.
// Thread safety: pure functions. Errors: kNotFound; kInvalidArgument naming file, line and what is
// wrong: the first row that cannot be used ends the reading, for a sample that is left out would
// not be missed.
#pragma once

#include <string>
#include <vector>

#include "common/record/trajectory.h"
#include "configs/config.h"
#include "run/session/session.h"

namespace plumb::run {

struct RewardSample {
  std::string label;  // "line 12", or what was made: gold, gold_tagged, wrong, empty
  Prompt prompt;      // without tokens
  std::string completion;
};

std::vector<RewardSample> ReadRewardSamples(const std::string& path, const configs::Config& config);

// For each of the first three prompts of data.train: the right answer as it stands in the data and,
// unless it is a program (canonical_solution or code), between <think> and <answer> tags; a wrong
// one; an empty one.
std::vector<RewardSample> MakeRewardSamples(const configs::Config& config);

// The groups to score, tokenized with the recipe's tokenizer; every answer ends by itself, with an
// end token. Without a session they are text alone: parts that need tokens then fail and say so.
std::vector<TrajectoryGroup> GroupsOf(const std::vector<RewardSample>& samples,
                                      const Session* session);

}  // namespace plumb::run
