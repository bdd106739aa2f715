// Stored rollouts under other reward functions: store scan -> scorer -> a score of its own beside
// the stored one.
//
// Purpose: a score is named by what made it: the first 32 hex digits of SHA-256 over every part's
// name, weight and function digest and over what a failure is worth. The same functions again find
// their scores and do nothing; a changed function has another name, so no score is ever replaced. A
// group of which any answer failed is not stored, counted by reason, and tried again by the next
// call. Answers that were never generated are asked for by no function: the rest of their group is
// scored without them (their entry says 0 and has no parts; readers go by FinishReason::kAborted),
// a group of nothing else is left out.
// Thread safety: one call at a time on a store. Errors: those of store and scorer.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "configs/config.h"
#include "replay/store/store.h"
#include "reward/scorer.h"

namespace plumb::run {

struct RescoreReport {
  std::string name;                         // of the score
  int64_t groups = 0;                       // read
  int64_t scored = 0;                       // now
  int64_t already = 0;                      // had this score
  int64_t dropped = 0;                      // markers without answers
  int64_t failed = 0;                       // groups left without this score
  int64_t not_generated = 0;                // groups of which no answer was ever generated
  int64_t aborted_answers = 0;              // that were never generated, in all groups
  std::map<std::string, int64_t> failures;  // reason -> answers
  double mean = 0;                          // reward of the answers that were scored now
  // of the same answers as they were scored when stored, where they were
  double stored_mean = 0;
  int64_t answers = 0, stored_answers = 0;
  bool stopped = false;
  std::vector<std::string> Describe() const;
};

// Name and description of the score that these functions make.
std::pair<std::string, std::string> ScoreIdentity(const reward::GroupScorer& scorer,
                                                  const configs::RewardConfig& config);

// `stop` is asked between batches.
RescoreReport RescoreStore(replay::Store& store, reward::GroupScorer& scorer,
                           const configs::RewardConfig& config, Purpose purpose,
                           const std::function<bool()>& stop);

}  // namespace plumb::run
