// rollout.replay_experts, rollout.kv_type and rollout.kv_after_update in whole runs: in one process
// and in several, killed and resumed, in the store.
#include <gtest/gtest.h>

#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::RunPlumb;

std::vector<std::string> Sets(std::vector<std::string> sets) {
  std::vector<std::string> out = {"--quiet"};
  for (const char* set : {"experts.count=8", "experts.per_token=2"}) sets.emplace_back(set);
  for (const std::string& set : sets) out.insert(out.end(), {"--set", set});
  return out;
}

TEST(ExpertReplayTrainTest, SeveralProcessesAndAResumeTrainWhatOneRunDoes) {
  const TempFolder temp;
  // A rate that does not hang on how many steps a life was told; answers that stay in the store.
  const auto sets = Sets(
      {"rollout.replay_experts=true", "optimizer.lr_schedule=constant", "replay.keep_steps=-1"});
  const auto local = testing::Train(temp / "local", 4, sets);
  ASSERT_EQ(local.code, 0) << local.err;
  for (const auto& line : testing::Lines(temp / "local/metrics.jsonl")) {
    // 1 layer, 2 of 8 experts: 6 bits
    EXPECT_EQ(line.at("moe/replay_bytes"), 1);
    EXPECT_GE(line.at("moe/replay_differs").get<double>(), 0);
    EXPECT_LT(line.at("moe/replay_differs").get<double>(), 0.2);
  }
  auto more = sets;
  more.insert(more.end(), {"--roles", "processes"});
  ASSERT_EQ(testing::TrainInProgram(temp / "processes", 4, more), 0)
      << testing::Read(temp / "processes.out");
  testing::ExpectSameRun(temp / "local", temp / "processes");
  auto kept = sets;
  kept.insert(kept.end(), {"--set", "checkpoint.optimizer=always"});
  ASSERT_EQ(testing::Train(temp / "always", 2, kept).code, 0);
  more = kept;
  more.push_back("--resume");
  const auto resumed = testing::Train(temp / "always", 4, more);
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  testing::ExpectSameRun(temp / "local", temp / "always");
  const auto exported = RunPlumb({"store", "export", temp / "local/store", "--tokens"});
  ASSERT_EQ(exported.code, 0) << exported.err;
  const auto first = nlohmann::json::parse(exported.out.substr(0, exported.out.find('\n')));
  const auto& answer = first["answers"][0];
  EXPECT_EQ(answer["expert_bytes"].get<size_t>() + 1, answer["token_ids"].size());
}

TEST(ExpertReplayTrainTest, ADenseModelIsRefusedBeforeAnythingIsTaken) {
  const TempFolder temp;
  const auto run = testing::Train(temp / "run", 2, {"--set", "rollout.replay_experts=true"});
  EXPECT_NE(run.code, 0);
  EXPECT_NE(run.err.find("rollout.replay_experts"), std::string::npos) << run.err;
  EXPECT_NE(run.err.find("the model has no experts"), std::string::npos) << run.err;
}

TEST(ExpertReplayTrainTest, KeysAndValuesInFewerBitsShowInTheDistance) {
  const TempFolder temp;
  std::vector<double> mean;
  for (const std::string& type : std::vector<std::string>{"model", "int8", "fp8", "int4"}) {
    const auto run = testing::Train(
        temp / type, 2,
        {"--quiet", "--set", "rollout.kv_type=" + type, "--set", "algorithm.logprob_gate=1"});
    ASSERT_EQ(run.code, 0) << run.err;
    mean.push_back(testing::Lines(temp / type + "/metrics.jsonl")[0]
                       .at("sampling/logprob_diff_mean")
                       .get<double>());
  }
  EXPECT_LT(mean[0], 1e-5) << "float32";
  for (size_t i = 1; i < mean.size(); ++i) {
    EXPECT_GT(mean[i], mean[0]) << i;
    EXPECT_LT(mean[i], 0.5) << i;
  }
  EXPECT_LT(mean[1], mean[3]) << "8 bits are nearer than 4";
  // The learner's own log-probs are the ratio's denominator, weights correct for the rest.
  const auto corrected = testing::Train(
      temp / "corrected", 2,
      {"--quiet", "--set", "rollout.kv_type=int4", "--set", "algorithm.recompute_logprobs=true"});
  ASSERT_EQ(corrected.code, 0) << corrected.err;
  const auto line = testing::Lines(temp / "corrected/metrics.jsonl")[0];
  EXPECT_NEAR(line.at("policy/ratio").get<double>(), 1, 1e-4);
  EXPECT_NE(line.at("sampling/importance_ratio").get<double>(), 1);
}

// Under the async schedule and with more to answer than to train, so that answers run on under new
// weights.
std::vector<std::string> Async(const std::string& after_update) {
  std::vector<std::string> out = {"--quiet"};
  for (const std::string& set :
       {std::string("run.schedule=async"), std::string("run.max_staleness=4"),
        std::string("rollout.max_batch=2"), std::string("rollout.samples_per_prompt=16"),
        "rollout.kv_after_update=" + after_update})
    out.insert(out.end(), {"--set", set});
  return out;
}

int64_t Recomputed(const std::string& run) {
  return testing::Lines(run + "/metrics.jsonl").back().at("rollout/recomputed_tokens");
}

TEST(KvAfterUpdateTrainTest, AnswersThatRunOnAreCountedAndAResumeMayKeep) {
  const TempFolder temp;
  const auto run = testing::Train(temp / "run", 12, Async("recompute"));
  ASSERT_EQ(run.code, 0) << run.err;
  const int64_t before = Recomputed(temp / "run");
  EXPECT_GT(before, 0);
  auto more = Async("keep");
  more.push_back("--resume");
  const auto resumed = testing::Train(temp / "run", 16, more);
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(Recomputed(temp / "run"), before) << "carried over, and nothing was added";
}

}  // namespace
}  // namespace plumb::run
