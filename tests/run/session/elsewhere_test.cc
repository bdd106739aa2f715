// A run that was started in one folder, from another: resumed, judged, asked and shown.
#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/file.h"
#include "tests/run/cli_runner.h"
#include "tests/run/toy_run.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;
using plumb::testing::SourcePath;
using plumb::testing::TempFolder;
using testing::CliOutput;
using testing::ExpectSameRun;
using testing::Has;
using testing::Read;
using testing::RunPlumb;
using testing::TrainLine;

class Elsewhere : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* folder : {"home/data", "away"}) fs::create_directories(temp_ / folder);
    fs::current_path(temp_ / "home");
    home_ = fs::current_path().string();
  }
  void TearDown() override { fs::current_path(before_); }

  void GoAway() { fs::current_path(temp_ / "away"); }

  const TempFolder temp_;
  const fs::path before_ = fs::current_path();
  std::string home_;
};

std::string Sums(int from, int n) {
  std::string rows;
  for (int i = from; i < from + n; ++i)
    rows += "{\"prompt\": \"" + std::to_string(i) + "+2=\", \"answer\": \"" +
            std::to_string(i + 2) + "\"}\n";
  return rows;
}

// Its recipe names files from the folder that the run is started in; none lies beside the recipe.
std::vector<std::string> OfFiles(const std::string& out, int64_t steps) {
  return TrainLine(
      out, steps,
      {"--quiet", "--set", "data.train=data/rows.jsonl", "--set", "data.eval=data/heldout.jsonl",
       "--set", "sft.steps=0", "--set", "optimizer.lr_schedule=constant", "--set",
       "optimizer.warmup_fraction=0", "--set", "checkpoint.optimizer=always"});
}

TEST_F(Elsewhere, ARunGoesOnAndIsLookedAtFromAnotherFolder) {
  RealFileSystem().WriteFileAtomic("data/rows.jsonl", Sums(10, 20));
  RealFileSystem().WriteFileAtomic("data/heldout.jsonl", Sums(50, 4));
  fs::create_directories("runs");
  for (const auto& [run, steps] : {std::pair("runs/whole", 6), std::pair("runs/run", 2)}) {
    const CliOutput made = RunPlumb(OfFiles(run, steps));
    ASSERT_EQ(made.code, 0) << made.err;
  }
  const std::string run = home_ + "/runs/run", recipe = Read(run + "/config.toml");
  ASSERT_TRUE(Has(recipe, "train = \"data/rows.jsonl\"")) << recipe;

  GoAway();
  const CliOutput own = RunPlumb({"train", "--resume", "--out", run, "--steps", "4", "--quiet"});
  ASSERT_EQ(own.code, 0) << own.err;
  std::vector<std::string> line = OfFiles(run, 6);
  line.push_back("--resume");
  const CliOutput given = RunPlumb(line);
  ASSERT_EQ(given.code, 0) << given.err;
  std::string now = Read(run + "/config.toml");
  now.replace(now.find("steps = 6"), 9, "steps = 2");
  const auto but_out = [](std::string text) {
    const size_t at = text.find("out = ");
    return text.erase(at, text.find('\n', at) - at);
  };
  EXPECT_EQ(but_out(now), but_out(recipe)) << "a cluster's roles know the run by it";
  EXPECT_FALSE(Has(Read(run + "/changes.jsonl"), "data.")) << Read(run + "/changes.jsonl");
  ExpectSameRun(home_ + "/runs/whole", run);

  for (const std::vector<std::string>& verb : std::vector<std::vector<std::string>>{
           {"eval", run, "--recipe", run + "/config.toml", "--max-new-tokens", "4"},
           {"eval", run, home_ + "/data/heldout.jsonl", "--rewards", run + "/config.toml",
            "--max-new-tokens", "4"},
           {"generate", run, "--prompt", "1+2=", "--max-new-tokens", "4"},
           {"report", run},
           {"plan", run + "/config.toml"},
           {"reward", "test", run + "/config.toml"},
           {"store", "inspect", run + "/store"},
           {"data", "rescore", run + "/config.toml", "--store", run + "/store"},
           {"config", "show", run + "/config.toml", "data"}}) {
    const CliOutput output = RunPlumb(verb);
    EXPECT_EQ(output.code, 0) << verb[0] << ": " << output.err << output.out;
  }

  // The folder with run and data has moved.
  fs::current_path(before_);
  fs::rename(temp_ / "home", temp_ / "moved");
  fs::create_directories(temp_ / "home");
  const CliOutput moved =
      RunPlumb({"train", "--resume", "--out", temp_ / "moved/runs/run", "--steps", "7", "--quiet"});
  EXPECT_EQ(moved.code, 0) << moved.err;
}

// Data beside the recipe, which a run's config.toml names in full.
TEST_F(Elsewhere, AMovedProjectWhoseRecipeNamesDataFromItselfGoesOn) {
  RealFileSystem().WriteFileAtomic("data/rows.jsonl", Sums(10, 20));
  RealFileSystem().WriteFileAtomic("data/other.jsonl", Sums(40, 20));
  fs::create_directories("recipes");
  std::string recipe = Read(SourcePath("configs/toy_grpo.toml"));
  const std::string arithmetic = "train = \"arithmetic\"";
  ASSERT_TRUE(Has(recipe, arithmetic)) << recipe;
  recipe.replace(recipe.find(arithmetic), arithmetic.size(), "train = \"../data/rows.jsonl\"");
  RealFileSystem().WriteFileAtomic("recipes/r.toml", recipe);
  const std::vector<std::string> rest = {"--out",          "runs/a",      "--quiet",
                                         "--set",          "sft.steps=0", "--set",
                                         "run.out=runs/a", "--set",       "eval.every=0"};
  const auto train = [&](std::vector<std::string> line) {
    line.insert(line.begin(), "train");
    line.insert(line.end(), rest.begin(), rest.end());
    return RunPlumb(line);
  };
  const CliOutput made = train({"recipes/r.toml", "--steps", "1"});
  ASSERT_EQ(made.code, 0) << made.err;
  fs::current_path(before_);
  fs::rename(temp_ / "home", temp_ / "moved");
  fs::current_path(temp_ / "moved");
  const CliOutput own =
      RunPlumb({"train", "--resume", "--out", "runs/a", "--steps", "2", "--quiet"});
  EXPECT_EQ(own.code, 0) << own.err;
  const CliOutput given = train({"recipes/r.toml", "--resume", "--steps", "3"});
  EXPECT_EQ(given.code, 0) << given.err;
  const CliOutput other =
      train({"recipes/r.toml", "--resume", "--steps", "4", "--set", "data.train=data/other.jsonl"});
  EXPECT_EQ(other.code, 2) << other.err;
  EXPECT_TRUE(Has(other.err, "a run's data never changes")) << other.err;
}

TEST_F(Elsewhere, AnAdapterFindsItsBaseFromTheStartOfItsRun) {
  const std::string toy = SourcePath("configs/toy_grpo.toml");
  ASSERT_EQ(RunPlumb({"train", toy, "--out", "base", "--steps", "0", "--quiet", "--set",
                      "data.eval=", "--set", "eval.bar=0"})
                .code,
            0);
  fs::rename("base/checkpoints/step-00000000/model", "model");
  const CliOutput made =
      RunPlumb({"train", toy, "--out", "run", "--steps", "1", "--quiet", "--set",
                "model.path=model", "--set", "policy.adapter=lora", "--set", "eval.bar=0"});
  ASSERT_EQ(made.code, 0) << made.err;
  GoAway();
  const CliOutput asked =
      RunPlumb({"generate", home_ + "/run", "--prompt", "1+2=", "--max-new-tokens", "4"});
  EXPECT_EQ(asked.code, 0) << asked.err;
}

TEST_F(Elsewhere, StagesThatHaveNotBegunFindTheirFilesToo) {
  RealFileSystem().WriteFileAtomic("data/rows.jsonl", Sums(10, 20));
  fs::create_directories("recipes");
  const std::string model = "[model]\nlayers = 1\nhidden = 32\nheads = 2\nkv_heads = 2\nffn = 64\n";
  for (const char* name : {"first", "second"}) {
    RealFileSystem().WriteFileAtomic(
        std::string("recipes/my_") + name + ".toml",
        "[run]\nsteps = 1\nthreads = 1\n" + model +
            "[data]\ntrain = \"data/rows.jsonl\"\n[rollout]\nprompts_per_step = 2\n"
            "samples_per_prompt = 2\nmax_new_tokens = 8\nkv_budget_mb = 64\n"
            "[[reward.parts]]\nkind = \"length\"\ntarget_tokens = 1\nmax_tokens = 8\n");
  }
  RealFileSystem().WriteFileAtomic("recipes/my.toml",
                                   "[run]\nstages = [\"my_first.toml\", \"my_second.toml\"]\n");
  const CliOutput made = RunPlumb({"train", "recipes/my.toml", "--out", "run", "--quiet"});
  ASSERT_EQ(made.code, 0) << made.err;
  fs::remove_all("run/2-second");
  GoAway();
  const CliOutput again = RunPlumb({"train", "--resume", "--out", home_ + "/run", "--quiet"});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_TRUE(fs::exists(home_ + "/run/2-second/model"));
}

}  // namespace
}  // namespace plumb::run
