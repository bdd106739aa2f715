// learner/algorithms/ppo.h on a tiny model: the gradient of the whole loss, critic included; a rule
// that is learned in seconds; resume bit for bit; numbers that are not finite.
#include "learner/algorithms/ppo.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/text/tokenizer/tokenizer.h"
#include "learner/algorithms/critic.h"
#include "policy_model/memory/scalar_head.h"
#include "tests/learner/algorithms/ppo_rig.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using policy_model::FlatBuffer;
using policy_model::Transformer;
using policy_model::Weights;

std::vector<std::byte> Bytes(const FlatBuffer& buffer) {
  std::vector<std::byte> out(buffer.bytes());
  buffer.CopyToHost(out);
  return out;
}

std::vector<float> Gradient(Optimizer& optimizer) {
  // The first moment after one update is (1 - beta1) * gradient: a way to read it.
  std::vector<float> out(optimizer.m().f32(), optimizer.m().f32() + optimizer.m().elements());
  for (float& g : out) g /= 0.1f;
  return out;
}

double SquaredNorm(const std::vector<float>& v) {
  double sum = 0;
  for (float x : v) sum += static_cast<double>(x) * static_cast<double>(x);
  return sum;
}

void Move(Weights& weights, const std::vector<float>& direction, double h) {
  for (size_t i = 0; i < direction.size(); ++i) {
    weights.flat().f32()[i] += static_cast<float>(h * static_cast<double>(direction[i]));
  }
}

// gamma = lam = 1: returns do not depend on the values, so the value loss is a plain function of
// the critic's weights, as its gradient takes it. Wide clips: nothing is cut, the loss is smooth.
configs::Config SmoothConfig(const std::string& mode) {
  configs::Config config = PpoConfig(mode);
  config.algorithm.lam = 1;
  config.algorithm.clip_low = 1;
  config.algorithm.clip_high = 10;
  config.algorithm.logprob_gate = 0;
  config.algorithm.entropy_coef = 0.02;
  config.algorithm.kl_coef = 0.1;
  config.critic.value_clip = 10;
  config.optimizer.grad_clip = 0;
  return config;
}

TEST(PpoTest, PolicyGradientMatchesFiniteDifferences) {
  for (const auto placement : {configs::KlPlacement::kReward, configs::KlPlacement::kLoss}) {
    configs::Config config = SmoothConfig("own");
    config.algorithm.kl_placement = placement;
    Rig base(config);
    base.DrawHead();
    const auto groups = RandomGroups(3, 4, 9, base.train, base.weights, 0);
    base.ppo->Train(groups, 0.0, 0);
    const std::vector<float> gradient = Gradient(base.optimizer);
    const double squares = SquaredNorm(gradient), h = 5e-4 / std::sqrt(squares);
    ASSERT_GT(squares, 0);
    double at[2];
    for (int side = 0; side < 2; ++side) {
      Rig moved(config);  // its critic is made before the policy moves
      moved.DrawHead();
      Move(moved.weights, gradient, side == 0 ? h : -h);
      at[side] = moved.ppo->Train(groups, 0.0, 0).at("policy/loss");
    }
    // fp32 forward: the loss is good to about 1e-6, the step moves it by about 1e-3.
    EXPECT_NEAR((at[0] - at[1]) / (2 * h), squares, 0.01 * squares) << NameOf(placement);
  }
}

TEST(PpoTest, CriticGradientMatchesFiniteDifferences) {
  const configs::Config config = SmoothConfig("own");
  Rig base(config);
  base.DrawHead();
  const auto groups = RandomGroups(3, 4, 9, base.train, base.weights, 0);
  base.ppo->Train(groups, 0.0, 0);
  const std::vector<float> gradient = Gradient(base.ppo->critic().optimizer());
  const double squares = SquaredNorm(gradient), h = 5e-4 / std::sqrt(squares);
  ASSERT_GT(squares, 0);
  double at[2];
  for (int side = 0; side < 2; ++side) {
    Rig moved(config);
    moved.DrawHead();
    Move(moved.ppo->critic().weights(), gradient, side == 0 ? h : -h);
    at[side] = moved.ppo->Train(groups, 0.0, 0).at("value/loss");
  }
  EXPECT_NEAR((at[0] - at[1]) / (2 * h), squares, 0.01 * squares);
}

// shared: the policy's gradient is that of the policy loss (equal to "own", whose critic starts
// with the same numbers) plus vf_coef times that of the value loss, which finite differences give;
// the head's gradient likewise.
TEST(PpoTest, SharedHeadAddsTheValueGradient) {
  configs::Config config = SmoothConfig("shared");
  const auto run = [&](const configs::Config& c, const std::vector<float>* trunk,
                       const std::vector<float>* head, double h,
                       std::vector<float>* policy_gradient, std::vector<float>* head_gradient) {
    Rig rig(c);
    rig.DrawHead();
    const auto groups = RandomGroups(3, 4, 9, rig.train, rig.weights, 0);
    if (trunk) Move(rig.weights, *trunk, h);
    if (head) Move(rig.ppo->critic().weights(), *head, h);
    const auto metrics = rig.ppo->Train(groups, 0.0, 0);
    if (policy_gradient) *policy_gradient = Gradient(rig.optimizer);
    if (head_gradient) *head_gradient = Gradient(rig.ppo->critic().optimizer());
    return metrics.at("value/loss");
  };
  std::vector<float> policy_only, total, head;
  configs::Config own = config;
  own.critic.mode = configs::CriticMode::kOwn;
  run(own, nullptr, nullptr, 0, &policy_only, nullptr);
  config.critic.vf_coef = 0.5;
  run(config, nullptr, nullptr, 0, &total, &head);
  std::vector<float> value_part = total;
  for (size_t i = 0; i < total.size(); ++i) value_part[i] = (total[i] - policy_only[i]) / 0.5f;
  for (float& g : head) g /= 0.5f;
  for (const bool in_head : {false, true}) {
    const std::vector<float>& direction = in_head ? head : value_part;
    const double squares = SquaredNorm(direction), h = 5e-4 / std::sqrt(squares);
    ASSERT_GT(squares, 0);
    const double up = run(config, in_head ? nullptr : &direction, in_head ? &direction : nullptr, h,
                          nullptr, nullptr);
    const double down = run(config, in_head ? nullptr : &direction, in_head ? &direction : nullptr,
                            -h, nullptr, nullptr);
    EXPECT_NEAR((up - down) / (2 * h), squares, 0.01 * squares) << (in_head ? "head" : "trunk");
  }
}

// Answers of `length` tokens sampled from the policy; the score is the share of even tokens: a rule
// a token can be right or wrong about, told only at the end.
std::vector<TrajectoryGroup> Play(Rig& rig, int answers, int length, int64_t step) {
  RandomStream random(17, static_cast<uint64_t>(step));
  std::vector<TrajectoryGroup> groups(static_cast<size_t>(answers));
  for (int a = 0; a < answers; ++a) {
    Trajectory t;
    t.tokens = {3 + static_cast<int32_t>(random.NextBelow(16))};
    t.loss_mask = {0};
    t.logprobs = {0};
    t.policy_versions = {-1};
    groups[static_cast<size_t>(a)].policy.version = step;
    groups[static_cast<size_t>(a)].trajectories = {t};
  }
  for (int k = 0; k < length; ++k) {
    policy_model::PackedBatch batch;
    batch.Clear();
    for (const auto& g : groups) {
      const auto& tokens = g.trajectories[0].tokens;
      batch.AppendRows(tokens, std::vector<int32_t>{static_cast<int32_t>(tokens.size()) - 1});
    }
    std::vector<float> logits(groups.size() * 19);
    rig.transformer.Logits(rig.weights, batch, logits);
    for (size_t a = 0; a < groups.size(); ++a) {
      const float* row = logits.data() + a * 19;
      double total = 0, at = 0;
      for (int v = 0; v < 19; ++v) total += std::exp(static_cast<double>(row[v]));
      const double pick = static_cast<double>(random.NextUniform()) * total;
      int32_t token = 0;
      for (; token < 18; ++token) {
        at += std::exp(static_cast<double>(row[token]));
        if (at >= pick) break;
      }
      Trajectory& t = groups[a].trajectories[0];
      t.tokens.push_back(token);
      t.loss_mask.push_back(1);
      t.policy_versions.push_back(step);
      t.logprobs.push_back(static_cast<float>(static_cast<double>(row[token]) - std::log(total)));
      t.reward += (token % 2 == 0) / static_cast<double>(length);
    }
  }
  for (auto& g : groups) {
    Trajectory& t = g.trajectories[0];
    t.scored = true;
    t.rewards = {{.name = "even", .value = t.reward}};
    t.segments = {
        {.origin = Origin::kPrompt, .begin = 0, .end = 1},
        {.origin = Origin::kPolicy, .begin = 1, .end = static_cast<int32_t>(t.tokens.size())}};
  }
  return groups;
}

TEST(PpoTest, LearnsARuleWithEitherCritic) {
  for (const std::string mode : {"own", "shared"}) {
    configs::Config config = PpoConfig(mode);
    config.algorithm.epochs = 2;
    config.algorithm.minibatches = 2;
    config.optimizer.learning_rate = 3e-3;
    config.critic.learning_rate = 5e-3;
    Rig rig(config);
    double first = 0, last = 0, first_value_loss = 0, value_loss = 0;
    for (int64_t step = 0; step < 60; ++step) {
      const auto metrics = rig.ppo->Train(Play(rig, 48, 6, step), 3e-3, step);
      if (step == 0) first = metrics.at("reward/mean");
      (step == 0 ? first_value_loss : value_loss) = metrics.at("value/loss");
      if (step >= 50) last += metrics.at("reward/mean") / 10;
      EXPECT_EQ(metrics.at("policy/updates"), 4);
      EXPECT_LT(metrics.at("sampling/logprob_diff_max"), 1e-4);
    }
    EXPECT_LT(first, 0.65) << mode;  // half of the tokens are even
    EXPECT_GT(last, 0.9) << mode;
    EXPECT_LT(value_loss, 0.1 * first_value_loss) << mode;
  }
}

// A policy that stands still and a critic that watches it: how much of fresh answers' returns it
// knows beforehand. Tokens are nearly independent, so of a score over 6 tokens the mean share known
// at a token is (0 + 1 + .. + 5) / 36 = 0.42 at most.
TEST(PpoTest, TheCriticExplainsReturnsOfFreshAnswers) {
  configs::Config config = PpoConfig("own");
  config.algorithm.lam = 1;
  config.algorithm.epochs = 4;
  config.critic.learning_rate = 3e-3;
  config.critic.value_clip = 0;
  config.critic.warmup_steps = 1000;
  Rig rig(config);
  double explained = 0;
  for (int64_t step = 0; step < 80; ++step) {
    const auto metrics = rig.ppo->Train(Play(rig, 64, 6, step), 1e-3, step);
    if (step >= 60) explained += metrics.at("value/explained_variance") / 20;
  }
  EXPECT_GT(explained, 0.3);
}

TEST(PpoTest, GoesOnBitForBitFromACheckpoint) {
  for (const std::string mode : {"own", "shared"}) {
    configs::Config config = PpoConfig(mode);
    config.algorithm.kl_coef = 0.1;
    config.algorithm.kl_controller = configs::KlController::kAdaptive;
    config.algorithm.kl_target = 0.01;
    config.algorithm.kl_horizon = 50;
    config.algorithm.reward_normalize = RewardNormalization::kWhiten;
    config.algorithm.reward_clip = 2;
    config.algorithm.epochs = 2;
    config.algorithm.minibatches = 3;
    config.algorithm.logprob_gate = 0;
    testing::TempFolder folder;
    Checkpoints checkpoints(folder.path() + "/c", 2, "");
    Rig whole(config);
    const auto batch = [&](Rig& rig, int64_t step) {
      return RandomGroups(3, 4, 100 + static_cast<uint64_t>(step), rig.train, rig.weights, step);
    };
    for (int64_t step = 0; step < 2; ++step) whole.ppo->Train(batch(whole, step), 1e-3, step);
    const auto state = std::make_unique<CheckpointState>();
    state->step = 2;
    state->policy = {.version = 2, .digest = whole.weights.ComputeDigest()};
    state->counters = whole.optimizer.counters();
    state->moment_steps = whole.optimizer.moment_steps();
    state->algorithm_json = whole.ppo->StateJson();
    checkpoints.Save(*state, whole.weights, whole.optimizer, whole.ppo->Models());
    // the controller has moved: there is something to restore
    EXPECT_NE(whole.ppo->kl_coef(), 0.1);
    std::map<std::string, double> expected;
    for (int64_t step = 2; step < 5; ++step)
      expected = whole.ppo->Train(batch(whole, step), 1e-3, step);

    Rig again(config);
    const auto found = checkpoints.FindNewest();
    ASSERT_TRUE(found.has_value());
    checkpoints.Load(*found, again.weights, again.optimizer);
    checkpoints.LoadModels(*found, again.ppo->Models());
    again.ppo->RestoreState(found->state.algorithm_json);
    std::map<std::string, double> metrics;
    for (int64_t step = 2; step < 5; ++step)
      metrics = again.ppo->Train(batch(again, step), 1e-3, step);
    EXPECT_EQ(metrics, expected) << mode;
    EXPECT_EQ(Bytes(again.weights.flat()), Bytes(whole.weights.flat())) << mode;
    EXPECT_EQ(Bytes(again.ppo->critic().weights().flat()),
              Bytes(whole.ppo->critic().weights().flat()))
        << mode;
    EXPECT_EQ(Bytes(again.ppo->critic().optimizer().v()),
              Bytes(whole.ppo->critic().optimizer().v()))
        << mode;
    EXPECT_EQ(again.ppo->StateJson(), whole.ppo->StateJson()) << mode;
    EXPECT_THROW(again.ppo->RestoreState("{}"), Error);
  }
}

TEST(PpoTest, TheControllerSteersTheCoefficient) {
  configs::Config config = PpoConfig("own");
  config.algorithm.kl_coef = 0.1;
  config.algorithm.kl_controller = configs::KlController::kAdaptive;
  config.algorithm.kl_horizon = 120;
  config.algorithm.logprob_gate = 0;
  for (const double target : {1e-6, 1e6}) {
    config.algorithm.kl_target = target;
    Rig rig(config);
    const auto groups = RandomGroups(3, 4, 9, rig.train, rig.weights, 0);
    const auto metrics = rig.ppo->Train(groups, 0.0, 0);
    EXPECT_EQ(metrics.at("objective/kl_coef"), 0.1);
    ASSERT_GT(std::abs(metrics.at("objective/kl_token")), 1e-3);
    const double error = metrics.at("objective/kl_token") > target ? 0.2 : -0.2;
    EXPECT_DOUBLE_EQ(rig.ppo->kl_coef(), 0.1 * (1 + error * 12 / 120));
  }
}

// In the loss the KL is measured of the same answers, so the coefficient moves as it does with the
// KL in the reward.
TEST(PpoTest, TheControllerSteersTheCoefficientOfTheLoss) {
  configs::Config config = PpoConfig("own");
  config.algorithm.kl_coef = 0.1;
  config.algorithm.kl_controller = configs::KlController::kAdaptive;
  config.algorithm.kl_horizon = 120;
  config.algorithm.kl_target = 1e-6;
  std::map<std::string, double> of[2];
  double next[2];
  for (const bool in_loss : {false, true}) {
    config.algorithm.kl_placement =
        in_loss ? configs::KlPlacement::kLoss : configs::KlPlacement::kReward;
    Rig rig(config);
    const auto groups = RandomGroups(3, 4, 9, rig.train, rig.weights, 0);
    of[in_loss] = rig.ppo->Train(groups, 0.0, 0);
    next[in_loss] = rig.ppo->kl_coef();
  }
  EXPECT_NE(next[1], 0.1);
  EXPECT_EQ(next[1], next[0]);
  for (const char* name : {"objective/kl_coef", "objective/kl_token"})
    EXPECT_EQ(of[1].at(name), of[0].at(name)) << name;
}

TEST(PpoTest, TheCriticWarmsUpAlone) {
  for (const std::string mode : {"own", "shared"}) {
    configs::Config config = PpoConfig(mode);
    config.critic.warmup_steps = 1;
    Rig rig(config);
    const auto before = Bytes(rig.weights.flat()),
               critic = Bytes(rig.ppo->critic().weights().flat());
    const auto first = rig.ppo->Train(RandomGroups(2, 4, 9, rig.train, rig.weights, 0), 1e-3, 0);
    EXPECT_EQ(first.at("policy/updates"), 0) << mode;
    EXPECT_EQ(Bytes(rig.weights.flat()), before) << mode;
    EXPECT_NE(Bytes(rig.ppo->critic().weights().flat()), critic) << mode;
    rig.ppo->Train(RandomGroups(2, 4, 9, rig.train, rig.weights, 1), 1e-3, 1);
    EXPECT_NE(Bytes(rig.weights.flat()), before) << mode;
  }
}

TEST(PpoTest, ValuesThatAreNotFiniteSkipBothUpdatesAndThenStop) {
  for (const std::string mode : {"own", "shared"}) {
    configs::Config config = PpoConfig(mode);
    config.optimizer.max_skipped_in_a_row = 2;
    Rig rig(config);
    const auto groups = RandomGroups(2, 4, 9, rig.train, rig.weights, 0);
    Weights& critic = rig.ppo->critic().weights();
    critic.flat().f32()[critic.table().score()] = std::numeric_limits<float>::quiet_NaN();
    const auto policy = Bytes(rig.weights.flat()), critic_bytes = Bytes(critic.flat());
    const auto metrics = rig.ppo->Train(groups, 1e-3, 0);
    EXPECT_EQ(metrics.at("optim/skipped"), 1) << mode;
    EXPECT_EQ(metrics.at("optim/critic_skipped"), 1) << mode;
    EXPECT_EQ(Bytes(rig.weights.flat()), policy) << mode;
    EXPECT_EQ(Bytes(critic.flat()), critic_bytes) << mode;
    try {
      rig.ppo->Train(groups, 1e-3, 0);
      FAIL() << "a second skipped update has to stop the run";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kNonFinite);
    }
  }
}

// RELIABILITY row 13 for PPO: NaN or infinity in a score, a recorded log-prob, the policy, the
// critic, the reference or an optimizer's gradient, at random places. Whatever happens is named or
// counted, and nothing not finite reaches a weight.
TEST(PpoTest, FiftyInjectionsReachNoWeight) {
  RandomStream random(21, 1);
  int stopped = 0, skipped = 0, left_out = 0;
  for (int i = 0; i < 50; ++i) {
    configs::Config config = PpoConfig(i % 2 ? "own" : "shared");
    config.algorithm.kl_coef = 0.1;
    config.algorithm.kl_controller = configs::KlController::kAdaptive;
    config.algorithm.kl_target = 0.1;
    config.algorithm.reward_normalize = RewardNormalization::kWhiten;
    config.algorithm.logprob_gate = i % 3 ? 0 : 0.05;
    Rig rig(config);
    rig.DrawHead();
    auto groups = RandomGroups(2, 4, 9, rig.train, rig.weights, 0);
    const float bad = random.NextBelow(2) ? std::numeric_limits<float>::quiet_NaN()
                                          : std::numeric_limits<float>::infinity();
    Trajectory& t = groups[random.NextBelow(2)].trajectories[random.NextBelow(4)];
    Weights& critic = rig.ppo->critic().weights();
    const auto spoil = [&](FlatBuffer& flat, const policy_model::TensorTable& table) -> float* {
      const auto& e =
          table.entries()[random.NextBelow(static_cast<uint32_t>(table.entries().size()))];
      float* at = flat.f32() + e.offset + random.NextBelow(static_cast<uint32_t>(e.elements));
      *at = bad;
      return at;
    };
    float* injected = nullptr;
    switch (i % 5) {
      case 0: t.reward = static_cast<double>(bad); break;
      case 1: t.logprobs.back() = bad; break;
      case 2: injected = spoil(rig.weights.flat(), rig.weights.table()); break;
      case 3:
        injected = critic.flat().f32() + critic.table().score() + random.NextBelow(32),
        *injected = bad;
        break;
      case 4: spoil(rig.reference->weights().flat(), rig.weights.table()); break;
    }
    try {
      const auto metrics = rig.ppo->Train(groups, 1e-3, 0);
      skipped += metrics.at("optim/skipped") > 0 || metrics.at("optim/critic_skipped") > 0;
      left_out += metrics.at("reward/non_finite") > 0;
      // An embedding that no token of the batch uses spoils nothing; everything else has to be
      // noticed.
      EXPECT_TRUE(metrics.at("optim/skipped") > 0 || metrics.at("reward/non_finite") > 0 ||
                  i % 5 == 2 || i % 5 == 4)
          << i;
    } catch (const Error& e) {
      EXPECT_TRUE(e.code() == ErrorCode::kConflict || e.code() == ErrorCode::kNonFinite)
          << e.what();
      ++stopped;
    }
    if (injected) *injected = 0;
    for (const FlatBuffer* flat : {&rig.weights.flat(), &critic.flat()}) {
      for (int64_t k = 0; k < flat->elements(); ++k)
        ASSERT_TRUE(std::isfinite(flat->f32()[k])) << "injection " << i;
    }
    EXPECT_TRUE(std::isfinite(rig.ppo->kl_coef())) << i;
    // what a checkpoint would hold is usable
    EXPECT_NO_THROW(rig.ppo->RestoreState(rig.ppo->StateJson())) << i;
  }
  EXPECT_EQ(left_out, 10);
  EXPECT_GE(skipped + stopped, 20);
}

TEST(PpoTest, AScoreThatIsNotFiniteIsLeftOutAndCounted) {
  configs::Config config = PpoConfig("own");
  config.algorithm.reward_normalize = RewardNormalization::kScale;
  Rig rig(config);
  auto groups = RandomGroups(2, 4, 9, rig.train, rig.weights, 0);
  groups[1].trajectories[2].reward = std::numeric_limits<double>::infinity();
  const auto metrics = rig.ppo->Train(groups, 1e-3, 0);
  EXPECT_EQ(metrics.at("reward/non_finite"), 1);
  EXPECT_EQ(metrics.at("optim/skipped"), 0);
  EXPECT_TRUE(std::isfinite(metrics.at("reward/running_std")));
  for (float w : std::vector<float>(rig.weights.flat().f32(), rig.weights.flat().f32() + 100))
    EXPECT_TRUE(std::isfinite(w));
}

TEST(PpoTest, RewardsOfTokensAndSegmentsCountWhereTheyStand) {
  // A new critic says 0; gamma = lam = 1: a token's return is what is still to come.
  configs::Config config = PpoConfig("own");
  config.algorithm.lam = 1;
  config.algorithm.whiten_advantages = false;
  Rig rig(config);
  auto groups = RandomGroups(1, 2, 9, rig.train, rig.weights, 0);
  groups[0].trajectories.resize(1);
  Trajectory& t = groups[0].trajectories[0];
  t.reward = 4;  // theirs: none of it counts at the end once more
  t.rewards = {
      {.name = "step",
       .value = 2,
       .weight = 0.5,
       .scope = RewardScope::kToken,
       .index = t.segments[1].begin},
      {.name = "turn", .value = 3, .weight = 1, .scope = RewardScope::kSegment, .index = 1}};
  const auto metrics = rig.ppo->Train(groups, 0.0, 0);
  const double n = t.segments[1].end - t.segments[1].begin;
  // 1 at the first token alone, 3 at the last: before all
  EXPECT_NEAR(metrics.at("value/return_mean"), 3 + 1 / n, 1e-9);
  EXPECT_EQ(metrics.at("value/mean"), 0);
}

}  // namespace
}  // namespace plumb::learner
