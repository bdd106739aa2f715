// What tests of the loops share: a recipe of six steps, and when two runs came to the same.
#pragma once

#include <gtest/gtest.h>

#include "configs/config.h"
#include "learner/loop/step_loop.h"

namespace plumb::learner {

inline configs::Config Recipe() {
  configs::Config config;
  config.run.steps = 6;
  config.run.checkpoint_every = 0;
  config.rollout.prompts_per_step = 2;
  config.optimizer.learning_rate = 1e-3;
  return config;
}

inline void ExpectSame(const LearnerResult& a, const LearnerResult& b) {
  EXPECT_EQ(a.policy, b.policy);
  EXPECT_EQ(a.weights_sha256, b.weights_sha256);
  EXPECT_EQ(a.optimizer_sha256, b.optimizer_sha256);
  EXPECT_EQ(a.model_sha256, b.model_sha256);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.steps, b.steps);
}

}  // namespace plumb::learner
