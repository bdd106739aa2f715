// What is wrong with a run is said before it begins, in words that tell what to do, and loses
// nothing: critics and reward models of other tokenizers or without a head, options that contradict
// each other, batches larger than the data, fewer steps than asked for.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "common/text/tokenizer/tokenizer.h"
#include "policy_model/memory/scalar_head.h"
#include "policy_model/memory/weights.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run::testing {
namespace {

using plumb::testing::TempFolder;
using policy_model::Weights;

policy_model::ModelShape Shape(int64_t vocab) {
  return {.family = "llama",
          .layers = 1,
          .hidden = 32,
          .heads = 2,
          .kv_heads = 2,
          .head_dim = 16,
          .ffn = 64,
          .vocab = vocab,
          .max_positions = 64,
          .tied = true,
          .bos_token = 1,
          .eos_tokens = {2}};
}

// A model folder with the built-in tokenizer; `swapped`: with two of its tokens exchanged.
std::string Folder(const TempFolder& temp, const std::string& name, int64_t vocab, bool head,
                   bool swapped) {
  Weights policy(Shape(vocab), Device::kCpu, DType::kFloat32);
  policy.Initialise(3, 0.1);
  const std::string folder = temp / name;
  policy_model::SaveModelDirectory(
      head ? policy_model::ScalarHeadFrom(policy, 4) : std::move(policy), folder, "");
  auto tokenizer = nlohmann::json::parse(Tokenizer::BuiltIn("arithmetic")->json());
  if (swapped) std::swap(tokenizer["model"]["vocab"]["3"], tokenizer["model"]["vocab"]["4"]);
  RealFileSystem().WriteFileAtomic(folder + "/tokenizer.json", tokenizer.dump());
  return folder;
}

// Refused with exit code 2 before the warm start, and no step was written.
void ExpectRefused(const TempFolder& temp, const std::vector<std::string>& set,
                   const std::string& why) {
  std::vector<std::string> more;
  for (const std::string& s : set) more.insert(more.end(), {"--set", s});
  const CliOutput output = Train(temp / "run", 2, more);
  EXPECT_EQ(output.code, 2) << why << ": " << output.err;
  EXPECT_TRUE(Has(output.err, why)) << why << " is not in: " << output.err;
  EXPECT_FALSE(Has(output.out, "warm start 1")) << "said only after the warm start: " << output.out;
  EXPECT_FALSE(RealFileSystem().Exists(temp / "run/metrics.jsonl"));
  std::filesystem::remove_all(temp / "run");
}

TEST(BadInputTest, ACriticThatCannotBeOne) {
  const TempFolder temp;
  const auto ppo = [&](const std::string& path) {
    return std::vector<std::string>{"algorithm.name=ppo", "critic.path=" + path};
  };
  ExpectRefused(temp, ppo(Folder(temp, "vocabulary", 31, true, false)),
                "the critic has a vocabulary of 31, the policy of 26");
  ExpectRefused(temp, ppo(Folder(temp, "tokens", 26, true, true)),
                "the critic's tokenizer is not the policy's");
  ExpectRefused(temp, ppo(Folder(temp, "headless", 26, false, false)),
                "is not a model with a scalar head");
  // The same folder without the fault is fine.
  const CliOutput good = Train(temp / "good", 1,
                               {"--set", "algorithm.name=ppo", "--set", "algorithm.kl_coef=0",
                                "--set", "critic.path=" + Folder(temp, "critic", 26, true, false)});
  EXPECT_EQ(good.code, 0) << good.err;
}

TEST(BadInputTest, ARewardModelThatCannotBeOne) {
  const TempFolder temp;
  const auto part = [&](const std::string& path) {
    return std::vector<std::string>{"reward.parts.1.kind=reward_model",
                                    "reward.parts.1.target_tokens=0", "reward.parts.1.max_tokens=0",
                                    "reward.parts.1.path=" + path};
  };
  ExpectRefused(temp, part(Folder(temp, "tokens", 26, true, true)),
                "its tokenizer is not the policy's");
  ExpectRefused(temp, part(Folder(temp, "headless", 26, false, false)), "has no scalar head");
}

TEST(BadInputTest, OptionsThatContradictEachOther) {
  const TempFolder temp;
  ExpectRefused(temp, {"algorithm.name=ppo", "algorithm.kl_controller=adaptive"},
                "needs algorithm.kl_target > 0");
  ExpectRefused(temp, {"algorithm.refill_rounds=3", "rollout.samples_per_prompt=1"},
                "(dynamic sampling) needs groups");
  ExpectRefused(temp, {"algorithm.name=dapo", "rollout.samples_per_prompt=1"},
                "(dynamic sampling) needs groups");
  ExpectRefused(temp, {"algorithm.name=ppo", "algorithm.refill_rounds=3"}, "leave it at 0");
  ExpectRefused(temp, {"algorithm.minibatches=17"}, "larger than the number of answers in a batch");
  ExpectRefused(temp, {"rollout.prompts_per_step=100000"}, "has only");
  ExpectRefused(temp, {"rollout.prompts_per_step=9999"}, " usable rows: set it to 9");
}

// What no reward part could score is refused before anything is generated.
TEST(BadInputTest, RowsWithoutTheGroundTruthThatAPartComparesWith) {
  const TempFolder temp;
  const std::string data = temp / "rows.jsonl";
  const std::vector<std::string> set = {"data.train=" + data, "data.eval=", "sft.steps=0",
                                        "rollout.prompts_per_step=2"};
  RealFileSystem().WriteFileAtomic(data,
                                   "{\"prompt\": \"1+1=\", \"sum\": 2}\n"
                                   "{\"prompt\": \"1+2=\", \"sum\": 3}\n");
  ExpectRefused(
      temp, set,
      "no row has a ground truth, and reward part 'correct' (kind = \"answer\") compares");
  ExpectRefused(temp, set, "data.map = { answer = \"COLUMN\" } (the first row also has: sum)");
  RealFileSystem().WriteFileAtomic(data,
                                   "{\"prompt\": \"1+1=\", \"solution\": \"2\"}\n"
                                   "{\"prompt\": \"1+2=\", \"solution\": \"3\"}\n");
  ExpectRefused(temp, set,
                "so that no answer would get a score; the column 'solution' looks like one: "
                "data.map = { answer = \"solution\" }, or take another reward part");
  RealFileSystem().WriteFileAtomic(data,
                                   "{\"prompt\": \"1+1=\", \"answer\": \"2\"}\n"
                                   "{\"prompt\": \"1+2=\", \"target\": \"3\"}\n");
  std::vector<std::string> more;
  for (const std::string& s : set) more.insert(more.end(), {"--set", s});
  const CliOutput some = Train(temp / "some", 1, more);
  EXPECT_TRUE(Has(some.out, "1 of 2 prompts have no ground truth, and reward part 'correct'"))
      << some.out << some.err;
  EXPECT_TRUE(Has(some.out, "their answers get no score; the column 'target' looks like one"))
      << some.out;
}

// A store is taken for its prompts, and one without any says so.
TEST(BadInputTest, AStoreOfPairsHasNoPromptsToAnswer) {
  const TempFolder temp;
  const std::string rows = temp / "rows.jsonl", store = temp / "store";
  RealFileSystem().WriteFileAtomic(
      rows, "{\"prompt\": \"1+1=\", \"chosen\": \"2\", \"rejected\": \"3\"}\n");
  ASSERT_EQ(RunPlumb({"data", "import", rows, "--store", store}).code, 0);
  ExpectRefused(temp, {"data.train=" + store}, store);
}

TEST(BadInputTest, AStoppedRunSaysHowFarItCameAndGoesOnFromThere) {
  const TempFolder temp;
  const std::string run = temp / "run";
  const pid_t program = StartProgram(TrainLine(run, 100000, {}), run);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!RealFileSystem().Exists(run + "/metrics.jsonl") &&
         std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  kill(program, SIGTERM);
  int status = 0;
  waitpid(program, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7) << Read(run + ".out");
  EXPECT_TRUE(Has(Read(run + ".out"), " of 100000 steps; the newest checkpoint is step "))
      << Read(run + ".out");
  EXPECT_TRUE(Read(run + ".out").ends_with(" train --resume --out " + run + "\n"))
      << Read(run + ".out");
  const auto done = static_cast<int64_t>(Lines(run + "/metrics.jsonl").size());
  const CliOutput again = Train(run, done + 1, {"--resume"});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(static_cast<int64_t>(Lines(run + "/metrics.jsonl").size()), done + 1)
      << "every step once";
}

TEST(BadInputTest, TheSizesOfABatchAreSaidResolved) {
  const TempFolder temp;
  const CliOutput output =
      Train(temp / "run", 1,
            {"--set", "algorithm.ppo_mini_batch_size=2", "--set", "algorithm.num_iterations=3"});
  ASSERT_EQ(output.code, 0) << output.err;
  EXPECT_TRUE(Has(output.out,
                  "1 step of 4 prompts x 4 answers = 16 trajectories; 3 epochs of 2 minibatches "
                  "of 8; at most 4096 tokens a "
                  "micro-batch; float32, roles local"))
      << output.out;
}

}  // namespace
}  // namespace plumb::run::testing
