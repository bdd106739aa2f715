// What a loop keeps in a checkpoint besides weights, optimizer and algorithm:
// CheckpointState::state_json.
//
// Keys are only ever added, and one that is missing is what it was before it was written: older
// checkpoints stay readable.
// Thread safety: pure functions. Errors: kCorruption naming `where` for a text of no such form.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "learner/offline/sft.h"

namespace plumb::learner {

struct EvalResult {
  int64_t version = 0;
  // Answers whose success part is >= 0.5, over all answers: what has no score is not solved.
  double accuracy = 0;
  // Its standard error: of prompts, for answers to one are not independent. 0 for fewer than two.
  double accuracy_se = 0;
  double reward = 0;     // mean over scored answers
  double reward_se = 0;  // its standard error; 0 for fewer than two
  // Of pairs, where `reward` is their difference.
  std::optional<double> reward_chosen = {}, reward_rejected = {};
  int64_t answers = 0;
  int64_t unscored = 0;             // answers without a score, those never generated among them
  int64_t aborted = 0;              // answers that were never generated
  std::string reason = {};          // of the first answer without a score; not kept in a checkpoint
  std::optional<double> loss = {};  // held-out loss, where there is one (offline runs)
  // exp(loss), where that is in nats a token: then there is neither accuracy nor reward
  std::optional<double> perplexity = {};
  double seconds = 0;  // that the evaluation took; 0: not known

  int64_t scored() const { return answers - unscored; }
  // false: answers there were, and not one got a score: accuracy and reward are not known.
  bool measured() const { return answers == 0 || scored() > 0; }
};

// What the rewards of a run had to tell.
struct RewardTally {
  int64_t equal_steps = 0;      // steps in which they told no answer from another
  int64_t scoreless_steps = 0;  // steps in which no answer had a score that counts
  // Where answers are compared within their group (else 0): with such a score, and of these those
  // whose answers all had the same.
  int64_t groups = 0, equal_groups = 0;
  bool operator==(const RewardTally&) const = default;
};

struct RunState {
  std::string store = {};                 // LearnerHooks::store_state; empty: none
  std::optional<EvalResult> before = {};  // the evaluation of version 0
  std::optional<SftResult> sft = {};      // the warm start, as far as it went
  // By its steps or its patience. Checkpoints of steps that were written before it was kept: false.
  bool sft_ended = false;
  RewardTally rewards = {};
};

// Of one evaluation, in a file of its own; kCorruption where that cannot be read.
std::string WriteEvaluation(const EvalResult& result);
EvalResult ReadEvaluation(const std::string& json, const std::string& where);

std::string WriteRunState(const RunState& state);
RunState ReadRunState(const std::string& json, const std::string& where);

}  // namespace plumb::learner
