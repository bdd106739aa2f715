// What a train step is given: which prompts its leases carry, which groups are its own, and which
// earlier ones it is trained on again.
//
// Purpose: the part of a ReplayTable that composes samplers, a remover and a rate limiter. Prompts
// go out in shuffled passes over the dataset (replay/table/leases.h) unless a sampler is named;
// replayed groups are drawn from the steps before. Every draw is a function of (seed, step, what
// earlier steps left in the store) and is written to the store before anybody acts on it
// (StepPlan): a restart, and a learner that goes back to a checkpoint, get the same again.
//   At step s, with the own groups of all steps < s in the store (the table sees to that):
//     prompts   of step s from the rows of "train"; success rates from the groups of the last
//     history_steps steps replayed  at most groups_per_step groups of the steps that the remover
//     leaves, as many as the limiter grants
//   An item's priority is the standard deviation of its answers' rewards (a group of equal rewards
//   has no gradient), its success rate the share of answers whose success part is >= 0.5, its
//   stratum and difficulty columns of its prompt.
// Thread safety: all methods. Lock order: the table's mutex, the planner's, the store's.
// Ownership: borrows the store. Errors: kInvalidArgument for options and for columns that rows
// lack; those of the store.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/mutex.h"
#include "configs/batch_ramp.h"
#include "replay/store/store.h"
#include "replay/table/leases.h"
#include "replay/table/rate_limiter.h"
#include "replay/table/remover.h"
#include "replay/table/sampler.h"

namespace plumb::replay {

using configs::PromptSampler;

struct PlannerOptions {
  PromptSampler prompts = PromptSampler::kPasses;
  int64_t groups_per_step = 0;  // earlier groups given to a step; 0: none
  SamplerOptions sampler;       // of the earlier groups; its parameters serve both
  RemoverOptions remover;
  RateLimiterOptions limiter;
  std::string stratum;  // column of the prompt; empty: one stratum
  // column of the prompt, a number; empty: the number of prompt tokens (or characters)
  std::string difficulty;
  std::string success_part;    // reward part; empty: the first
  int64_t history_steps = 64;  // steps whose groups count for success rates
};

class StepPlanner {
 public:
  StepPlanner(Store* store, const PlannerOptions& options, uint64_t seed, bool shuffle,
              int64_t steps, const configs::BatchRamp& batches, int64_t version_base,
              uint32_t max_rounds = 0);

  // Decides the prompts of steps [from, end) that are not decided yet. REQUIRES: the own groups of
  // steps < from are there.
  void PlanPrompts(int64_t from, int64_t end);
  // nullopt: the step of this lease is not planned. `round` > 0: the prompt that takes the place of
  // that of round - 1; these go through passes of their own, behind those of the run. Rounds above
  // max_rounds are those of later leases.
  std::optional<uint64_t> RowOf(uint64_t lease_id, uint32_t round = 0) const;

  // Leases of the step's own groups, in their order: those that were chosen for it, else those that
  // bear its number.
  std::vector<uint64_t> OwnGroups(int64_t step) const;
  bool Chosen(int64_t step) const;
  void Choose(int64_t step, std::vector<uint64_t> lease_ids);

  // Lease ids of the earlier groups of step `step`, ascending. REQUIRES: the own groups of steps <
  // step are there.
  std::vector<uint64_t> Replayed(int64_t step);

  // The groups of steps >= `step` are not what they were: what was chosen for these steps, what was
  // remembered of them, and what was drawn from them, is forgotten.
  void Forget(int64_t step);

  // Steps behind a checkpoint whose groups have to stay in the store for the draws after it.
  static int64_t StepsToKeep(const PlannerOptions& options);

 private:
  // What is remembered of a stored group.
  struct GroupFacts {
    bool usable = false;  // not dropped, at least one scored answer
    SampleItem item;      // key: lease id
    uint64_t row = 0;
    int64_t oldest_version = 0;
  };
  bool SamplesPrompts() const { return prompts_ != nullptr; }
  const std::vector<GroupFacts>& StepFacts(int64_t step) PLUMB_REQUIRES(mu_);
  GroupFacts FactsOf(const TrajectoryGroup& group) const;
  std::vector<SampleItem> PromptItems(int64_t from) PLUMB_REQUIRES(mu_);
  void Columns(const Prompt& prompt, SampleItem& item) const;
  std::vector<uint64_t> DrawReplayed(int64_t step, uint64_t before_total) PLUMB_REQUIRES(mu_);

  // Constant after construction.
  Store* const store_;
  const PlannerOptions options_;
  const int64_t steps_, version_base_;
  const configs::BatchRamp batches_;  // in prompts
  const uint64_t max_rounds_;
  std::unique_ptr<PromptOrder> order_;
  std::unique_ptr<Sampler> prompts_;  // nullptr: passes
  std::unique_ptr<Sampler> sampler_;  // nullptr: no replay
  const Remover remover_;
  const RateLimiter limiter_;

  mutable Mutex mu_;
  // Step -> rows, of the plans seen last
  mutable std::map<int64_t, std::vector<uint64_t>> rows_ PLUMB_GUARDED_BY(mu_);
  std::map<int64_t, std::vector<GroupFacts>> facts_ PLUMB_GUARDED_BY(mu_);  // step -> its groups
  // By row, without results; empty until first needed
  std::vector<SampleItem> prompt_items_ PLUMB_GUARDED_BY(mu_);
};

}  // namespace plumb::replay
