#include "run/session/recipe/recipe_check.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/base/file.h"
#include "tests/run/cli_runner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::CliOutput;
using testing::Has;
using testing::RunPlumb;

std::string Write(const std::string& path, const std::string& text) {
  RealFileSystem().WriteFileAtomic(path, text);
  return path;
}

// A misspelt key, a contradiction, a kind and an argument that there are not, and three files.
constexpr char kWrong[] = R"(
[data]
train = "no/rows.jsonl"
eval = "no/heldout.jsonl"
[algorithm]
name = "grpo"
kl_coeff = 0.1
[rollout]
samples_per_prompt = 1
[[reward.parts]]
kind = "lenght"
[[reward.parts]]
kind = "repetition"
args = ["m=3"]
[[reward.parts]]
kind = "python"
path = "no/reward.py"
args = ["style=mine"]
)";

TEST(RecipeCheckTest, AllThatIsWrongIsSaidAtOnceAndNothingIsMade) {
  const TempFolder temp;
  const std::string recipe = Write(temp / "r.toml", kWrong);
  const std::vector<std::string> all = {"unknown key 'algorithm.kl_coeff', did you mean",
                                        "samples_per_prompt has to be at least 2",
                                        "reward part 'lenght': unknown kind 'lenght', did you mean",
                                        "reward part 'repetition' (kind repetition): args has",
                                        "reward part 'python': args has 'style=mine'",
                                        "data.train = \"no/rows.jsonl\" is not there",
                                        "data.eval = \"no/heldout.jsonl\" is not there",
                                        "part 'python': path = \"no/reward.py\" is not there"};
  for (const std::vector<std::string>& verb :
       {std::vector<std::string>{"train", recipe, "--out", temp / "run"}, {"plan", recipe}}) {
    const CliOutput output = RunPlumb(verb);
    EXPECT_EQ(output.code, 2) << verb[0];
    EXPECT_TRUE(Has(output.err, "8 problems:")) << verb[0] << output.err;
    for (const std::string& said : all) EXPECT_TRUE(Has(output.err, said)) << said << output.err;
  }
  EXPECT_FALSE(RealFileSystem().Exists(temp / "run"));
  // What has no use for held-out rows does not miss them, and a part that is not asked for neither.
  const CliOutput test = RunPlumb({"reward", "test", recipe, "--part", "python"});
  EXPECT_TRUE(Has(test.err, all[4]) && Has(test.err, all[5]) && Has(test.err, all[7])) << test.err;
  EXPECT_FALSE(Has(test.err, all[6]) || Has(test.err, all[2])) << test.err;
  const CliOutput eval =
      RunPlumb({"eval", temp / "no-model", temp / "rows.jsonl", "--recipe", recipe});
  EXPECT_TRUE(Has(eval.err, all[2]) && Has(eval.err, all[7])) << "before the model: " << eval.err;
  EXPECT_FALSE(Has(eval.err, all[5]) || Has(eval.err, all[6])) << eval.err;
  const CliOutput shown = RunPlumb({"config", "show", recipe});
  EXPECT_TRUE(Has(shown.err, all[2]) && Has(shown.err, all[0])) << shown.err;
}

TEST(RecipeCheckTest, OfARecipeForAnotherMachineConfigShowNamesWhatIsNotHere) {
  const TempFolder temp;
  const std::string recipe = Write(
      temp / "r.toml",
      "[data]\ntrain = \"no/rows.jsonl\"\n[[reward.parts]]\nkind = \"judge\"\nendpoint = "
      "\"http://127.0.0.1:1/v1\"\nmodel = \"m\"\napi_key_env = \"PLUMB_TEST_NO_SUCH_VARIABLE\"\n");
  const CliOutput shown = RunPlumb({"config", "show", recipe, "data"});
  EXPECT_EQ(shown.code, 0) << shown.err;
  EXPECT_TRUE(Has(shown.err, "note: data.train = \"no/rows.jsonl\" is not there")) << shown.err;
  const CliOutput trained = RunPlumb({"train", recipe, "--out", temp / "run"});
  EXPECT_TRUE(Has(trained.err, "PLUMB_TEST_NO_SUCH_VARIABLE") && Has(trained.err, "no/rows.jsonl"))
      << trained.err;
}

TEST(RecipeCheckTest, MissingFilesAloneAreNotFound) {
  const TempFolder temp;
  const std::string recipe = Write(
      temp / "r.toml", "[data]\ntrain = \"no/rows.jsonl\"\n[[reward.parts]]\nkind = \"answer\"\n");
  EXPECT_EQ(RunPlumb({"plan", recipe}).code, 3);
  EXPECT_EQ(RunPlumb({"train", recipe, "--out", temp / "run"}).code, 3);
}

TEST(RecipeCheckTest, EveryKindIsLookedAtWithoutWhatItNeeds) {
  configs::RewardConfig rewards;
  const auto problems = [&](configs::RewardPartConfig part) {
    part.name = "p";
    rewards.parts = {std::move(part)};
    const auto all = PartProblems(rewards, Surroundings::kIgnored);
    return all.empty() ? "" : all.front();
  };
  for (const char* kind : {"python", "plugin", "program", "reward_model", "perplexity"})
    EXPECT_TRUE(Has(problems({.kind = kind}), "needs path")) << kind;
  for (const char* kind : {"zmq", "http", "judge"})
    EXPECT_FALSE(problems({.kind = kind}).empty()) << kind;
  EXPECT_TRUE(Has(problems({.kind = ""}), "has no kind"));
  EXPECT_TRUE(Has(problems({.kind = "code_tests", .args = {"score=some"}}), "args has"));
  EXPECT_TRUE(Has(problems({.kind = "perplexity", .path = "no", .args = {"low=x"}}), "args has"));
  EXPECT_EQ(problems({.kind = "perplexity", .path = "no"}), "");
  EXPECT_EQ(problems({.kind = "python", .path = "no.py", .args = {"function=f"}}), "");
  EXPECT_EQ(problems({.kind = "zmq", .endpoint = "tcp://127.0.0.1:1"}), "");
  EXPECT_EQ(problems({.kind = "answer"}), "");
  rewards.parts.push_back(rewards.parts.front());
  const auto twice = PartProblems(rewards, Surroundings::kIgnored);
  ASSERT_EQ(twice.size(), 1u);
  EXPECT_TRUE(Has(twice[0], "two reward parts are called 'p'"));
}

}  // namespace
}  // namespace plumb::run
