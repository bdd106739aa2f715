// The loops as ranks that share out experts: the losses and metrics of one rank, equal on all of
// them, and one checkpoint of whole tensors that any number goes on with
// (learner/update/shares/experts).
#include <gtest/gtest.h>

#include <cmath>

#include "learner/loop/learner_loop.h"
#include "learner/loop/offline_loop.h"
#include "learner/offline/preference_objective.h"
#include "learner/offline/sft_objective.h"
#include "learner/update/shares/experts/expert_share.h"
#include "tests/learner/rank_threads.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using policy_model::ModelShape;
using policy_model::Transformer;
using policy_model::Weights;

ModelShape Mixture() {
  ModelShape shape = TinyShape();
  shape.family = "plumb";
  shape.experts.count = 4;
  shape.experts.widths = {24};
  shape.experts.per_token = 2;
  shape.experts.shared_ffn = 16;
  shape.experts.sigmoid = true;
  shape.experts.bias = true;
  return shape;
}

enum class Kind : uint8_t { kSft, kDpo, kGrpo };

struct ExpertLife {
  std::vector<std::map<std::string, double>> metrics;
  LearnerResult result;
};

// Every rank makes the same groups for itself, with the whole weights.
struct Answers : BatchSource, WeightSink {
  explicit Answers(const Weights& of) : weights(of) {}
  std::vector<TrajectoryGroup> Next(int64_t step, Deadline) override {
    return RandomGroups(3, 4, static_cast<uint64_t>(step) + 9, score, weights, step);
  }
  std::vector<TrajectoryGroup> Evaluate(int64_t version, int, Deadline) override {
    return RandomGroups(1, 2, 5, score, weights, version);
  }
  void Finish() override {}
  void Publish(const PolicyVersion& version, std::span<const WeightSet>) override {
    published.push_back(version.digest);
  }
  const Weights& weights;
  Transformer own{Mixture(), Device::kCpu, DType::kFloat32};
  TrainStep score{own, 64};
  std::vector<Digest> published;
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

void TrainOffline(Kind kind, const configs::Config& config, Weights& whole, Ranks* ranks,
                  Checkpoints& checkpoints, const LearnerHooks& hooks, bool resume, int ep,
                  ExpertLife& life) {
  ExpertRanks experts(ranks, ep, ranks ? ranks->size() : 1);
  const auto share = MakeExpertShare(experts, whole, ModelShare::Whole::kComesAndGoes);
  Weights& weights = share ? share->weights() : whole;
  Transformer transformer(weights.shape(), Device::kCpu, DType::kFloat32);
  transformer.SetExpertGroup(experts.exchange());
  TrainStep train(transformer, config.optimizer.micro_batch_tokens, ranks);
  Optimizer optimizer(weights, config.optimizer, {},
                      SharingOf(config, ranks, share.get(), experts));
  train.UsePartsOf(weights, optimizer);
  const auto data = RandomDemonstrations(20, 1), heldout = RandomDemonstrations(7, 2);
  const auto pairs = Pairs(22, 1), pairs_heldout = Pairs(10, 2);
  std::unique_ptr<ReferencePolicy> reference;
  std::unique_ptr<OfflineObjective> objective;
  if (kind == Kind::kSft) {
    objective = std::make_unique<SftObjective>(train, weights, optimizer, data, heldout);
  } else {
    reference = std::make_unique<ReferencePolicy>(weights, train);
    objective =
        std::make_unique<PreferenceObjective>(train, weights, optimizer, reference.get(), nullptr,
                                              PreferenceLossOptions{}, pairs, pairs_heldout);
  }
  life.result = RunOffline(config, {.batch = 8, .transformer = &transformer}, *objective, whole,
                           optimizer, checkpoints, hooks, resume, ranks);
}

ExpertLife TrainAs(Kind kind, Ranks* ranks, int ep, const std::string& folder, int64_t steps,
                   bool resume) {
  ExpertLife life;
  configs::Config config;
  config.run.steps = steps;
  config.run.checkpoint_every = 2;
  config.run.parallel =
      "dp=" + std::to_string((ranks ? ranks->size() : 1) / ep) + ",ep=" + std::to_string(ep);
  config.rollout.prompts_per_step = 3;
  config.optimizer.learning_rate = 1e-3;
  config.optimizer.warmup_fraction = 0;
  config.optimizer.micro_batch_tokens = 64;
  config.checkpoint.optimizer = configs::KeepOptimizer::kAlways;
  config.experts.bias_rate = 0.01;
  Weights whole(Mixture(), Device::kCpu, DType::kFloat32);
  whole.Initialise(3, 0.2);
  LearnerHooks hooks;
  hooks.step = [&](int64_t, std::map<std::string, double>& metrics) {
    life.metrics.push_back(metrics);
  };
  Checkpoints checkpoints(folder, 2, "");
  if (kind != Kind::kGrpo) {
    TrainOffline(kind, config, whole, ranks, checkpoints, hooks, resume, ep, life);
    return life;
  }
  config.algorithm.name = configs::AlgorithmName::kGrpo;
  config.algorithm.kl_coef = 0.05;
  config.algorithm.minibatches = 2;
  config.sft.steps = 2;
  config.sft.batch = 4;
  Answers answers(whole);
  const auto data = RandomDemonstrations(12, 1), heldout = RandomDemonstrations(7, 2);
  life.result = LearnerLoop(config, whole, answers, answers, checkpoints, data, heldout, hooks,
                            ranks, ranks ? ranks->size() : 1)
                    .Run(resume);
  EXPECT_EQ(answers.published.back(), whole.ComputeDigest()) << "what actors get is the whole";
  return life;
}

std::vector<ExpertLife> Train(Kind kind, int size, int ep, const std::string& folder,
                              int64_t steps = 4, bool resume = false) {
  std::vector<ExpertLife> lives(static_cast<size_t>(size));
  AsRanks(size, [&](Ranks* ranks) {
    lives[static_cast<size_t>(ranks ? ranks->rank() : 0)] =
        TrainAs(kind, ranks, ep, folder, steps, resume);
  });
  return lives;
}

const char* LossOf(Kind kind) {
  switch (kind) {
    case Kind::kSft: return "sft/loss";
    case Kind::kDpo: return "dpo/loss";
    case Kind::kGrpo: return "policy/loss";
  }
  return "";
}

// Of each rank its own, or of how micro-batches are cut.
bool OfOneRank(const std::string& name) {
  return name.starts_with("time/") || name.starts_with("perf/") || name == "moe/sent_bytes" ||
         name == "ranks/sent_bytes";
}

// `alike`: of as many ranks that share nothing but batches. They cut these as `lives` do, and so
// lay as many tokens down of what neighbours begin with, which the load counts.
void ExpectSame(Kind kind, const ExpertLife& one, const ExpertLife& alike,
                const std::vector<ExpertLife>& lives, double bound) {
  for (const ExpertLife& life : lives) {
    ASSERT_EQ(life.metrics.size(), one.metrics.size());
    for (size_t step = 0; step < life.metrics.size(); ++step) {
      for (const auto& [name, of_one] : one.metrics[step]) {
        if (OfOneRank(name)) continue;
        ASSERT_TRUE(life.metrics[step].contains(name)) << name;
        EXPECT_EQ(life.metrics[step].at(name), lives[0].metrics[step].at(name)) << name;
        const double value = name.starts_with("moe/") ? alike.metrics[step].at(name) : of_one;
        const double near = name == LossOf(kind) ? bound : 100 * bound;
        EXPECT_NEAR(life.metrics[step].at(name), value, near * std::max(1.0, std::abs(value)))
            << LossOf(kind) << " " << lives.size() << " ranks, step " << step << ", " << name;
      }
    }
    EXPECT_EQ(life.result.weights_sha256, lives[0].result.weights_sha256);
    EXPECT_EQ(life.result.optimizer_sha256, lives[0].result.optimizer_sha256);
  }
}

void TrainWhatOneTrains(Kind kind, const std::vector<int>& sizes) {
  const testing::TempFolder folder;
  const ExpertLife one = Train(kind, 1, 1, folder / "one")[0];
  for (const int size : sizes) {
    const std::string name = std::to_string(size);
    const auto lives = Train(kind, size, 2, folder / name);
    ExpectSame(kind, one, Train(kind, size, 1, folder / (name + " alike"))[0], lives, 2e-6);
    for (const auto& metrics : lives[1].metrics) {
      EXPECT_GT(metrics.at("moe/sent_bytes"), 0);
      EXPECT_GT(metrics.at("time/experts_wait"), 0);
      EXPECT_GT(metrics.at("ranks/sent_bytes"), metrics.at("moe/sent_bytes"));
    }
  }
}

TEST(ExpertLoopTest, RanksTrainWhatOneTrains) { TrainWhatOneTrains(Kind::kSft, {2, 4}); }

TEST(ExpertLoopTest, RanksPreferWhatOnePrefers) { TrainWhatOneTrains(Kind::kDpo, {4}); }

TEST(ExpertLoopTest, RanksLearnFromRolloutsWhatOneLearns) { TrainWhatOneTrains(Kind::kGrpo, {4}); }

// Begun by four, gone on with by one, by four in one group, and by two without groups.
TEST(ExpertLoopTest, AnyNumberOfRanksGoesOn) {
  const testing::TempFolder folder;
  ExpertLife one = Train(Kind::kSft, 1, 1, folder / "one", 8)[0];
  const std::string run = folder / "run";
  size_t from = 0;
  for (const auto& [size, ep] : {std::pair(4, 2), {1, 1}, {4, 4}, {2, 1}}) {
    const auto lives =
        Train(Kind::kSft, size, ep, run, static_cast<int64_t>(from) + 2, /*resume=*/from > 0);
    for (const ExpertLife& life : lives) {
      ASSERT_EQ(life.metrics.size(), 2u) << size;
      for (size_t step = 0; step < 2; ++step) {
        const double loss = one.metrics[from + step].at("sft/loss");
        EXPECT_NEAR(life.metrics[step].at("sft/loss"), loss, 1e-5 * std::abs(loss)) << size;
      }
    }
    from += 2;
  }
}

}  // namespace
}  // namespace plumb::learner
