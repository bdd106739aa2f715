// Proximal policy optimisation with a critic on a batch of scored groups.
//
// Purpose: the KL to the reference per token in the reward (or in the loss), the score at the last
// token, advantages from the critic's values (GAE), whitened over the batch; then epochs x
// minibatches of clipped policy updates and clipped value updates (Schulman et al., "Proximal
// Policy Optimization Algorithms", 2017; Ouyang et al., "Training language models to follow
// instructions with human feedback", 2022). The formulas are in policy_loss.h, value_loss.h and
// ppo_targets.h.
//
//   scores --clip, scale--+                       +--> policy_loss --> policy and its optimizer
//   log-prob - reference --+--> GAE --> advantages, returns
//   critic's values -------+                      +--> value_loss ---> critic and its optimizer
// Thread safety: one thread. Ownership: owns the critic; borrows the policy, its optimizer and the
// reference.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "learner/algorithms/algorithm.h"
#include "learner/algorithms/critic.h"
#include "learner/algorithms/kl_controller.h"
#include "learner/algorithms/off_policy.h"
#include "learner/algorithms/policy_loss.h"
#include "learner/algorithms/ppo_targets.h"
#include "learner/algorithms/reward_scaling.h"

namespace plumb::learner {

class Ppo : public Algorithm {
 public:
  // `context.reference` may be nullptr when algorithm.kl_coef is 0.
  explicit Ppo(const AlgorithmContext& context);

  // Throws kNonFinite (too many skipped updates in a row) / kConflict (log-probs of actor and
  // learner further apart than algorithm.logprob_gate).
  std::map<std::string, double> Train(std::span<const TrajectoryGroup> groups, double learning_rate,
                                      int64_t step) override;
  std::vector<NamedModel> Models() override { return {critic_.model()}; }
  std::string StateJson() const override;
  void RestoreState(const std::string& json) override;

  Critic& critic() { return critic_; }
  double kl_coef() const { return controller_.coefficient(); }

 private:
  // A trajectory that takes part: what the loss needs of it, over its scored tokens.
  struct Sample {
    const Trajectory* trajectory = nullptr;
    PpoAnswer<double> answer;
    std::vector<double> reference;   // kl_placement = "loss"; empty otherwise
    std::vector<double> importance;  // off-policy weight; empty: 1
    TeacherRows teacher;             // empty: nobody teaches it
    size_t tokens() const { return answer.rewards.size(); }
  };
  struct Totals;

  std::vector<Sample> Prepare(std::span<const TrajectoryGroup> groups, int64_t step,
                              std::map<std::string, double>& metrics);
  void Minibatch(std::span<Sample> samples, double learning_rate, double critic_rate,
                 bool train_policy, bool check_gate, bool first, Totals& totals);

  const configs::AlgorithmConfig options_;
  const configs::CriticConfig critic_options_;
  const double peak_learning_rate_;
  const float temperature_;
  const configs::KvType kv_type_;
  const configs::Products products_;
  const int64_t max_new_tokens_;
  const uint64_t seed_;
  const bool recompute_;  // old log-probs by the learner
  const OffPolicyOptions<double> off_policy_;
  const KlEstimator estimator_;
  const ClipOptions clip_;
  const bool kl_in_reward_, kl_in_loss_;
  TrainStep& train_;
  policy_model::Weights& weights_;
  Optimizer& optimizer_;
  ReferencePolicy* reference_;
  Distiller* distiller_;
  Critic critic_;
  KlController<double> controller_;
  RewardScaling<double> scaling_;
  int64_t non_finite_scores_ = 0;  // since the start of the run
};

}  // namespace plumb::learner
