// The learner's parts on a tiny model: learner/algorithms/algorithm.h, returns.h, schedule.h,
// optimizer.h, train_step.h, sft.h, grpo.h, reference_policy.h, checkpoint.h, learner_loop.h.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "common/base/error.h"
#include "learner/algorithms/algorithm.h"
#include "learner/algorithms/grpo.h"
#include "learner/algorithms/returns.h"
#include "learner/loop/learner_loop.h"
#include "learner/offline/sft.h"
#include "learner/offline/sft_objective.h"
#include "learner/update/checkpoint.h"
#include "learner/update/optimizer.h"
#include "learner/update/reference_policy.h"
#include "learner/update/schedule.h"
#include "learner/update/train_step.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using policy_model::Transformer;
using policy_model::Weights;

struct Tiny {
  Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
  Transformer transformer{TinyShape(), Device::kCpu, DType::kFloat32};
  TrainStep train{transformer, 64};
  Tiny() { weights.Initialise(3, 0.2); }
};

std::vector<std::byte> Bytes(const policy_model::FlatBuffer& buffer) {
  std::vector<std::byte> out(buffer.bytes());
  buffer.CopyToHost(out);
  return out;
}

TEST(ReturnsTest, GroupAdvantages) {
  const std::vector<double> rewards = {1, 0, 0, 1, 5};
  const std::vector<unsigned char> counts = {1, 1, 1, 1, 0};
  const GroupAdvantage plain = GroupAdvantages(rewards, counts, false, 1e-4);
  EXPECT_DOUBLE_EQ(plain.mean, 0.5);
  EXPECT_DOUBLE_EQ(plain.advantage[0], 0.5);
  EXPECT_DOUBLE_EQ(plain.advantage[4], 0);
  const GroupAdvantage scaled = GroupAdvantages(rewards, counts, true, 1e-4);
  EXPECT_DOUBLE_EQ(scaled.std, std::sqrt(1.0 / 3));  // unbiased
  EXPECT_DOUBLE_EQ(scaled.advantage[1], -0.5 / (std::sqrt(1.0 / 3) + 1e-4));
  const std::vector<double> same(5, 0.1 + 0.2);
  const GroupAdvantage equal = GroupAdvantages(same, counts, true, 1e-4);
  EXPECT_TRUE(equal.equal);
  for (double a : equal.advantage) EXPECT_EQ(a, 0);
}

TEST(ScheduleTest, WarmupAndDecay) {
  const LrOptions cosine{.schedule = LrSchedule::kCosine,
                         .peak = 1,
                         .warmup_fraction = 0.1,
                         .min_fraction = 0.1,
                         .steps = 100};
  EXPECT_DOUBLE_EQ(LearningRate(cosine, 0), 0.1);
  EXPECT_DOUBLE_EQ(LearningRate(cosine, 9), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(cosine, 10), 1.0);
  EXPECT_NEAR(LearningRate(cosine, 55), 0.55, 1e-12);
  EXPECT_NEAR(LearningRate(cosine, 100), 0.1, 1e-12);
  const LrOptions linear{.schedule = LrSchedule::kLinear, .peak = 2, .steps = 10};
  EXPECT_DOUBLE_EQ(LearningRate(linear, 5), 1.0);
}

TEST(TrainStepTest, MicroBatchesAddUpToTheWhole) {
  Tiny tiny;
  const auto groups = RandomGroups(3, 4, 5, tiny.train, tiny.weights, 0);
  std::vector<SequenceView> views;
  for (const auto& g : groups) {
    for (const auto& t : g.trajectories) views.push_back({t.tokens, t.loss_mask});
  }
  const auto gradient = [&](int64_t budget) {
    TrainStep train(tiny.transformer, budget);
    policy_model::FlatBuffer grad(Device::kCpu, DType::kFloat32, tiny.weights.flat().elements());
    train.Accumulate(
        tiny.weights, views, 1.0f,
        [](const ScoredToken& t) {
          return TrainStep::Gradient{0.1f * static_cast<float>(t.token), 0.05f};
        },
        grad);
    return std::vector<float>(grad.f32(), grad.f32() + grad.elements());
  };
  const auto whole = gradient(1 << 20), parts = gradient(20);
  double norm = 0, diff = 0;
  for (size_t i = 0; i < whole.size(); ++i) {
    norm += static_cast<double>(whole[i]) * static_cast<double>(whole[i]);
    diff += std::pow(static_cast<double>(whole[i] - parts[i]), 2);
  }
  EXPECT_GT(norm, 0);
  EXPECT_LT(std::sqrt(diff / norm), 1e-5);  // another order of fp32 additions
}

TEST(OptimizerTest, NonFiniteUpdatesAreSkippedThenStopTheRun) {
  Tiny tiny;
  Optimizer optimizer(tiny.weights, {.learning_rate = 0.1, .max_skipped_in_a_row = 3});
  const auto before = Bytes(tiny.weights.flat());
  optimizer.grad().f32()[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(optimizer.Update(0.1, 1.0).applied);
  optimizer.ZeroGrad();
  EXPECT_FALSE(optimizer.Update(0.1, std::numeric_limits<double>::infinity()).applied);
  EXPECT_EQ(Bytes(tiny.weights.flat()), before);
  EXPECT_EQ(optimizer.skipped(), 2);
  optimizer.grad().f32()[5] = std::numeric_limits<float>::infinity();
  EXPECT_THROW(optimizer.Update(0.1, 1.0), Error);
  EXPECT_EQ(Bytes(tiny.weights.flat()), before);
}

TEST(OptimizerTest, ClipsByTheGlobalNorm) {
  Tiny tiny;
  Optimizer optimizer(tiny.weights, {.learning_rate = 0.1, .grad_clip = 1.0});
  for (int i = 0; i < 100; ++i) optimizer.grad().f32()[i] = 3.0f;
  const UpdateResult result = optimizer.Update(0.1, 0.0);
  EXPECT_TRUE(result.applied);
  EXPECT_NEAR(result.grad_norm, 30.0, 1e-6);
  EXPECT_NEAR(optimizer.m().f32()[0], 0.1f * 3.0f / 30.0f, 1e-6);  // (1 - beta1) * clipped
}

TEST(SftTest, LearnsAPatternAndSaysWhenTheBatchIsTooLarge) {
  Tiny tiny;
  Optimizer optimizer(tiny.weights, {});
  const auto data = RandomDemonstrations(40, 1), heldout = RandomDemonstrations(20, 2);
  const double before = DemonstrationLoss(tiny.train, tiny.weights, heldout);
  const SftResult result =
      RunSft(tiny.train, tiny.weights, optimizer,
             {.steps = 60, .batch = 16, .learning_rate = 1e-2, .eval_every = 20}, 1, data, heldout,
             [](const SftStep&, const SftResult&) { return true; });
  EXPECT_EQ(result.steps, 60);
  EXPECT_LT(result.heldout_last, 0.5 * before);
  EXPECT_THROW(RunSft(tiny.train, tiny.weights, optimizer, {.steps = 1, .batch = 64}, 1, data,
                      heldout, [](const SftStep&, const SftResult&) { return true; }),
               Error);
}

TEST(SftTest, DecaysByItsOwnOption) {
  const auto data = RandomDemonstrations(40, 1);
  const auto run = [&](double own, double of_the_policy) {
    Tiny tiny;
    Optimizer optimizer(tiny.weights, {.weight_decay = of_the_policy});
    RunSft(tiny.train, tiny.weights, optimizer,
           {.steps = 3, .batch = 16, .learning_rate = 1e-2, .weight_decay = own}, 1, data, {},
           [](const SftStep&, const SftResult&) { return true; });
    return Bytes(tiny.weights.flat());
  };
  const auto none = run(0, 0);
  EXPECT_EQ(run(0, 0.5), none) << "the warm start takes the decay of the policy's updates";
  EXPECT_NE(run(0.5, 0), none);
  EXPECT_EQ(run(0.5, 0), run(0.5, 0.5));
}

// Stopped after any update and taken up again with the same optimizer, a warm start ends with the
// bits of the unbroken one, and its patience where that one's does.
TEST(SftTest, GoesOnWhereItStoodBitForBit) {
  const auto data = RandomDemonstrations(40, 1), heldout = RandomDemonstrations(20, 2);
  const auto run = [&](const configs::SftConfig& options, int64_t stop_after) {
    Tiny tiny;
    Optimizer optimizer(tiny.weights, {});
    SftResult result;
    const auto part = [&](bool stops) {
      result = RunSft(
          tiny.train, tiny.weights, optimizer, options, 1, data, heldout,
          [&](const SftStep& step, const SftResult& done) {
            EXPECT_EQ(done.steps, step.step + 1);
            return !stops || done.steps != stop_after;
          },
          result);
    };
    part(true);
    EXPECT_EQ(result.stopped, stop_after < options.steps) << stop_after;
    if (result.stopped) part(false);
    EXPECT_FALSE(result.stopped);
    return std::make_pair(Bytes(tiny.weights.flat()), result);
  };
  const configs::SftConfig learning{
      .steps = 20, .batch = 16, .learning_rate = 3e-3, .eval_every = 4};
  const configs::SftConfig stuck{.steps = 60,
                                 .batch = 16,
                                 .learning_rate = 1e-9,
                                 .lr_schedule = LrSchedule::kConstant,
                                 .eval_every = 4,
                                 .patience = 3};
  for (const configs::SftConfig& options : {learning, stuck}) {
    const auto [whole, result] = run(options, 1000);
    EXPECT_EQ(result.steps, options.patience > 0 ? 16 : 20);
    for (const int64_t stop : {1, 4, 7, 15}) {
      const auto [weights, parts] = run(options, stop);
      EXPECT_EQ(weights, whole) << stop;
      EXPECT_EQ(parts.steps, result.steps);
      EXPECT_EQ(parts.tokens, result.tokens);
      EXPECT_EQ(parts.heldout_first, result.heldout_first);
      EXPECT_EQ(parts.heldout_last, result.heldout_last);
      EXPECT_EQ(parts.lowest, result.lowest);
      EXPECT_EQ(parts.flat, result.flat);
    }
  }
}

TEST(SftTest, EndsWhenTheHeldOutLossIsFlatAndNotBefore) {
  const auto data = RandomDemonstrations(40, 1), heldout = RandomDemonstrations(20, 2);
  const auto run = [&](double rate, int64_t patience, std::vector<double>& losses) {
    Tiny tiny;
    Optimizer optimizer(tiny.weights, {});
    return RunSft(tiny.train, tiny.weights, optimizer,
                  {.steps = 60,
                   .batch = 16,
                   .learning_rate = rate,
                   .lr_schedule = LrSchedule::kConstant,
                   .eval_every = 4,
                   .patience = patience},
                  1, data, heldout, [&](const SftStep& step, const SftResult&) {
                    if (step.heldout_loss >= 0) losses.push_back(step.heldout_loss);
                    return true;
                  });
  };
  std::vector<double> still, falling, all;
  // a rate that moves nothing: the first loss stays the lowest
  const SftResult stuck = run(1e-9, 3, still);
  EXPECT_EQ(stuck.steps, 16);  // measured at 4, then three times in vain
  EXPECT_EQ(still.size(), 4u);
  EXPECT_TRUE(stuck.flat);
  EXPECT_FALSE(stuck.stopped);
  EXPECT_EQ(run(1e-9, 0, all).steps, 60);
  const SftResult learning = run(3e-4, 1, falling);  // every loss is a new low
  EXPECT_EQ(learning.steps, 60);
  EXPECT_FALSE(learning.flat);
  for (size_t i = 1; i < falling.size(); ++i) EXPECT_LT(falling[i], 0.98 * falling[i - 1]) << i;
}

// The gradient of a whole GRPO batch against finite differences of its loss, along the gradient
// itself.
TEST(GrpoTest, GradientMatchesFiniteDifferencesOfTheLoss) {
  for (const std::string aggregation : {"token", "sequence", "constant"}) {
    Tiny tiny;
    const auto groups = RandomGroups(3, 4, 9, tiny.train, tiny.weights, 0);
    configs::Config config;
    config.rollout.max_new_tokens = 12;
    config.algorithm.aggregation = configs::FromName<Aggregation>(aggregation).value();
    config.algorithm.kl_coef = 0.3;
    config.algorithm.clip_low = config.algorithm.clip_high = 10;  // smooth: nothing is clipped
    config.algorithm.clip_low = 1;
    config.optimizer.learning_rate = 1;
    config.optimizer.grad_clip = 0;
    Weights other(TinyShape(), Device::kCpu, DType::kFloat32);
    other.Initialise(4, 0.1);  // near enough that the estimator's clamp is not met
    ReferencePolicy reference(other, tiny.train);
    // The optimizer's first moment after one update is (1 - beta1) * gradient: a way to read it.
    const auto loss_at = [&](Weights& weights, std::vector<float>* gradient) {
      Optimizer optimizer(weights, config.optimizer);
      Grpo grpo(config, tiny.train, weights, optimizer, &reference);
      const auto metrics = grpo.Train(groups, 0.0, 0);
      if (gradient) {
        gradient->assign(optimizer.m().f32(), optimizer.m().f32() + optimizer.m().elements());
        for (float& g : *gradient) g /= 0.1f;
      }
      return metrics.at("policy/loss");
    };
    std::vector<float> gradient;
    loss_at(tiny.weights, &gradient);
    double squares = 0;
    for (float g : gradient) squares += static_cast<double>(g) * static_cast<double>(g);
    ASSERT_GT(squares, 0);
    const double h = 5e-4 / std::sqrt(squares);
    double at[2];
    for (int side = 0; side < 2; ++side) {
      Weights moved(TinyShape(), Device::kCpu, DType::kFloat32);
      moved.flat().CopyFromHost(Bytes(tiny.weights.flat()));
      for (size_t i = 0; i < gradient.size(); ++i) {
        moved.flat().f32()[i] +=
            static_cast<float>((side == 0 ? h : -h) * static_cast<double>(gradient[i]));
      }
      config.algorithm.logprob_gate = 0;  // these weights did not sample
      at[side] = loss_at(moved, nullptr);
    }
    // fp32 forward: the loss is good to about 1e-6, the step moves it by about 1e-3.
    EXPECT_NEAR((at[0] - at[1]) / (2 * h), squares, 0.01 * squares) << aggregation;
  }
}

TEST(GrpoTest, EqualGroupsMoveNothingAndUnscoredAnswersAreMasked) {
  Tiny tiny;
  auto groups = RandomGroups(2, 4, 9, tiny.train, tiny.weights, 0);
  for (auto& t : groups[0].trajectories) t.reward = 1;
  for (size_t i = 0; i < 4; ++i) groups[1].trajectories[i].reward = 0.25;
  groups[1].trajectories[2].reward = 7;
  groups[1].trajectories[2].scored = false;
  configs::Config config;
  Optimizer optimizer(tiny.weights, config.optimizer);
  Grpo grpo(config, tiny.train, tiny.weights, optimizer, nullptr);
  const auto before = Bytes(tiny.weights.flat());
  const auto metrics = grpo.Train(groups, 1e-2, 0);
  EXPECT_EQ(metrics.at("reward/zero_std_groups"), 2);
  EXPECT_EQ(metrics.at("reward/unscored"), 1);
  EXPECT_EQ(metrics.at("policy/updates"), 0);
  EXPECT_EQ(Bytes(tiny.weights.flat()), before);
}

// What skip_equal_groups leaves out is the policy term: the gradient of a batch with an equal group
// is that of the other groups' policy terms, averaged over them, plus KL and entropy of all
// answers.
TEST(GrpoTest, EqualGroupsKeepTheirKlAndEntropy) {
  for (const std::string aggregation : {"token", "sequence", "constant"}) {
    Tiny tiny;
    auto groups = RandomGroups(3, 4, 9, tiny.train, tiny.weights, 0);
    for (auto& t : groups[1].trajectories) t.reward = 0.5;
    auto all_equal = groups;
    for (auto& group : all_equal) {
      for (auto& t : group.trajectories) t.reward = 0.5;
    }
    Weights other(TinyShape(), Device::kCpu, DType::kFloat32);
    other.Initialise(4, 0.1);
    ReferencePolicy reference(other, tiny.train);
    const auto gradient = [&](const std::vector<TrajectoryGroup>& batch, bool skip, double kl,
                              double entropy) {
      configs::Config config;
      config.rollout.max_new_tokens = 12;
      config.algorithm.aggregation = configs::FromName<Aggregation>(aggregation).value();
      config.algorithm.skip_equal_groups = skip;
      config.algorithm.kl_coef = kl;
      config.algorithm.entropy_coef = entropy;
      config.optimizer.grad_clip = 0;
      Optimizer optimizer(tiny.weights, config.optimizer);
      Grpo grpo(config, tiny.train, tiny.weights, optimizer, &reference);
      const auto metrics = grpo.Train(batch, 0.0, 0);
      EXPECT_EQ(metrics.at("policy/groups_used"), &batch == &all_equal ? 0 : 2) << aggregation;
      return std::vector<float>(optimizer.m().f32(),
                                optimizer.m().f32() + optimizer.m().elements());
    };
    const auto whole = gradient(groups, true, 0.3, 0.1), policy = gradient(groups, true, 0, 0);
    const auto rest = gradient(all_equal, true, 0.3, 0.1);
    double scale = 0, error = 0, of_rest = 0;
    for (size_t i = 0; i < whole.size(); ++i) {
      scale = std::max(scale, std::abs(static_cast<double>(whole[i])));
      of_rest = std::max(of_rest, std::abs(static_cast<double>(rest[i])));
      error = std::max(error, std::abs(static_cast<double>(whole[i] - policy[i] - rest[i])));
    }
    EXPECT_GT(of_rest, 0.01 * scale) << aggregation;
    EXPECT_LT(error, 1e-4 * scale) << aggregation;
  }
}

TEST(GrpoTest, TheGateStopsAnActorWithOtherWeights) {
  Tiny tiny;
  auto groups = RandomGroups(2, 4, 9, tiny.train, tiny.weights, 0);
  groups[0].trajectories[0].reward = 0;
  groups[0].trajectories[1].reward = 1;
  configs::Config config;
  Optimizer optimizer(tiny.weights, config.optimizer);
  Grpo grpo(config, tiny.train, tiny.weights, optimizer, nullptr);
  EXPECT_LT(grpo.Train(groups, 0.0, 0).at("sampling/logprob_diff_mean"), 1e-5);
  for (auto& t : groups[0].trajectories) {
    for (float& lp : t.logprobs) lp *= 1.5f;
  }
  EXPECT_THROW(grpo.Train(groups, 0.0, 0), Error);
}

TEST(CheckpointTest, RestoresEveryBitAndKeepsTheNewest) {
  testing::TempFolder folder;
  Tiny tiny;
  Optimizer optimizer(tiny.weights, {.learning_rate = 0.01});
  Checkpoints checkpoints(folder.path() + "/c", 2, "");
  for (int64_t step : {1, 2, 3}) {
    // padding between tensors has no gradient and is not stored
    for (const auto& e : tiny.weights.table().entries()) {
      for (int64_t i = e.offset; i < e.offset + e.elements; ++i) {
        optimizer.grad().f32()[i] = 0.01f * static_cast<float>((i + step) % 7);
      }
    }
    optimizer.Update(0.01, 0);
    checkpoints.Save({.step = step,
                      .policy = {.version = step, .digest = tiny.weights.ComputeDigest()},
                      .counters = optimizer.counters(),
                      .moment_steps = optimizer.moment_steps(),
                      .seed = 5,
                      .store_cursor = step * 32,
                      .state_json = "{\"x\":1}"},
                     tiny.weights, optimizer);
  }
  EXPECT_EQ(checkpoints.OldestCursor(), 64);
  Tiny other;
  Optimizer restored(other.weights, {});
  const auto found = checkpoints.FindNewest();
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->state.step, 3);
  EXPECT_EQ(found->state.state_json, "{\"x\":1}");
  checkpoints.Load(*found, other.weights, restored);
  EXPECT_EQ(Bytes(other.weights.flat()), Bytes(tiny.weights.flat()));
  EXPECT_EQ(Bytes(restored.m()), Bytes(optimizer.m()));
  EXPECT_EQ(Bytes(restored.v()), Bytes(optimizer.v()));
  EXPECT_EQ(restored.counters(), optimizer.counters());
}

TEST(CheckpointTest, ModelsBesideThePolicyComeBackWithTheirOptimizers) {
  testing::TempFolder folder;
  Tiny tiny, second;
  second.weights.Initialise(8, 0.3);
  Optimizer optimizer(tiny.weights, {}), second_optimizer(second.weights, {});
  for (const auto& e : second.weights.table().entries())
    second_optimizer.grad().f32()[e.offset] = 0.25f;
  second_optimizer.Update(0.01, 0);
  second_optimizer.Update(0.01, std::numeric_limits<double>::infinity());
  const std::vector<NamedModel> models = {
      {.name = "critic", .weights = &second.weights, .optimizer = &second_optimizer}};
  Checkpoints checkpoints(folder.path() + "/c", 2, "");
  const auto state = std::make_unique<CheckpointState>();
  state->step = 4;
  state->policy = {.version = 4, .digest = tiny.weights.ComputeDigest()};
  state->algorithm_json = "{\"kl_coef\":0.25}";
  checkpoints.Save(*state, tiny.weights, optimizer, models);
  const auto found = checkpoints.FindNewest();
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->state.algorithm_json, "{\"kl_coef\":0.25}");
  Tiny other;
  Optimizer restored(other.weights, {});
  checkpoints.LoadModels(*found, std::vector<NamedModel>{{"critic", &other.weights, &restored}});
  EXPECT_EQ(Bytes(other.weights.flat()), Bytes(second.weights.flat()));
  EXPECT_EQ(Bytes(restored.m()), Bytes(second_optimizer.m()));
  EXPECT_EQ(Bytes(restored.v()), Bytes(second_optimizer.v()));
  EXPECT_EQ(restored.counters(), second_optimizer.counters());
  EXPECT_EQ(restored.moment_steps(), 1);
  // A recipe that trains other models than the checkpoint holds is refused.
  EXPECT_THROW(
      checkpoints.LoadModels(*found, std::vector<NamedModel>{{"judge", &other.weights, &restored}}),
      Error);
  EXPECT_THROW(checkpoints.LoadModels(*found, {}), Error);
}

TEST(AlgorithmTest, MadeByName) {
  Tiny tiny;
  configs::Config config;
  Optimizer optimizer(tiny.weights, config.optimizer);
  const AlgorithmContext context{
      .config = config, .train = tiny.train, .weights = tiny.weights, .optimizer = optimizer};
  EXPECT_NE(dynamic_cast<Grpo*>(MakeAlgorithm(context).get()), nullptr);
  config.algorithm.name = configs::AlgorithmName::kDpo;
  EXPECT_THROW(MakeAlgorithm(context), Error);
  EXPECT_FALSE(NeedsReference(config));
  config.algorithm.kl_coef = 0.1;
  EXPECT_TRUE(NeedsReference(config));
}

TEST(CheckpointTest, AFlippedByteIsNoticedAndTheOneBeforeIsUsed) {
  testing::TempFolder folder;
  Tiny tiny;
  Optimizer optimizer(tiny.weights, {});
  Checkpoints checkpoints(folder.path() + "/c", 2, "");
  for (int64_t step : {1, 2}) {
    checkpoints.Save(
        {.step = step, .policy = {.version = step, .digest = tiny.weights.ComputeDigest()}},
        tiny.weights, optimizer);
  }
  const auto flip = [](const std::string& path, long at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const char byte = static_cast<char>(file.get());
    file.seekp(at);
    file.put(static_cast<char>(byte ^ 4));
  };
  flip(folder.path() + "/c/step-00000002/optimizer.safetensors", 5000);
  auto found = checkpoints.FindNewest();
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->state.step, 1);
  ASSERT_EQ(found->rejected.size(), 1u);
  EXPECT_NE(found->rejected[0].find("SHA-256"), std::string::npos);
  flip(folder.path() + "/c/step-00000001/manifest.json", 40);
  EXPECT_THROW(checkpoints.FindNewest(), Error);  // starting over silently would lose the run
}

TEST(LearnerLoopTest, SummariseCountsUnscoredAnswersAsNotSolved) {
  TrajectoryGroup group;
  for (int i = 0; i < 4; ++i) {
    Trajectory t;
    t.scored = i != 3;
    t.reward = i == 0 ? 1 : 0;
    if (t.scored)
      t.rewards = {{.name = "length", .value = 1}, {.name = "correct", .value = t.reward}};
    group.trajectories.push_back(t);
  }
  const EvalResult result = Summarise(std::span(&group, 1), "correct", 7);
  EXPECT_EQ(result.answers, 4);
  EXPECT_EQ(result.unscored, 1);
  EXPECT_DOUBLE_EQ(result.accuracy, 0.25);
  EXPECT_DOUBLE_EQ(result.reward, 1.0 / 3);
  EXPECT_DOUBLE_EQ(result.reward_se, 1.0 / 3);  // of 1, 0, 0: deviation sqrt(1/3), over sqrt(3)
}

TEST(LearnerLoopTest, AccuracysErrorIsThatOfPrompts) {
  const auto groups = [](int64_t prompts, int64_t answers) {
    std::vector<TrajectoryGroup> out(static_cast<size_t>(prompts));
    for (int64_t p = 0; p < prompts; ++p) {
      for (int64_t a = 0; a < answers; ++a) {
        Trajectory t;
        t.scored = true;
        t.rewards = {{.name = "correct", .value = p % 4 == 0 ? 1.0 : 0.0}};
        out[static_cast<size_t>(p)].trajectories.push_back(t);
      }
    }
    return out;
  };
  const EvalResult once = Summarise(groups(100, 1), "correct", 0);
  EXPECT_DOUBLE_EQ(once.accuracy, 0.25);
  EXPECT_NEAR(once.accuracy_se, std::sqrt(0.25 * 0.75 / 99), 1e-12);
  const EvalResult often = Summarise(groups(100, 8), "correct", 0);
  EXPECT_NEAR(often.accuracy_se, once.accuracy_se, 1e-12)
      << "eight answers that agree say no more than one";
  EXPECT_EQ(Summarise(groups(1, 4), "correct", 0).accuracy_se, 0);
}

}  // namespace
}  // namespace plumb::learner
