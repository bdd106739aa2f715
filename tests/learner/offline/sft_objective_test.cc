// learner/offline/sft_objective.h: the first updates against TRL's SFTTrainer
// (tests/golden/sft_loss.py), what a loss is made of, and a run in two parts.
#include "learner/offline/sft_objective.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "learner/loop/offline_loop.h"
#include "learner/offline/sft.h"
#include "policy_model/families/model_config.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;

// Losses, norms and rates of a run over `data` on `weights`, which it trains.
struct Seen {
  std::vector<double> losses, norms, rates, tokens;
  LearnerResult result;
};

Seen RunOver(const configs::Config& config, policy_model::Weights& weights,
             std::span<const Demonstration> data, std::span<const Demonstration> heldout,
             const std::string& folder, bool resume = false, int64_t stop_after = -1) {
  policy_model::Transformer transformer(weights.shape(), Device::kCpu, DType::kFloat32);
  TrainStep train(transformer, config.optimizer.micro_batch_tokens);
  Optimizer optimizer(weights, config.optimizer);
  SftObjective objective(train, weights, optimizer, data, heldout);
  Checkpoints checkpoints(folder, 2, "");
  Seen seen;
  LearnerHooks hooks;
  hooks.step = [&](int64_t, std::map<std::string, double>& metrics) {
    seen.losses.push_back(metrics.at("sft/loss"));
    seen.norms.push_back(metrics.at("optim/grad_norm"));
    seen.rates.push_back(metrics.at("optim/lr"));
    seen.tokens.push_back(metrics.at("sft/tokens"));
    EXPECT_EQ(metrics.contains("eval/perplexity"), metrics.contains("eval/loss"));
    EXPECT_FALSE(metrics.contains("eval/accuracy") || metrics.contains("eval/margin"));
  };
  hooks.stop = [&] {
    return stop_after >= 0 && static_cast<int64_t>(seen.losses.size()) >= stop_after;
  };
  seen.result = RunOffline(config, {.batch = config.sft.batch, .shuffle = config.data.shuffle},
                           objective, weights, optimizer, checkpoints, hooks, resume);
  return seen;
}

TEST(SftObjective, TheFirstUpdatesAreThoseOfTrl) {
  std::ifstream file(plumb::testing::SourcePath("tests/golden/sft_loss.json"));
  ASSERT_TRUE(file.good()) << "tests/golden/sft_loss.json is missing";
  const Json golden = Json::parse(file);
  std::vector<Demonstration> rows;
  for (const Json& row : golden.at("rows")) {
    rows.push_back({.tokens = row.at("input_ids").get<std::vector<int32_t>>(),
                    .loss_mask = row.at("completion_mask").get<std::vector<uint8_t>>()});
  }
  const Json& options = golden.at("options");
  configs::Config config;
  config.run.steps = static_cast<int64_t>(golden.at("losses").size());
  config.sft.batch = golden.at("batch");
  config.data.shuffle = false;
  config.optimizer.learning_rate = options.at("learning_rate");
  config.optimizer.lr_schedule = configs::LrSchedule::kLinear;
  config.optimizer.beta1 = options.at("adam_beta1");
  config.optimizer.beta2 = options.at("adam_beta2");
  config.optimizer.eps = options.at("adam_epsilon");
  config.optimizer.weight_decay = options.at("weight_decay");
  config.optimizer.grad_clip = options.at("max_grad_norm");
  const std::string model = plumb::testing::SourcePath("tests/golden/tiny_llama");
  // However the sequences are packed: one a micro-batch, or all of them.
  for (const int64_t micro_batch_tokens : {1, 4096}) {
    config.optimizer.micro_batch_tokens = micro_batch_tokens;
    policy_model::Weights weights(policy_model::ReadModelConfig(model), Device::kCpu,
                                  DType::kFloat32);
    weights.Load(model);
    const plumb::testing::TempFolder temp;
    const Seen seen = RunOver(config, weights, rows, {}, temp / "run");
    ASSERT_EQ(seen.losses.size(), golden.at("losses").size());
    for (size_t i = 0; i < seen.losses.size(); ++i) {
      // The later ones stand on the gradients and updates before them.
      EXPECT_NEAR(seen.losses[i], golden["losses"][i].get<double>(), 2e-5) << i;
      EXPECT_NEAR(seen.norms[i], golden["grad_norms"][i].get<double>(), 2e-4) << i;
      EXPECT_NEAR(seen.rates[i], golden["rates"][i].get<double>(), 1e-12) << i;
    }
  }
}

// The mean over the scored tokens of the batch: neither over sequences, nor over prompts.
TEST(SftObjective, ALongAnswerWeighsMoreAndAPromptNothing) {
  policy_model::Transformer transformer(TinyShape(), Device::kCpu, DType::kFloat32);
  TrainStep train(transformer, 64);
  policy_model::Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.3);
  Optimizer optimizer(weights, {});
  const std::vector<Demonstration> data = {
      {.tokens = {3, 9, 4, 7, 5}, .loss_mask = {0, 0, 1, 1, 1}},
      {.tokens = {8, 3, 6}, .loss_mask = {0, 0, 1}},
      {.tokens = {8, 3, 6}, .loss_mask = {1, 0, 0}}};  // the first token is never scored
  const double both = DemonstrationLoss(train, weights, std::span(data).first(2)),
               first = DemonstrationLoss(train, weights, std::span(data).first(1)),
               second = DemonstrationLoss(train, weights, std::span(data).subspan(1, 1));
  EXPECT_NEAR(both, (3 * first + second) / 4, 1e-6);
  EXPECT_EQ(DemonstrationLoss(train, weights, std::span(data).subspan(2)), 0);

  SftObjective objective(train, weights, optimizer, data, std::span(data).first(2));
  const OfflineEval eval = objective.Evaluate();
  EXPECT_EQ(eval.loss, both);
  EXPECT_EQ(eval.perplexity, std::exp(both));
  EXPECT_EQ(eval.examples, 2);
  const std::vector<uint32_t> two = {1, 0}, none = {2};
  const auto metrics = objective.Train(two, 1e-4, 0);
  EXPECT_NEAR(metrics.at("sft/loss"), both, 1e-6);
  EXPECT_EQ(metrics.at("sft/tokens"), 4);
  EXPECT_EQ(metrics.at("perf/train_tokens"), 8);
  EXPECT_THROW(objective.Train(none, 1e-4, 1), Error);
  EXPECT_EQ(SftObjective(train, weights, optimizer, data, {}).Evaluate().examples, 0);
}

// L = CE + weight * mean over brackets of (1 - p), by finite differences of both along the step
// that an update takes.
TEST(SftObjective, TheSyntaxPenaltyIsTheShareOfBracketsThatWouldNotBeWritten) {
  policy_model::Transformer transformer(TinyShape(), Device::kCpu, DType::kFloat32);
  TrainStep train(transformer, 64);
  const std::vector<Demonstration> data = {
      {.tokens = {3, 9, 4, 7, 5}, .loss_mask = {0, 0, 1, 1, 1}},
      {.tokens = {8, 3, 6}, .loss_mask = {0, 1, 1}}};
  // A bracket that is not learned does not count.
  const SyntaxPenalty syntax{.weight = 0.3, .brackets = {{0, 1, 1, 0, 1}, {}}};
  const std::vector<SequenceView> views = {{data[0].tokens, data[0].loss_mask},
                                           {data[1].tokens, data[1].loss_mask}};
  const auto measured = [&](const policy_model::Weights& weights) {
    const auto scores = train.Score(weights, views, 1.0f);
    double loss = 0;
    for (const auto& list : scores) {
      for (const float lp : list) loss -= lp / 5;
    }
    const double missed = 1 - (std::exp(scores[0][0]) + std::exp(scores[0][2])) / 2;
    return std::pair(loss, missed);
  };
  const std::vector<uint32_t> rows = {0, 1};
  std::vector<double> norms;
  for (const double weight : {0.0, 0.3, 5.0}) {
    policy_model::Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
    weights.Initialise(3, 0.3);
    configs::OptimizerConfig options;
    options.weight_decay = 0;
    Optimizer optimizer(weights, options);
    const auto [loss, missed] = measured(weights);
    SyntaxPenalty asked = syntax;
    asked.weight = weight;
    SftObjective objective(train, weights, optimizer, data, {}, std::nullopt, asked);
    const auto metrics = objective.Train(rows, 1e-4, 0);
    EXPECT_NEAR(metrics.at("sft/loss"), loss, 1e-6);
    ASSERT_EQ(metrics.contains("sft/syntax"), weight > 0);
    if (weight > 0) {
      EXPECT_NEAR(metrics.at("sft/syntax"), missed, 1e-6);
    }
    norms.push_back(metrics.at("optim/grad_norm"));
    if (weight == 5.0) {
      EXPECT_LT(measured(weights).second, missed);
    }
  }
  EXPECT_NE(norms[0], norms[1]);
}

TEST(SftObjective, ARunInTwoPartsEqualsTheUnbrokenOne) {
  const plumb::testing::TempFolder temp;
  configs::Config config;
  config.run.steps = 25;
  config.run.checkpoint_every = 5;
  config.sft.batch = 8;
  config.eval.every = 10;
  config.optimizer.learning_rate = 1e-2;
  config.optimizer.warmup_fraction = 0.1;
  const auto data = RandomDemonstrations(30, 1), heldout = RandomDemonstrations(7, 2);
  const auto run = [&](const std::string& name, bool resume, int64_t stop_after) {
    policy_model::Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
    weights.Initialise(3, 0.1);
    return RunOver(config, weights, data, heldout, temp / name, resume, stop_after).result;
  };
  const LearnerResult whole = run("whole", false, -1);
  ASSERT_TRUE(whole.before && whole.after && whole.before->perplexity && whole.after->perplexity);
  EXPECT_GT(*whole.before->loss, 0.9 * std::log(19.0)) << "nothing is known yet";
  EXPECT_LT(*whole.after->loss, 0.7 * *whole.before->loss);
  EXPECT_EQ(*whole.after->perplexity, std::exp(*whole.after->loss));
  EXPECT_EQ(run("parts", false, 13).steps, 13);
  const LearnerResult rest = run("parts", true, -1);
  EXPECT_EQ(rest.first_step, 13);
  EXPECT_EQ(rest.weights_sha256, whole.weights_sha256);
  EXPECT_EQ(rest.optimizer_sha256, whole.optimizer_sha256);
  EXPECT_EQ(*rest.before->perplexity, *whole.before->perplexity) << "out of the checkpoint";
}

// What a warm start computed belongs to it and not to the first step behind it.
TEST(SftObjective, TheWarmStartCountsItsOwnSharedTokens) {
  policy_model::Transformer transformer(TinyShape(), Device::kCpu, DType::kFloat32);
  TrainStep train(transformer, 256);
  policy_model::Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.1);
  Optimizer optimizer(weights, {});
  const std::vector<Demonstration> twins(4,
                                         {.tokens = {3, 9, 4, 7, 5}, .loss_mask = {0, 0, 1, 1, 1}});
  RunSft(train, weights, optimizer, {.steps = 1, .batch = 4}, 1, twins, {},
         [](const SftStep&, const SftResult&) { return true; });
  EXPECT_EQ(train.TakeSharedTokens(), 0);
}

}  // namespace
}  // namespace plumb::learner
