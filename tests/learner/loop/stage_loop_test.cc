// Loops as ranks that have a stage of the model each: losses, metrics and ends of one rank, and
// checkpoints of whole tensors that any number of stages goes on with (learner/loop/step_loop.h,
// update/stages).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>

#include "configs/parallel.h"
#include "learner/loop/learner_loop.h"
#include "learner/loop/offline_loop.h"
#include "learner/offline/preference_objective.h"
#include "learner/offline/sft_objective.h"
#include "learner/update/stages/model_stage.h"
#include "tests/learner/rank_threads.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using policy_model::ModelShape;
using policy_model::Transformer;
using policy_model::Weights;

constexpr int64_t kSteps = 4;

ModelShape Shape() {
  ModelShape shape = TinyShape();
  shape.layers = 4;
  return shape;
}

struct StageLife {
  std::vector<std::map<std::string, double>> metrics;
  LearnerResult result;
};

struct Rank {
  Rank(Ranks* all, const std::string& parallel) : ranks(all) {
    whole.Initialise(3, 0.2);
    config.run.steps = kSteps;
    config.run.checkpoint_every = 2;
    config.run.parallel = parallel;
    config.rollout.prompts_per_step = 3;
    config.optimizer.learning_rate = 1e-4;
    config.optimizer.warmup_fraction = 0;
    config.optimizer.lr_schedule = configs::LrSchedule::kConstant;
    config.optimizer.micro_batch_tokens = 32;
    config.checkpoint.optimizer = configs::KeepOptimizer::kAlways;
    hooks.step = [this](int64_t, std::map<std::string, double>& metrics) {
      life.metrics.push_back(metrics);
    };
  }
  Ranks* const ranks;
  Weights whole{Shape(), Device::kCpu, DType::kFloat32};
  configs::Config config;
  LearnerHooks hooks;
  StageLife life;
};

// What run/roles/offline_roles.cc makes of a recipe.
struct Policy {
  explicit Policy(Rank& rank)
      : grid(rank.ranks, 1, 1,
             static_cast<int>(configs::ReadParallel(rank.config.run.parallel).pp)),
        share(MakeShareOf(rank.whole, grid.tensor(), grid.stages(),
                          ModelShare::Whole::kComesAndGoes)),
        weights(share ? share->weights() : rank.whole),
        transformer(weights.shape(), Device::kCpu, DType::kFloat32),
        train(transformer, rank.config.optimizer.micro_batch_tokens, grid.data()),
        optimizer(weights, rank.config.optimizer, {},
                  SharingOf(rank.config, grid.data(), share.get())) {
    train.UsePipeline(PipelineOf(share.get()), false);
  }
  RankGrid grid;
  std::unique_ptr<ModelShare> share;
  Weights& weights;
  Transformer transformer;
  TrainStep train;
  Optimizer optimizer;
};

void RunObjective(Rank& rank, Policy& policy, OfflineObjective& objective,
                  const std::string& folder, bool resume) {
  Checkpoints checkpoints(folder, 2, "");
  rank.life.result = RunOffline(rank.config, {.batch = 8}, objective, rank.whole, policy.optimizer,
                                checkpoints, rank.hooks, resume, rank.ranks);
}

void TrainSft(Rank& rank, const std::string& folder, bool resume) {
  Policy policy(rank);
  const auto data = RandomDemonstrations(20, 1), heldout = RandomDemonstrations(7, 2);
  SftObjective objective(policy.train, policy.weights, policy.optimizer, data, heldout);
  RunObjective(rank, policy, objective, folder, resume);
}

void TrainDpo(Rank& rank, const std::string& folder, bool resume) {
  std::vector<PreferencePair> pairs;
  for (Demonstration& d : RandomDemonstrations(20, 1)) {
    PreferencePair pair{.rejected = d};
    for (size_t i = 2; i < d.tokens.size(); ++i)
      pair.rejected.tokens[i] = 3 + (d.tokens[i] - 3 + 5) % 16;
    pair.chosen = std::move(d);
    pairs.push_back(std::move(pair));
  }
  Policy policy(rank);
  ReferencePolicy reference(policy.weights, policy.train, false,
                            policy.share ? rank.whole.ComputeDigest() : Digest());
  PreferenceObjective objective(policy.train, policy.weights, policy.optimizer, &reference, nullptr,
                                {}, std::span(pairs).first(14), std::span(pairs).subspan(14));
  RunObjective(rank, policy, objective, folder, resume);
}

// Every rank makes the same groups for itself, from whole weights.
struct Answers : BatchSource, WeightSink {
  explicit Answers(Rank& of) : rank(of) {}
  std::vector<TrajectoryGroup> Next(int64_t step, Deadline) override {
    return RandomGroups(3, 4, static_cast<uint64_t>(step) + 9, score, rank.whole, step);
  }
  std::vector<TrajectoryGroup> Evaluate(int64_t version, int, Deadline) override {
    return RandomGroups(1, 2, 5, score, rank.whole, version);
  }
  void Finish() override {}
  void Publish(const PolicyVersion& policy, std::span<const WeightSet>) override {
    EXPECT_EQ(rank.whole.ComputeDigest(), policy.digest) << "the whole is up to date";
  }
  Rank& rank;
  Transformer own{Shape(), Device::kCpu, DType::kFloat32};
  TrainStep score{own, 64};
};

void TrainGrpo(Rank& rank, const std::string& folder, bool resume) {
  rank.config.algorithm.name = configs::AlgorithmName::kGrpo;
  rank.config.algorithm.kl_coef = 0.05;
  rank.config.algorithm.minibatches = 2;
  rank.config.sft.steps = 2;
  rank.config.sft.batch = 4;
  const auto data = RandomDemonstrations(12, 1), heldout = RandomDemonstrations(7, 2);
  Answers answers(rank);
  Checkpoints checkpoints(folder, 2, "");
  rank.life.result = LearnerLoop(rank.config, rank.whole, answers, answers, checkpoints, data,
                                 heldout, rank.hooks, rank.ranks)
                         .Run(resume);
}

struct Case {
  std::string name, loss;
  std::function<void(Rank&, const std::string& folder, bool resume)> train;
};

std::vector<Case> Cases() {
  return {{"sft", "sft/loss", TrainSft},
          {"dpo", "dpo/loss", TrainDpo},
          {"grpo", "policy/loss", TrainGrpo}};
}

std::vector<StageLife> Train(
    const Case& of, int size, const std::string& parallel, const std::string& folder,
    bool resume = false, const std::function<void(Rank&)>& prepare = [](Rank&) {}) {
  std::vector<StageLife> lives(static_cast<size_t>(size));
  AsRanks(size, [&](Ranks* ranks) {
    Rank rank(ranks, parallel);
    prepare(rank);
    of.train(rank, folder, resume);
    lives[static_cast<size_t>(ranks ? ranks->rank() : 0)] = rank.life;
  });
  return lives;
}

void TrainsWhatOneRankTrains(const Case& each) {
  const testing::TempFolder folder;
  const StageLife one = Train(each, 1, "", folder / "one")[0];
  ASSERT_EQ(one.metrics.size(), static_cast<size_t>(kSteps)) << each.name;
  for (const auto& [size, parallel] : {std::pair(2, "pp=2"), {4, "pp=4"}, {4, "dp=2,pp=2"}}) {
    const std::vector<StageLife> lives = Train(each, size, parallel, folder / parallel);
    for (const StageLife& life : lives) {
      ASSERT_EQ(life.metrics.size(), one.metrics.size()) << each.name;
      for (size_t step = 0; step < one.metrics.size(); ++step) {
        for (const auto& [name, value] : one.metrics[step]) {
          if (name.starts_with("time/") || name.starts_with("perf/")) continue;
          ASSERT_TRUE(life.metrics[step].contains(name)) << each.name << " " << name;
          const double bound = name == each.loss ? 1e-6 : 1e-4;
          EXPECT_NEAR(life.metrics[step].at(name), value, bound * std::max(1.0, std::abs(value)))
              << each.name << ", " << parallel << ", step " << step << ", " << name;
          EXPECT_EQ(life.metrics[step].at(name), lives[0].metrics[step].at(name)) << name;
        }
        EXPECT_EQ(life.metrics[step].at("perf/train_tokens"),
                  one.metrics[step].at("perf/train_tokens"));
        EXPECT_GT(life.metrics[step].at("ranks/sent_bytes"), 0);
        EXPECT_GT(life.metrics[step].at("time/pipeline_wait"), 0);
      }
      EXPECT_EQ(life.result.weights_sha256, lives[0].result.weights_sha256);
      EXPECT_EQ(life.result.optimizer_sha256, lives[0].result.optimizer_sha256);
      EXPECT_EQ(life.result.tokens, one.result.tokens);
      if (one.result.after && one.result.after->loss) {
        EXPECT_NEAR(*life.result.after->loss, *one.result.after->loss, 1e-5);
      }
    }
  }
}

TEST(StageLoopTest, DemonstrationsTrainWhatOneRankTrains) { TrainsWhatOneRankTrains(Cases()[0]); }
TEST(StageLoopTest, PairsTrainWhatOneRankTrains) { TrainsWhatOneRankTrains(Cases()[1]); }
TEST(StageLoopTest, RolloutsTrainWhatOneRankTrains) { TrainsWhatOneRankTrains(Cases()[2]); }

// Two stages stop behind two steps; one rank, four stages and two times two go on.
TEST(StageLoopTest, ACheckpointOfTwoStagesIsTakenUpByOneAndFour) {
  const Case sft = Cases()[0];
  const testing::TempFolder folder;
  const StageLife whole = Train(sft, 1, "", folder / "whole")[0];
  for (const auto& [size, parallel] :
       {std::pair(1, ""), {4, "pp=4"}, {4, "dp=2,pp=2"}, {2, "pp=2"}}) {
    const std::string at = folder / (std::string("c") + parallel);
    Train(sft, 2, "pp=2", at, false,
          [](Rank& rank) { rank.hooks.stop = [&rank] { return rank.life.metrics.size() == 2; }; });
    for (const StageLife& life : Train(sft, size, parallel, at, true)) {
      EXPECT_EQ(life.result.first_step, 2);
      ASSERT_EQ(life.metrics.size(), 2u);
      for (size_t i = 0; i < 2; ++i) {
        const double expected = whole.metrics[2 + i].at("sft/loss");
        EXPECT_NEAR(life.metrics[i].at("sft/loss"), expected, 1e-5 * std::abs(expected));
      }
    }
  }
}

// The same number of stages is the unbroken run, bit for bit.
TEST(StageLoopTest, AStopIsGoneOnFromBitForBit) {
  const Case grpo = Cases()[2];
  const testing::TempFolder folder;
  const auto whole = Train(grpo, 2, "pp=2", folder / "whole");
  Train(grpo, 2, "pp=2", folder / "parts", false, [](Rank& rank) {
    // Only the rank that does not write is asked to stop.
    rank.hooks.stop = [&rank, last = !rank.ranks->first()] {
      return last && rank.life.metrics.size() == 2;
    };
  });
  const auto rest = Train(grpo, 2, "pp=2", folder / "parts", true);
  for (size_t rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(rest[rank].result.first_step, 2);
    EXPECT_EQ(rest[rank].result.weights_sha256, whole[rank].result.weights_sha256);
    EXPECT_EQ(rest[rank].result.optimizer_sha256, whole[rank].result.optimizer_sha256);
  }
}

}  // namespace
}  // namespace plumb::learner
