// Recipes with run.stages through the command line: one after the other, a bar that is missed, a
// resume, and what other verbs say of them (run/commands/stages/train_stages.h).
#include "run/commands/stages/train_stages.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "common/base/file.h"
#include "tests/run/cli_runner.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;
using plumb::testing::TempFolder;
using testing::Has;
using testing::RunPlumb;

// configs/r1_tiny.toml with models of some thousand parameters and a few steps.
class TrainStagesTest : public ::testing::Test {
 protected:
  static std::vector<std::string> Tiny(std::vector<std::string> line) {
    for (const char* set :
         {"run.threads=1", "run.steps=2", "model.layers=2", "model.hidden=16", "model.heads=1",
          "model.ffn=16", "model.kv_rank=8", "model.rope_dim=4", "experts.count=4", "sft.batch=4",
          "preference.batch=4", "preference.heldout=4", "data.limit=400", "data.eval_prompts=2",
          "rollout.prompts_per_step=2", "rollout.samples_per_prompt=2", "rollout.max_new_tokens=8",
          "eval.bar=0"}) {
      line.insert(line.end(), {"--set", set});
    }
    return line;
  }
  static std::string Recipe() { return PLUMB_SOURCE_DIR "/configs/r1_tiny.toml"; }
  nlohmann::json Summary() const {
    return nlohmann::json::parse(testing::Read(temp_ / "run/summary.json"));
  }
  std::string State(size_t stage) const { return Summary()["stages"][stage]["state"]; }
  std::string Weights(const std::string& run) const {
    return nlohmann::json::parse(testing::Read(temp_ / (run + "/summary.json")))["weights_sha256"];
  }
  const TempFolder temp_;
};

TEST_F(TrainStagesTest, RunOneAfterTheOtherAsOneRun) {
  const auto run = RunPlumb(Tiny({"train", Recipe(), "--out", temp_ / "run"}));
  ASSERT_EQ(run.code, 0) << run.err << run.out;
  for (const char* stage : {"1-sft", "2-rm", "3-dpo", "4-ppo"}) {
    EXPECT_EQ(testing::Lines(temp_ / (std::string("run/") + stage + "/metrics.jsonl")).size(), 2u);
    EXPECT_TRUE(Has(run.out, stage)) << run.out;
    EXPECT_TRUE(Has(testing::Read(temp_ / "run/report.html"), std::string(stage) + "/report.html"));
  }
  EXPECT_TRUE(Has(run.out, "labels by 1 * preferred (reward_model:")) << run.out;
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(State(i), "done");
  EXPECT_TRUE(HasStages(temp_ / "run"));
  EXPECT_TRUE(fs::exists(temp_ / "run/model/config.json"));
  // Another that begins where there is one.
  const auto again = RunPlumb(Tiny({"train", Recipe(), "--out", temp_ / "run"}));
  EXPECT_TRUE(Has(again.err, "there is a run in this folder already")) << again.err;
  const auto finished = RunPlumb({"train", "--resume", "--out", temp_ / "run"});
  EXPECT_EQ(finished.code, 0) << finished.err;
  EXPECT_TRUE(Has(finished.out, "this run is finished")) << finished.out;
  const auto asked = RunPlumb(
      {"generate", temp_ / "run", "--prompt", "What does the goat eat?", "--max-new-tokens", "2"});
  EXPECT_EQ(asked.code, 0) << asked.err;
  EXPECT_EQ(RunPlumb({"report", temp_ / "run", "--out", temp_ / "page.html"}).code, 0);
  EXPECT_TRUE(Has(testing::Read(temp_ / "page.html"), "4-ppo/report.html"));
  const auto other = RunPlumb(Tiny({"train", Recipe(), "--out", temp_ / "run", "--overwrite"}));
  EXPECT_EQ(other.code, 0) << other.err;
  EXPECT_FALSE(fs::exists(temp_ / "run/.replaced"));
}

TEST_F(TrainStagesTest, ABarThatIsMissedEndsTheCommandAndAResumeGoesOn) {
  std::vector<std::string> line = Tiny({"train", Recipe(), "--out", temp_ / "run"});
  line.insert(line.end(), {"--set", "eval.bar=0.999"});
  const auto missed = RunPlumb(line);
  EXPECT_EQ(missed.code, 7) << missed.err;
  EXPECT_TRUE(Has(missed.err, "held-out 1 / perplexity 0.0")) << missed.err;
  EXPECT_TRUE(Has(missed.err, "stage 1 of 4 (sft, ")) << missed.err;
  EXPECT_EQ(State(0), "below its bar");
  EXPECT_EQ(State(1), "not begun");
  EXPECT_FALSE(fs::exists(temp_ / "run/2-rm"));
  const auto resumed =
      RunPlumb({"train", "--resume", "--out", temp_ / "run", "--set", "eval.bar=0"});
  ASSERT_EQ(resumed.code, 0) << resumed.err << resumed.out;
  // The same as a run that was never ended.
  ASSERT_EQ(RunPlumb(Tiny({"train", Recipe(), "--out", temp_ / "whole"})).code, 0);
  for (const char* stage : {"1-sft", "2-rm", "3-dpo", "4-ppo"})
    EXPECT_EQ(Weights(std::string("run/") + stage), Weights(std::string("whole/") + stage))
        << stage;
}

// Where it is stopped is chance: what it comes to is not.
TEST_F(TrainStagesTest, ARunThatIsStoppedWithinAStageGoesOnThereToTheBit) {
  const auto line = [&](const std::string& out) {
    std::vector<std::string> words = Tiny({"train", Recipe(), "--out", temp_ / out});
    words.insert(words.end(), {"--set", "run.steps=60"});
    return words;
  };
  const pid_t child = testing::StartProgram(line("run"), temp_ / "run");
  const std::string metrics = temp_ / "run/1-sft/metrics.jsonl";
  const auto steps = [&] {  // whole lines: the last may be half written
    const std::string text = fs::exists(metrics) ? testing::Read(metrics) : "";
    return std::count(text.begin(), text.end(), '\n');
  };
  for (int i = 0; i < 6000 && steps() < 3; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  kill(child, SIGINT);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << testing::Read(temp_ / "run.out");
  const std::string said = testing::Read(temp_ / "run.out");
  EXPECT_TRUE(Has(said, "stopped in stage ")) << said;
  EXPECT_TRUE(Has(said, "train --resume --out " + (temp_ / "run"))) << said;
  EXPECT_FALSE(fs::exists(temp_ / "run/4-ppo/summary.json")) << "it was stopped too late";
  const auto resumed = RunPlumb({"train", "--resume", "--out", temp_ / "run"});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  ASSERT_EQ(RunPlumb(line("whole")).code, 0);
  for (const char* stage : {"1-sft", "2-rm", "3-dpo", "4-ppo"})
    EXPECT_EQ(Weights(std::string("run/") + stage), Weights(std::string("whole/") + stage))
        << stage;
}

TEST_F(TrainStagesTest, AStageThatCannotBeginIsNamedAndTheOthersStay) {
  ASSERT_EQ(RunPlumb(Tiny({"train", Recipe(), "--out", temp_ / "run", "--quiet"})).code, 0);
  const std::string before = Weights("run/4-ppo");
  std::vector<std::string> line = Tiny({"train", Recipe(), "--out", temp_ / "run", "--overwrite"});
  line.insert(line.end(), {"--set", "sft.batch=4000"});
  const auto refused = RunPlumb(line);
  EXPECT_EQ(refused.code, 2) << refused.err;
  EXPECT_TRUE(Has(refused.err, "stage 1 of 4 (sft, ")) << refused.err;
  EXPECT_EQ(Weights("run/4-ppo"), before) << "the run that was to be replaced is back";
}

TEST_F(TrainStagesTest, PlanAndConfigShowListTheStages) {
  const auto plan = RunPlumb(Tiny({"plan", Recipe(), "--no-time"}));
  EXPECT_EQ(plan.code, 0) << plan.err;
  EXPECT_TRUE(Has(plan.out, "stage 4 of 4 (ppo, ")) << plan.out;
  const auto json = RunPlumb(Tiny({"plan", Recipe(), "--no-time", "--json"}));
  EXPECT_EQ(nlohmann::json::parse(json.out)["stages"].size(), 4u) << json.out;
  const auto shown = RunPlumb({"config", "show", Recipe(), "--changed"});
  EXPECT_EQ(shown.code, 0) << shown.err;
  EXPECT_TRUE(Has(shown.out, "3-dpo: dpo, ")) << shown.out;
  EXPECT_TRUE(Has(shown.out, "bar accuracy 0.")) << shown.out;
}

}  // namespace
}  // namespace plumb::run
