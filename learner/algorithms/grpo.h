// Policy optimisation without a critic on a batch of scored groups: GRPO and its family.
//
// Purpose: advantages from the group (or leave-one-out, or over the batch), a loss of
// answer_loss.h, weights of off_policy.h, optional KL against a reference in the loss or in the
// reward, aggregation over tokens or sequences (Shao et al., "DeepSeekMath", 2024, eq. 3;
// aggregations: Yu et al., "DAPO", 2025, and Liu et al., "Understanding R1-Zero-Like Training",
// 2025), masks of training_mask.h and covariance.h. What an update has to know of all its tokens
// before it weighs the first one (covariances, the quantile of entropies) costs one more forward.
// Thread safety: one thread.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "common/record/trajectory.h"
#include "configs/batch_ramp.h"
#include "configs/config.h"
#include "learner/algorithms/algorithm.h"
#include "learner/algorithms/answer_loss.h"
#include "learner/algorithms/entropy_control.h"
#include "learner/algorithms/off_policy.h"
#include "learner/algorithms/policy_loss.h"
#include "learner/distill/distiller.h"
#include "learner/update/optimizer.h"
#include "learner/update/reference_policy.h"
#include "learner/update/train_step.h"

namespace plumb::learner {

using configs::Advantage;
using configs::Aggregation;
using configs::KlPlacement;

// objective, ratio, clip_*, dual_clip and the options of single objectives.
AnswerLossOptions AnswerLossOptionsOf(const configs::AlgorithmConfig& options);
// kl_estimator, kl_straight_through and kl_bias_correction.
AnswerKlOptions AnswerKlOptionsOf(const configs::AlgorithmConfig& options);

// off_policy, tis_floor and tis_cap; tis_cap = 0 is off.
OffPolicyOptions<double> OffPolicyOptionsOf(const configs::AlgorithmConfig& options);

// Weight of one token of a sequence with `length` scored tokens, in a batch of `sequences` with
// `tokens` scored tokens.
double TokenWeight(Aggregation aggregation, int64_t length, int64_t sequences, int64_t tokens,
                   int64_t max_new_tokens);

class Grpo : public Algorithm {
 public:
  // `reference` may be nullptr when algorithm.kl_coef is 0.
  Grpo(const configs::Config& config, TrainStep& train, policy_model::Weights& weights,
       Optimizer& optimizer, ReferencePolicy* reference, Distiller* distiller = nullptr);

  // One batch: epochs x minibatches updates. Returns metrics under the names of docs/metrics.md.
  // Throws kNonFinite / kConflict (log-probs of actor and learner further apart than
  // algorithm.logprob_gate).
  std::map<std::string, double> Train(std::span<const TrajectoryGroup> groups, double learning_rate,
                                      int64_t step) override;
  // Of an entropy_coef that moves; else none.
  std::string StateJson() const override;
  void RestoreState(const std::string& json) override;

  // A trajectory that takes part in the loss.
  struct Sample {
    const Trajectory* trajectory = nullptr;
    std::vector<double> advantage;   // [tokens]
    int64_t tokens = 0;              // scored
    bool policy = true;              // false: of equal rewards, here for KL and entropy only
    std::vector<float> old_logprob;  // [tokens] the ratio's denominator
    std::vector<float> reference;    // [tokens]; empty without a KL term in the loss
    std::vector<float> importance;   // [tokens] off-policy weight; empty: 1
    std::vector<float> sampled;      // [tokens] of the policy that wrote it; empty: nobody asks
    std::vector<uint8_t> picked;     // [tokens] by covariance, in this update; empty: none
    std::vector<uint8_t> trains;     // [tokens] by entropy, in this update; empty: all
    TeacherRows teacher;             // empty: nobody teaches it
  };

 private:
  std::vector<Sample> Prepare(std::span<const TrajectoryGroup> groups, int64_t step,
                              std::map<std::string, double>& metrics);
  struct Totals;
  // Fills `picked` and `trains`, each where the recipe asks for it. `update` numbers it.
  void LookAhead(std::span<Sample> samples, std::span<const SequenceView> views, uint64_t update);
  void Minibatch(std::span<Sample> samples, double learning_rate, bool check_gate, uint64_t update,
                 bool first, Totals& totals);

  const configs::AlgorithmConfig options_;
  const float temperature_;
  const configs::KvType kv_type_;
  const configs::Products products_;
  const int64_t max_new_tokens_;
  const uint64_t seed_;
  const bool recompute_;              // old log-probs by the learner
  const configs::BatchRamp batches_;  // in prompts
  const bool replays_;                // batches hold groups of earlier steps behind the step's own
  const AnswerLossOptions loss_;
  const AnswerKlOptions kl_;
  OffPolicyOptions<double> off_policy_;
  Aggregation aggregation_;
  EntropyControl entropy_;
  TrainStep& train_;
  policy_model::Weights& weights_;
  Optimizer& optimizer_;
  ReferencePolicy* reference_;
  Distiller* distiller_;
};

}  // namespace plumb::learner
