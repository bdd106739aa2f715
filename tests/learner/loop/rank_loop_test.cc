// The loops as several ranks: the losses, metrics and ends of one, equal weights, one checkpoint; a
// rank whose weights differ is named (learner/loop/step_loop.h).
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "common/base/error.h"
#include "learner/loop/learner_loop.h"
#include "learner/loop/offline_loop.h"
#include "learner/offline/preference_objective.h"
#include "learner/offline/sft_objective.h"
#include "tests/learner/rank_threads.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using policy_model::Transformer;
using policy_model::Weights;

constexpr int64_t kSteps = 5;

// What a rank's loop came to.
struct RankLife {
  std::vector<std::map<std::string, double>> metrics;
  LearnerResult result;
};

// One rank of a run; its gradient's noise, if any, is for the tests of what goes wrong.
struct Rank {
  Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
  std::unique_ptr<Transformer> transformer =
      std::make_unique<Transformer>(TinyShape(), Device::kCpu, DType::kFloat32);
  configs::Config config;
  RankLife life;
  LearnerHooks hooks;
  std::function<void(int64_t step)> after_step = [](int64_t) {};

  void Become(DType dtype) {
    weights = Weights(TinyShape(), Device::kCpu, dtype);
    weights.Initialise(3, 0.2);
    transformer = std::make_unique<Transformer>(TinyShape(), Device::kCpu, dtype);
    config.model.dtype = dtype;
  }
  Rank() {
    weights.Initialise(3, 0.2);
    config.run.steps = kSteps;
    config.run.checkpoint_every = 2;
    config.rollout.prompts_per_step = 3;
    config.optimizer.learning_rate = 1e-4;
    config.optimizer.micro_batch_tokens = 64;
    config.run.zero = 0;
    hooks.step = [this](int64_t step, std::map<std::string, double>& metrics) {
      life.metrics.push_back(metrics);
      after_step(step);
    };
  }
};

std::vector<PreferencePair> Pairs(int n, uint64_t seed) {
  std::vector<PreferencePair> out;
  for (Demonstration& d : RandomDemonstrations(n, seed)) {
    PreferencePair pair;
    pair.rejected = d;
    for (size_t i = 2; i < d.tokens.size(); ++i)
      pair.rejected.tokens[i] = 3 + (d.tokens[i] - 3 + 5) % 16;
    pair.chosen = std::move(d);
    out.push_back(std::move(pair));
  }
  return out;
}

void TrainSft(Rank& rank, Ranks* ranks, const std::string& folder, bool resume) {
  TrainStep train(*rank.transformer, rank.config.optimizer.micro_batch_tokens, ranks);
  Optimizer optimizer(rank.weights, rank.config.optimizer, {}, SharingOf(rank.config, ranks));
  train.UsePartsOf(rank.weights, optimizer);
  const auto data = RandomDemonstrations(20, 1), heldout = RandomDemonstrations(7, 2);
  SftObjective objective(train, rank.weights, optimizer, data, heldout);
  Checkpoints checkpoints(folder, 2, "");
  rank.life.result = RunOffline(rank.config, {.batch = 8}, objective, rank.weights, optimizer,
                                checkpoints, rank.hooks, resume, ranks);
}

void TrainDpo(Rank& rank, Ranks* ranks, const std::string& folder, bool resume) {
  TrainStep train(*rank.transformer, rank.config.optimizer.micro_batch_tokens, ranks);
  Optimizer optimizer(rank.weights, rank.config.optimizer, {}, SharingOf(rank.config, ranks));
  train.UsePartsOf(rank.weights, optimizer);
  ReferencePolicy reference(rank.weights, train);
  const auto pairs = Pairs(22, 1), heldout = Pairs(10, 2);
  PreferenceObjective objective(train, rank.weights, optimizer, &reference, nullptr, {}, pairs,
                                heldout);
  Checkpoints checkpoints(folder, 2, "");
  rank.life.result = RunOffline(rank.config, {.batch = 8}, objective, rank.weights, optimizer,
                                checkpoints, rank.hooks, resume, ranks);
}

// Every rank makes the same groups for itself: handing them out is of run/roles.
struct Answers : BatchSource, WeightSink {
  explicit Answers(Rank& of) : rank(of) {}
  std::vector<TrajectoryGroup> Next(int64_t step, Deadline) override {
    return RandomGroups(3, 4, static_cast<uint64_t>(step) + 9, score, rank.weights, step);
  }
  std::vector<TrajectoryGroup> Evaluate(int64_t version, int, Deadline) override {
    return RandomGroups(1, 2, 5, score, rank.weights, version);
  }
  void Finish() override {}
  void Publish(const PolicyVersion&, std::span<const WeightSet>) override {}
  Rank& rank;
  Transformer own{TinyShape(), Device::kCpu, rank.weights.dtype()};
  TrainStep score{own, 64};
};

void TrainRollouts(Rank& rank, Ranks* ranks, const std::string& folder, bool resume) {
  Answers answers(rank);
  Checkpoints checkpoints(folder, 2, "");
  const auto data = RandomDemonstrations(12, 1), heldout = RandomDemonstrations(7, 2);
  rank.config.sft.steps = 2;
  rank.config.sft.batch = 4;
  rank.life.result = LearnerLoop(rank.config, rank.weights, answers, answers, checkpoints, data,
                                 heldout, rank.hooks, ranks)
                         .Run(resume);
}

using Training = std::function<void(Rank&, Ranks*, const std::string& folder, bool resume)>;

struct Case {
  std::string name;
  std::string loss;  // its metric
  Training train;
};

std::vector<Case> Cases() {
  const auto rollouts = [](configs::AlgorithmName name, configs::CriticMode mode) {
    return [=](Rank& rank, Ranks* ranks, const std::string& folder, bool resume) {
      rank.config.algorithm.name = name;
      rank.config.critic.mode = mode;
      rank.config.critic.learning_rate = 1e-4;
      rank.config.algorithm.kl_coef = 0.05;
      rank.config.algorithm.minibatches = 2;
      TrainRollouts(rank, ranks, folder, resume);
    };
  };
  using configs::AlgorithmName;
  using configs::CriticMode;
  return {{"sft", "sft/loss", TrainSft},
          {"dpo", "dpo/loss", TrainDpo},
          {"grpo", "policy/loss", rollouts(AlgorithmName::kGrpo, CriticMode::kOwn)},
          {"ppo", "policy/loss", rollouts(AlgorithmName::kPpo, CriticMode::kOwn)},
          {"ppo, one trunk", "policy/loss", rollouts(AlgorithmName::kPpo, CriticMode::kShared)}};
}

// All lives, by rank. `prepare` is called before a rank trains.
std::vector<RankLife> Train(
    const Case& of, int size, const std::string& folder, bool resume = false,
    const std::function<void(Rank&, Ranks*)>& prepare = [](Rank&, Ranks*) {}) {
  std::vector<RankLife> lives(static_cast<size_t>(size));
  AsRanks(size, [&](Ranks* ranks) {
    Rank rank;
    prepare(rank, ranks);
    of.train(rank, ranks, folder, resume);
    lives[static_cast<size_t>(ranks ? ranks->rank() : 0)] = rank.life;
  });
  return lives;
}

TEST(RankLoop, TrainsWhatOneRankTrains) {
  for (const Case& each : Cases()) {
    const testing::TempFolder folder;
    const RankLife one = Train(each, 1, folder / "one")[0];
    ASSERT_EQ(one.metrics.size(), static_cast<size_t>(kSteps)) << each.name;
    const bool offline = each.name == "sft" || each.name == "dpo";
    for (const auto& [size, zero] :
         {std::pair(2, 0), {4, 0}, {2, 1}, {4, 1}, {2, 2}, {4, 2}, {2, 3}, {4, 3}}) {
      if (zero == 3 && !offline) continue;  // rollouts read the weights whole (CheckParallel)
      const auto lives =
          Train(each, size, folder / (std::to_string(size) + std::to_string(zero)), false,
                [zero = zero](Rank& rank, Ranks*) { rank.config.run.zero = zero; });
      for (const RankLife& life : lives) {
        ASSERT_EQ(life.metrics.size(), one.metrics.size()) << each.name;
        for (size_t step = 0; step < one.metrics.size(); ++step) {
          for (const auto& [name, value] : one.metrics[step]) {
            if (name.starts_with("time/") || name.starts_with("perf/")) continue;
            ASSERT_TRUE(life.metrics[step].contains(name)) << each.name << " " << name;
            const double bound = name == each.loss ? 1e-6 : 1e-4;
            EXPECT_NEAR(life.metrics[step].at(name), value, bound * std::max(1.0, std::abs(value)))
                << each.name << ", " << size << " ranks, zero " << zero << ", step " << step << ", "
                << name;
            EXPECT_EQ(life.metrics[step].at(name), lives[0].metrics[step].at(name)) << name;
          }
          EXPECT_EQ(life.metrics[step].at("perf/train_tokens"),
                    one.metrics[step].at("perf/train_tokens"));
          EXPECT_GT(life.metrics[step].at("ranks/sent_bytes"), 0);
        }
        EXPECT_EQ(life.result.weights_sha256, lives[0].result.weights_sha256);
        EXPECT_EQ(life.result.optimizer_sha256, lives[0].result.optimizer_sha256);
        EXPECT_EQ(life.result.model_sha256, lives[0].result.model_sha256);
        EXPECT_EQ(life.result.tokens, one.result.tokens);
        if (one.result.after && one.result.after->loss) {
          EXPECT_NEAR(*life.result.after->loss, *one.result.after->loss, 1e-5);
        }
      }
    }
  }
}

TEST(RankLoop, AStopOfOneRankStopsAllAndTheyGoOnBitForBit) {
  const Case dpo = Cases()[1];
  const testing::TempFolder folder;
  const auto whole = Train(dpo, 2, folder / "whole");
  const auto stopped = Train(dpo, 2, folder / "parts", false, [](Rank& rank, Ranks* ranks) {
    // Only the rank that does not write is asked to stop.
    rank.hooks.stop = [&rank, last = ranks->rank() == 1] {
      return last && rank.life.metrics.size() == 3;
    };
  });
  for (const RankLife& life : stopped) {
    EXPECT_TRUE(life.result.stopped_early);
    EXPECT_EQ(life.result.steps, 3);
  }
  const auto rest = Train(dpo, 2, folder / "parts", true);
  for (size_t rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(rest[rank].result.first_step, 3);
    EXPECT_EQ(rest[rank].result.weights_sha256, whole[rank].result.weights_sha256);
    EXPECT_EQ(rest[rank].result.optimizer_sha256, whole[rank].result.optimizer_sha256);
  }
}

TEST(RankLoop, ACheckpointOfTwoRanksIsTakenUpByOneAndFour) {
  const Case sft = Cases()[0];
  for (const auto& [size, zero] :
       {std::pair(1, 0), {4, 0}, {1, 1}, {4, 1}, {2, 1}, {4, 2}, {4, 3}}) {
    const auto shared = [zero = zero](Rank& rank, Ranks*) { rank.config.run.zero = zero; };
    const testing::TempFolder folder;
    const RankLife whole = Train(sft, 1, folder / "whole")[0];
    Train(sft, 2, folder / "c", false, [&](Rank& rank, Ranks* ranks) {
      shared(rank, ranks);
      rank.hooks.stop = [&rank] { return rank.life.metrics.size() == 3; };
    });
    for (const RankLife& life : Train(sft, size, folder / "c", true, shared)) {
      EXPECT_EQ(life.result.first_step, 3);
      ASSERT_EQ(life.metrics.size(), 2u);
      for (size_t i = 0; i < 2; ++i) {
        EXPECT_NEAR(life.metrics[i].at("sft/loss"), whole.metrics[3 + i].at("sft/loss"), 1e-6);
      }
    }
  }
}

// Models in bfloat16, whose masters are spread too, and a critic beside the policy.
TEST(RankLoop, WhatIsSpreadOverRanksIsWholeInACheckpoint) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const size_t which : {size_t{0}, size_t{3}}) {
      const testing::TempFolder folder;
      const Case of = Cases()[which];
      const auto with = [&](int64_t zero, size_t stop_at) {
        return [=](Rank& rank, Ranks*) {
          if (dtype == DType::kBFloat16) rank.Become(dtype);
          rank.config.run.zero = zero;
          rank.config.optimizer.grad_clip = 0;  // whose norm is a sum in another order
          rank.hooks.stop = [&rank, stop_at] { return rank.life.metrics.size() == stop_at; };
        };
      };
      const auto kept = Train(of, 2, folder / "kept", false, with(0, 99));
      const auto spread = Train(of, 2, folder / "spread", false, with(1, 99));
      Train(of, 2, folder / "parts", false, with(1, 3));
      const auto parts = Train(of, 2, folder / "parts", true, with(1, 99));
      for (size_t rank = 0; rank < 2; ++rank) {
        for (const RankLife* life : {&spread[rank], &parts[rank]}) {
          EXPECT_EQ(life->result.weights_sha256, kept[rank].result.weights_sha256) << of.name;
          EXPECT_EQ(life->result.optimizer_sha256, kept[rank].result.optimizer_sha256) << of.name;
          EXPECT_EQ(life->result.model_sha256, kept[rank].result.model_sha256) << of.name;
        }
      }
    }
  }
}

// Gradients that travel rounded: what the rounding lost goes on with the run.
TEST(RankLoop, WhatRoundingLostIsInACheckpoint) {
  const Case sft = Cases()[0];
  for (const int64_t zero : {0, 1}) {
    const testing::TempFolder folder;
    const auto with = [&](configs::GradientWire wire, size_t stop_at) {
      return [=](Rank& rank, Ranks*) {
        rank.config.run.zero = zero;
        rank.config.run.gradient_wire = wire;
        rank.config.optimizer.learning_rate = 1e-3;
        rank.hooks.stop = [&rank, stop_at] { return rank.life.metrics.size() == stop_at; };
      };
    };
    using configs::GradientWire;
    const auto exact = Train(sft, 2, folder / "exact", false, with(GradientWire::kFloat32, 99));
    const auto whole = Train(sft, 2, folder / "whole", false, with(GradientWire::kInt8, 99));
    EXPECT_NE(whole[0].result.weights_sha256, exact[0].result.weights_sha256);
    EXPECT_EQ(whole[0].result.weights_sha256, whole[1].result.weights_sha256);
    for (size_t i = 0; i < exact[0].metrics.size(); ++i) {
      EXPECT_NEAR(whole[0].metrics[i].at("sft/loss"), exact[0].metrics[i].at("sft/loss"), 1e-2);
      EXPECT_LT(whole[0].metrics[i].at("ranks/sent_bytes"),
                0.7 * exact[0].metrics[i].at("ranks/sent_bytes"));
    }
    // Stopped where the unbroken run makes a checkpoint, too.
    for (const char* name : {"parts", "others", "alone"})
      Train(sft, 2, folder / name, false, with(GradientWire::kInt8, 4));
    const auto parts = Train(sft, 2, folder / "parts", true, with(GradientWire::kInt8, 99));
    EXPECT_EQ(parts[0].result.first_step, 4);
    EXPECT_EQ(parts[0].result.weights_sha256, whole[0].result.weights_sha256);
    EXPECT_EQ(parts[0].result.optimizer_sha256, whole[0].result.optimizer_sha256);
    // Taken up by others it is added at once: the next losses are about those of the unbroken run.
    const auto others = Train(sft, 4, folder / "others", true, with(GradientWire::kBFloat16, 99));
    const auto alone = Train(sft, 1, folder / "alone", true, with(GradientWire::kFloat32, 99));
    for (const RankLife* life : {&others[0], &alone[0]}) {
      ASSERT_EQ(life->metrics.size(), 1u);
      EXPECT_NEAR(life->metrics[0].at("sft/loss"), whole[0].metrics[4].at("sft/loss"), 1e-5);
    }
  }
}

TEST(RankLoop, ARankWhoseWeightsDifferIsNamedAndNothingOfItIsSaved) {
  const testing::TempFolder folder;
  const auto thrown = TryAsRanks(3, [&](Ranks* ranks) {
    Rank rank;
    rank.config.run.checkpoint_every = 0;
    if (ranks->rank() == 1) {
      rank.after_step = [&](int64_t step) {
        if (step == 1) rank.weights.flat().f32()[5] += 1e-3f;  // a bit of memory that turned over
      };
    }
    TrainSft(rank, ranks, folder / "c", false);
  });
  for (const auto& each : thrown) {
    try {
      ASSERT_TRUE(each);
      std::rethrow_exception(each);
    } catch (const RankLost& e) {
      EXPECT_EQ(e.rank(), 1);
      EXPECT_NE(std::string(e.what()).find("rank 1 differs in the weights after step 2"),
                std::string::npos)
          << e.what();
    }
  }
  EXPECT_FALSE(Checkpoints(folder / "c", 2, "").FindNewest());
}

TEST(RankLoop, RanksThatBeginWithOtherWeightsDoNotBegin) {
  const testing::TempFolder folder;
  const auto thrown = TryAsRanks(2, [&](Ranks* ranks) {
    Rank rank;
    if (ranks->rank() == 1) rank.weights.Initialise(4, 0.2);
    TrainSft(rank, ranks, folder / "c", false);
  });
  for (const auto& each : thrown) {
    ASSERT_TRUE(each);
    EXPECT_THROW(std::rethrow_exception(each), RankLost);
  }
}

TEST(RankLoop, WhenOneRankDiesTheFirstSavesTheGoodSteps) {
  const testing::TempFolder folder;
  const auto thrown = TryAsRanks(2, [&](Ranks* ranks) {
    Rank rank;
    rank.config.run.checkpoint_every = 0;
    if (ranks->rank() == 1) {
      rank.after_step = [](int64_t step) {
        if (step == 2) throw Error(ErrorCode::kIo, "out of luck");
      };
    }
    TrainSft(rank, ranks, folder / "c", false);
  });
  ASSERT_TRUE(thrown[0] && thrown[1]);
  EXPECT_THROW(std::rethrow_exception(thrown[0]), RankLost);
  const auto found = Checkpoints(folder / "c", 2, "").FindNewest();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->state.step, 3);
}

}  // namespace
}  // namespace plumb::learner
