// A tiny model and scored groups for the learner's tests.
#pragma once

#include <vector>

#include "common/base/rng.h"
#include "common/record/trajectory.h"
#include "configs/config.h"
#include "learner/update/train_step.h"
#include "policy_model/memory/weights.h"

namespace plumb::learner {

inline policy_model::ModelShape TinyShape() {
  return {.family = "llama",
          .layers = 2,
          .hidden = 32,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .ffn = 48,
          .vocab = 19,
          .max_positions = 64,
          .tied = true,
          .eos_tokens = {2}};
}

inline std::vector<Demonstration> RandomDemonstrations(int n, uint64_t seed) {
  RandomStream random(seed, 7);
  std::vector<Demonstration> out;
  for (int i = 0; i < n; ++i) {
    Demonstration d;
    const int length = 6 + static_cast<int>(random.NextBelow(9));
    // A pattern that can be learned: each token is the one before plus two.
    int32_t token = static_cast<int32_t>(3 + random.NextBelow(16));
    for (int k = 0; k < length; ++k) {
      d.tokens.push_back(token);
      d.loss_mask.push_back(k >= 2);
      token = 3 + (token - 3 + 2) % 16;
    }
    out.push_back(std::move(d));
  }
  return out;
}

// Adds the gradients of the mean loss of the demonstrations' scored tokens, and returns that loss.
inline double AccumulateMeanLoss(TrainStep& train, Optimizer& optimizer,
                                 const policy_model::Weights& weights,
                                 const std::vector<Demonstration>& data) {
  std::vector<SequenceView> views;
  int64_t scored = 0;
  for (const Demonstration& d : data) {
    views.push_back({d.tokens, d.loss_mask});
    for (size_t i = 1; i < d.loss_mask.size(); ++i) scored += d.loss_mask[i];
  }
  double loss = 0;
  optimizer.ZeroGrad();
  train.Accumulate(
      weights, views, 1.0f,
      [&](const ScoredToken& token) {
        loss -= static_cast<double>(token.logprob) / static_cast<double>(scored);
        return TrainStep::Gradient{.logprob = -1.0f / static_cast<float>(scored)};
      },
      optimizer.gradients());
  return loss;
}

// Groups of answers sampled uniformly, with the log-probs that `weights` gives them and random
// rewards.
inline std::vector<TrajectoryGroup> RandomGroups(int groups, int answers, uint64_t seed,
                                                 TrainStep& train,
                                                 const policy_model::Weights& weights,
                                                 int64_t version) {
  RandomStream random(seed, 11);
  std::vector<TrajectoryGroup> out;
  for (int g = 0; g < groups; ++g) {
    TrajectoryGroup group;
    group.run_id = "test";
    group.lease.lease_id = static_cast<uint64_t>(g);
    group.lease.num_samples = answers;
    group.policy.version = version;
    const int prompt = 3 + static_cast<int>(random.NextBelow(3));
    for (int a = 0; a < answers; ++a) {
      Trajectory t;
      t.sample = static_cast<uint32_t>(a);
      const int length = prompt + 2 + static_cast<int>(random.NextBelow(8));
      for (int k = 0; k < length; ++k) {
        const bool policy = k >= prompt;
        t.tokens.push_back(static_cast<int32_t>(random.NextBelow(19)));
        t.loss_mask.push_back(policy);
        t.policy_versions.push_back(policy ? version : -1);
      }
      t.logprobs.assign(t.tokens.size(), 0.0f);
      t.segments = {{.origin = Origin::kPrompt, .begin = 0, .end = prompt},
                    {.origin = Origin::kPolicy, .begin = prompt, .end = length}};
      t.reward = static_cast<double>(random.NextBelow(4)) / 3.0;
      t.scored = true;
      t.rewards = {{.name = "correct", .value = t.reward}};
      const SequenceView view{t.tokens, t.loss_mask};
      const auto lp = train.Score(weights, std::span(&view, 1), 1.0f)[0];
      for (size_t k = 0; k < lp.size(); ++k) t.logprobs[static_cast<size_t>(prompt) + k] = lp[k];
      group.trajectories.push_back(std::move(t));
    }
    out.push_back(std::move(group));
  }
  return out;
}

}  // namespace plumb::learner
