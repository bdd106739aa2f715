// Preference pairs out of stored rollouts: the best answer of a group against its worst, by stored
// score.
//
// Purpose: what a run has generated and scored becomes preference data without generating again. A
// pair carries the tokens that were sampled, so that nothing is tokenized a second time (its texts
// are without their end token), and its provenance as a JSON object in extra_json:
//   run_id, lease_id, policy_version, policy_digest, chosen_sample, rejected_sample, chosen_reward,
//   rejected_reward, score (the name of a rescoring, or "stored"), reward_digest (the function
//   digests of the parts that made the score)
// Order: groups by purpose train, lease id; in a group the best against the worst, then the second
// best against the second worst, and so on; equal rewards by sample number. So the same store and
// options give the same rows.
//
// Thread safety: functions of their arguments. Errors: the stores'; kInvalidArgument for options,
// for a score that is not there; kConflict where the dataset is sealed with other rows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/record/preference.h"
#include "replay/store/store.h"

namespace plumb::replay {

struct MineOptions {
  std::string dataset = "mined";
  // beginning of the name of a rescoring (Store::ScoreNames); empty: the reward stored with the
  // group
  std::string score;
  // the rewards of a pair differ by more than 0 and by at least this much
  double margin = 0;
  int64_t per_group = 1;  // pairs of one group at most
  // other texts of an end token than replay/datasets/rows/end_token.h knows
  std::vector<std::string> end_tokens;
  // the difference becomes the record's margin, which shifts the loss (DPO with margin)
  bool keep_margin = false;
};

// Every group and every pair is in exactly one line of its part.
struct MineReport {
  int64_t groups = 0;            // read
  int64_t dropped_groups = 0;    // markers without answers
  int64_t unscored_groups = 0;   // not scored under the name asked for
  int64_t one_sided_groups = 0;  // fewer than two usable answers
  int64_t tied_groups = 0;       // all usable answers have the same reward
  int64_t close_groups = 0;      // the best and the worst differ by less than the margin
  // differing rewards, but every pair far enough apart says the same tokens twice
  int64_t identical_groups = 0;
  int64_t repeated_groups = 0;  // all its pairs were mined from an earlier group already
  int64_t used_groups = 0;
  int64_t answers = 0;           // of all groups read
  int64_t unusable_answers = 0;  // unscored, aborted or without a token of the policy
  // with tokens of an environment between those of the policy: a pair has no mask for them
  int64_t mixed_answers = 0;
  int64_t identical_pairs = 0, repeated_pairs = 0;  // passed over
  int64_t pairs = 0;                                // written
  bool unchanged = false;                           // the same rows were there already
  // Complete sentences for people.
  std::vector<std::string> Describe() const;
};

// Pairs of one group, counted into `report`. `scores`: rewards to use instead of the stored ones
// (NaN: not scored), one an answer; empty: the stored ones.
std::vector<PreferenceRecord> MineGroup(const TrajectoryGroup& group,
                                        const std::vector<double>& scores,
                                        const std::string& score_name,
                                        const std::string& reward_digest,
                                        const MineOptions& options, MineReport& report);

// Reads the training groups of `from` and writes one dataset into `into`, which may be the same
// store. Nothing is written when there is no pair (kInvalidArgument says what was found).
MineReport MinePairs(const Store& from, Store& into, const MineOptions& options);

}  // namespace plumb::replay
