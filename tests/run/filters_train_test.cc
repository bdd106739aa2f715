// rollout.top_k, top_p and min_p from a recipe: the learner computes over the tokens that the actor
// drew from, so the policy that sampled is the policy that is trained; in one process and in
// several, with replayed groups, with a KL term, on export.
#include <gtest/gtest.h>

#include "kernels/device/stream.h"
#include "kernels/products/row_product.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::RunPlumb;

std::vector<std::string> Sets(const std::vector<std::string>& sets) {
  std::vector<std::string> out = {"--quiet"};
  for (const std::string& set : sets) out.insert(out.end(), {"--set", set});
  return out;
}

const std::vector<std::string> kAll = {"rollout.top_k=8", "rollout.top_p=0.9", "rollout.min_p=0.02",
                                       "rollout.temperature=0.9"};

const std::vector<std::vector<std::string>> kEach = {
    {"rollout.top_k=4"}, {"rollout.top_p=0.7"}, {"rollout.min_p=0.2"}, kAll};

TEST(FiltersTrainTest, TheOnPolicyRatioIsOneWithEachFilterAndWithAll) {
  const TempFolder temp;
  int n = 0;
  for (const char* algorithm : {"grpo", "ppo"}) {
    for (const auto& filter : kEach) {
      const std::string out = temp / std::to_string(n++);
      auto sets = filter;
      sets.insert(sets.end(), {std::string("algorithm.name=") + algorithm, "algorithm.kl_coef=0.05",
                               "eval.every=2", "algorithm.epochs=1"});
      const auto run = testing::Train(out, 3, Sets(sets));
      ASSERT_EQ(run.code, 0) << algorithm << filter[0] << run.err;
      for (const auto& line : testing::Lines(out + "/metrics.jsonl")) {
        EXPECT_NEAR(line.at("policy/ratio").get<double>(), 1, 1e-5) << algorithm << filter[0];
        EXPECT_LT(line.at("sampling/logprob_diff_max").get<double>(), 1e-4)
            << algorithm << filter[0];
        // The policy is the reference at first: over one and the same set their distance is 0.
        if (line.at("step") == 0) {
          EXPECT_NEAR(line.at("objective/kl").get<double>(), 0, 1e-5) << algorithm << filter[0];
        }
      }
    }
  }
}

// Under `sync`, of an algorithm with one update a step and without filters or with all: what actor
// and learner say of a token is the same number, and the ratio is 1 and not about 1. With a KL term
// every answer is looked at, also of a group whose rewards are equal.
void ExpectOnPolicyBitForBit(const std::string& runs, const std::vector<std::string>& of_device) {
  int n = 0, compared = 0;
  for (const char* algorithm : {"grpo", "ppo"}) {
    for (const bool filtered : {false, true}) {
      const std::string out = runs + std::to_string(n++);
      auto sets = of_device;
      sets.insert(sets.end(),
                  {std::string("algorithm.name=") + algorithm, "algorithm.epochs=1",
                   "algorithm.minibatches=1", "algorithm.kl_coef=0.05", "run.schedule=sync"});
      if (filtered) sets.insert(sets.end(), kAll.begin(), kAll.end());
      const auto run = testing::Train(out, 3, Sets(sets));
      ASSERT_EQ(run.code, 0) << run.err;
      const std::string what = std::string(algorithm) + (filtered ? ", filtered" : "");
      const auto lines = testing::Lines(out + "/metrics.jsonl");
      ASSERT_EQ(lines.size(), 3u) << what;
      for (const auto& line : lines) {
        // A step that trains on nothing measures nothing.
        if (!line.contains("sampling/logprob_diff_mean")) continue;
        ++compared;
        EXPECT_EQ(line.at("sampling/logprob_diff_mean"), 0.0) << what;
        EXPECT_EQ(line.at("sampling/logprob_diff_max"), 0.0) << what;
        EXPECT_EQ(line.at("policy/ratio"), 1.0) << what;
        EXPECT_GT(line.at("perf/train_tokens"), 0) << what;
      }
    }
  }
  EXPECT_GE(compared, 6) << "of twelve steps";
}

TEST(FiltersTrainTest, WherePassesAreExactActorAndLearnerDoNotDifferAtAll) {
  const TempFolder temp;
  kernels::SetExactOnCpu(true);
  for (const std::string dtype : {"float32", "bfloat16"})
    ExpectOnPolicyBitForBit(temp / (dtype + "-"), {"model.dtype=" + dtype});
  kernels::SetExactOnCpu(false);
}

TEST(FiltersTrainTest, OnAGpuInBfloat16TheyDoNotDifferAtAll) {
  if (!kernels::CudaAvailable())
    GTEST_SKIP() << "NO GPU: that actor and learner of a run do not differ there was NOT tested "
                    "(build with -DPLUMB_CUDA=ON on a machine with a GPU)";
  const TempFolder temp;
  for (const std::string kv_heads : {"2", "1"})
    ExpectOnPolicyBitForBit(temp / ("heads-" + kv_heads + "-"),
                            {"run.device=cuda", "model.dtype=bfloat16", "model.hidden=128",
                             "model.heads=2", "model.kv_heads=" + kv_heads});
}

TEST(FiltersTrainTest, ReplayedGroupsAreWeighedOverTheirOwnSets) {
  const TempFolder temp;
  auto sets = kAll;
  // So small a rate moves nothing: the learner's log-probs of earlier groups are those that were
  // recorded.
  sets.insert(sets.end(), {"replay.groups_per_step=2", "replay.max_age_steps=3",
                           "optimizer.learning_rate=1e-12"});
  const auto run = testing::Train(temp / "run", 5, Sets(sets));
  ASSERT_EQ(run.code, 0) << run.err;
  for (const auto& line : testing::Lines(temp / "run/metrics.jsonl")) {
    if (line["policy/updates"] == 0) continue;
    EXPECT_NEAR(line.at("sampling/importance_ratio").get<double>(), 1, 1e-4);
  }
  EXPECT_GT(testing::Lines(temp / "run/metrics.jsonl").back().at("replay/groups").get<int>(), 0);
  const auto exported = RunPlumb({"store", "export", temp / "run/store", "--tokens"});
  ASSERT_EQ(exported.code, 0) << exported.err;
  const auto first = nlohmann::json::parse(exported.out.substr(0, exported.out.find('\n')));
  const auto& answer = first["answers"][0];
  ASSERT_EQ(answer["kept_tokens"].size(), answer["token_ids"].size());
  EXPECT_EQ(answer["kept_tokens"][0], 0) << "a prompt's tokens are not drawn";
  EXPECT_GE(answer["kept_tokens"].back().get<int>(), 1);
  EXPECT_LE(answer["kept_tokens"].back().get<int>(), 8);
}

TEST(FiltersTrainTest, SeveralProcessesTrainWhatOneDoes) {
  const TempFolder temp;
  ASSERT_EQ(testing::Train(temp / "local", 4, Sets(kAll)).code, 0);
  auto more = Sets(kAll);
  more.insert(more.end(), {"--roles", "processes"});
  ASSERT_EQ(testing::TrainInProgram(temp / "processes", 4, more), 0)
      << testing::Read(temp / "processes.out");
  testing::ExpectSameRun(temp / "local", temp / "processes");
}

}  // namespace
}  // namespace plumb::run
