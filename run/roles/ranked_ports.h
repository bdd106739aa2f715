// The learner's ports where several ranks learn: rank 0 has them, the others hear what they said.
//
// Purpose: batches, cached log-probs and preference data come from a store that only rank 0 talks
// to. Its answers, and the errors in their place, reach all ranks, so that each goes on, or ends,
// like the others. A wait of rank 0 is one of all: StillWaiting tells the others that it goes on.
// Thread safety: none, the learner's thread owns them. Ownership: borrow the ranks and the ports.
// Errors: those of rank 0's port, on every rank; RankLost.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/record/ports.h"
#include "learner/ranks/ranks.h"
#include "run/session/preference_data.h"

namespace plumb::run {

// What `make` of rank 0 returns, or throws, on all ranks; the others' is not called. An Error keeps
// its code, message and place.
std::string Shared(learner::Ranks& ranks, const std::function<std::string()>& make);

class RankedBatches : public BatchSource, public WeightSink {
 public:
  // Of rank 0; nullptr on the others, whose weights nobody else has.
  RankedBatches(learner::Ranks& ranks, BatchSource* batches, WeightSink* weights)
      : ranks_(ranks), batches_(batches), weights_(weights) {}
  std::vector<TrajectoryGroup> Next(int64_t step, Deadline deadline) override;
  std::vector<TrajectoryGroup> Evaluate(int64_t version, int num_samples,
                                        Deadline deadline) override;
  void Finish() override;
  bool WantsBytes() const override { return weights_ && weights_->WantsBytes(); }
  bool TakesFromDevice() const override { return weights_ && weights_->TakesFromDevice(); }
  void Publish(const PolicyVersion& version, std::span<const WeightSet> sets) override;

  // Of rank 0, called from within its ports while they wait; outside of a wait it says nothing.
  void StillWaiting();

 private:
  std::vector<TrajectoryGroup> Wait(const std::function<std::vector<TrajectoryGroup>()>& ask);

  learner::Ranks& ranks_;
  BatchSource* const batches_;
  WeightSink* const weights_;
  bool waiting_ = false;
  std::chrono::steady_clock::time_point said_{};
};

// Cached log-probs are rank 0's: all ranks find, or lack, the same.
class RankedLogprobs : public LogprobCache {
 public:
  // `cache`: nullptr on the other ranks.
  RankedLogprobs(learner::Ranks& ranks, LogprobCache* cache) : ranks_(ranks), cache_(cache) {}
  std::optional<std::vector<float>> Get(const Digest& model, const Digest& sequence) override;
  void Put(const Digest& model, const Digest& sequence, std::span<const float> logprobs) override;

 private:
  learner::Ranks& ranks_;
  LogprobCache* const cache_;
};

// Rank 0's, on all ranks: what is trained on, without notes and counts.
PreferenceData SharedPreferences(learner::Ranks& ranks,
                                 const std::function<PreferenceData()>& load);

}  // namespace plumb::run
