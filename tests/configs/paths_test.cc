// configs/paths.h: from the recipe's folder first, then from the working folder.
#include "configs/paths.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"
#include "configs/recipe_problems.h"
#include "tests/testing/temp_folder.h"

namespace plumb::configs {
namespace {

using plumb::testing::TempFolder;

TEST(Paths, AreFoundBesideTheRecipe) {
  const TempFolder temp;
  RealFileSystem().WriteFileAtomic(temp / "prompts.jsonl", "{}\n");
  RealFileSystem().WriteFileAtomic(temp / "rule.py", "");
  Config config;
  config.data.train = "prompts.jsonl";
  config.data.eval = "arithmetic";
  config.reward.parts.resize(1);
  config.reward.parts[0].path = "rule.py";
  config.model.path = "no/such/model";
  FindBesideRecipe(config, temp / "r.toml");
  const auto real = std::filesystem::canonical(temp.path());
  EXPECT_EQ(config.data.train, real / "prompts.jsonl");
  EXPECT_EQ(config.reward.parts[0].path, real / "rule.py");
  EXPECT_EQ(config.data.eval, "arithmetic");
  EXPECT_EQ(config.model.path, "no/such/model") << "stays as it is where it leads nowhere";
  const auto missing = MissingFiles(config, temp / "r.toml");
  ASSERT_EQ(missing.size(), 1u);
  EXPECT_NE(missing[0].find((real / "no/such/model").string()), std::string::npos) << missing[0];
}

TEST(Paths, OfTheRecipeGoBeforeThoseOfTheWorkingFolderAndThoseOfSetBehind) {
  namespace fs = std::filesystem;
  const TempFolder temp;
  const fs::path real = fs::canonical(temp.path());
  for (const char* folder : {"recipes", "here", "run"}) {
    fs::create_directories(temp / folder);
    RealFileSystem().WriteFileAtomic(temp / folder + "/rows.jsonl", "{}\n");
    RealFileSystem().WriteFileAtomic(temp / folder + "/rule.py", "");
  }
  RealFileSystem().WriteFileAtomic(temp / "here/only.jsonl", "{}\n");
  const std::string text =
      "[data]\ntrain = \"rows.jsonl\"\neval = \"only.jsonl\"\n"
      "[[reward.parts]]\nkind = \"python\"\npath = \"rule.py\"\n";
  RealFileSystem().WriteFileAtomic(temp / "recipes/r.toml", text);
  RealFileSystem().WriteFileAtomic(temp / "run/config.toml", text);
  RealFileSystem().WriteFileAtomic(temp / "run/run.json", "{}");
  const fs::path before = fs::current_path();
  fs::current_path(temp / "here");
  std::vector<std::string> problems, notes, none;
  const Config own = ReadRecipe("../recipes/r.toml", {}, problems, &notes).config;
  const Config set =
      ReadRecipe("../recipes/r.toml", {"data.train=rows.jsonl", "reward.parts.0.path=rule.py"},
                 problems, &notes)
          .config;
  RealFileSystem().WriteFileAtomic("r.toml", text);
  const Config beside = ReadRecipe("r.toml", {}, problems, &none).config;
  const Config run = ReadRecipe("../run/config.toml", {}, problems, &none).config;
  fs::current_path(before);
  EXPECT_TRUE(problems.empty());
  EXPECT_EQ(own.data.train, real / "recipes/rows.jsonl");
  EXPECT_EQ(own.data.eval, "only.jsonl") << "there is none beside the recipe";
  EXPECT_EQ(own.reward.parts[0].path, real / "recipes/rule.py");
  EXPECT_EQ(set.data.train, "rows.jsonl");
  EXPECT_EQ(set.reward.parts[0].path, "rule.py");
  ASSERT_EQ(notes.size(), 4u);
  const std::string of_here = (real / "here/rows.jsonl").string(),
                    of_recipe = (real / "recipes/rows.jsonl").string();
  EXPECT_TRUE(notes[0].starts_with("data.train = \"rows.jsonl\" is " + of_recipe)) << notes[0];
  EXPECT_NE(notes[0].find(of_here), std::string::npos) << notes[0];
  EXPECT_TRUE(notes[1].starts_with("reward.parts.0.path = \"rule.py\" is ")) << notes[1];
  EXPECT_TRUE(notes[2].starts_with("data.train = \"rows.jsonl\" is " + of_here)) << notes[2];
  EXPECT_EQ(beside.data.train, "rows.jsonl") << "the two are one";
  EXPECT_EQ(run.data.train, "rows.jsonl") << "what a run holds is no data of its recipe";
  EXPECT_TRUE(none.empty()) << none.front();
}

// By a name alone a program is looked for in PATH, where the recipe's folder is not.
TEST(Paths, ProgramsBesideTheRecipeComeWithTheirFolder) {
  namespace fs = std::filesystem;
  const TempFolder temp;
  const fs::path real = fs::canonical(temp.path());
  for (const char* file : {"guess.py", "sort"})
    RealFileSystem().WriteFileAtomic((real / file).string(), "");
  const fs::path before = fs::current_path();
  fs::current_path(real);
  for (const char* kind : {"program", "agent"}) {
    RealFileSystem().WriteFileAtomic(
        "r.toml", std::string("[environment]\nkind = \"") + kind +
                      "\"\npath = \"guess.py\"\n[[reward.parts]]\nkind = \"program\"\n"
                      "path = \"guess.py\"\n");
    for (const std::string& recipe :
         {std::string("r.toml"), std::string("./r.toml"), (real / "r.toml").string()}) {
      std::vector<std::string> problems, notes;
      const Config config = ReadRecipe(recipe, {}, problems, &notes).config;
      EXPECT_EQ(config.environment.path, real / "guess.py") << kind << " " << recipe;
      EXPECT_EQ(config.reward.parts[0].path, real / "guess.py") << kind << " " << recipe;
      const Config set = ReadRecipe(recipe, {"environment.path=env"}, problems, &notes).config;
      EXPECT_EQ(set.environment.path, "env") << "of PATH";
      const Config own = ReadRecipe(recipe, {"environment.path=sort"}, problems, &notes).config;
      EXPECT_EQ(own.environment.path, real / "sort") << "beside the recipe goes before PATH";
      EXPECT_TRUE(notes.empty());
    }
  }
  fs::current_path(before);
}

// A run's recipe looked at from elsewhere, and a recipe that goes on with the run from there.
TEST(Paths, OfARunLeadFromTheFolderThatItWasStartedIn) {
  namespace fs = std::filesystem;
  const TempFolder temp;
  const fs::path real = fs::canonical(temp.path());
  for (const char* folder : {"home/data", "home/recipes", "home/runs/a", "away"})
    fs::create_directories(real / folder);
  for (const char* file : {"home/data/rows.jsonl", "home/rule.py", "away/rule.py"})
    RealFileSystem().WriteFileAtomic((real / file).string(), "");
  const std::string text =
      "[run]\nout = \"runs/a\"\n[data]\ntrain = \"data/rows.jsonl\"\neval = \"arithmetic\"\n"
      "[[reward.parts]]\nkind = \"python\"\npath = \"rule.py\"\n";
  const std::string run = (real / "home/runs/a").string(),
                    recipe = (real / "home/recipes/r.toml").string();
  RealFileSystem().WriteFileAtomic(run + "/config.toml", text);
  RealFileSystem().WriteFileAtomic(
      run + "/run.json",
      "{\"started_in\": \"" + (real / "home").string() + "\", \"folder\": \"" + run + "\"}");
  RealFileSystem().WriteFileAtomic(recipe, text);
  std::vector<std::string> problems, notes, none;
  const fs::path before = fs::current_path();
  fs::current_path(real / "home");
  const Config at_home = ReadRecipe("runs/a/config.toml", {}, problems, &none).config;
  fs::current_path(real / "away");
  const Config away = ReadRecipe(run + "/config.toml", {}, problems, &notes).config;
  const Config set =
      ReadRecipe(run + "/config.toml", {"reward.parts.0.path=rule.py"}, problems, &none).config;
  Config again = ReadRecipe(recipe, {}, problems, &none).config;
  FindWhereRunBegan(again, run);
  Config said = away, other = away;
  other.data.train = (real / "away/rule.py").string();
  for (Config* config : {&said, &other}) SayPathsAsRun(*config, run, text);
  fs::current_path(before);
  EXPECT_TRUE(problems.empty());
  EXPECT_EQ(at_home.data.train, "data/rows.jsonl") << "leads there as it stands";
  EXPECT_EQ(away.data.train, real / "home/data/rows.jsonl");
  EXPECT_EQ(away.data.eval, "arithmetic");
  EXPECT_EQ(away.run.out, "runs/a");
  EXPECT_EQ(away.reward.parts[0].path, real / "home/rule.py") << "not the namesake";
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_TRUE(notes[0].starts_with("reward.parts.0.path = \"rule.py\" is " +
                                   (real / "home/rule.py").string()))
      << notes[0];
  EXPECT_NE(notes[0].find((real / "away/rule.py").string()), std::string::npos) << notes[0];
  EXPECT_EQ(set.reward.parts[0].path, "rule.py") << "as it was typed, from here";
  EXPECT_EQ(again.data.train, real / "home/data/rows.jsonl");
  EXPECT_EQ(said.data.train, "data/rows.jsonl");
  EXPECT_EQ(said.reward.parts[0].path, "rule.py");
  EXPECT_EQ(other.data.train, real / "away/rule.py") << "another file stays another";
}

// A project that was moved as a whole; its recipe names data relative to itself.
TEST(Paths, OfAMovedProjectLeadToItsNewPlace) {
  namespace fs = std::filesystem;
  const TempFolder temp;
  const fs::path real = fs::canonical(temp.path());
  for (const char* folder : {"new/data", "new/recipes", "new/runs/a"})
    fs::create_directories(real / folder);
  for (const char* file : {"new/data/rows.jsonl", "new/data/other.jsonl"})
    RealFileSystem().WriteFileAtomic((real / file).string(), "");
  const std::string recipe = (real / "new/recipes/r.toml").string(),
                    run = (real / "new/runs/a").string(),
                    then = (real / "old/data/rows.jsonl").string(),
                    now = (real / "new/data/rows.jsonl").string(),
                    stored = "[data]\ntrain = \"" + then + "\"\n";
  RealFileSystem().WriteFileAtomic(recipe, "[data]\ntrain = \"../data/rows.jsonl\"\n");
  RealFileSystem().WriteFileAtomic(run + "/config.toml", stored);
  RealFileSystem().WriteFileAtomic(
      run + "/run.json", "{\"started_in\": \"" + (real / "old").string() + "\", \"folder\": \"" +
                             (real / "old/runs/a").string() + "\"}");
  std::vector<std::string> problems;
  EXPECT_EQ(ReadRecipe(run + "/config.toml", {}, problems).config.data.train, now);
  Config own = ReadRecipe(recipe, {}, problems).config, other = own;
  FindWhereRunBegan(own, run);
  EXPECT_EQ(own.data.train, now);
  SayPathsAsRun(own, run, stored);
  EXPECT_EQ(own.data.train, then) << "the run keeps its recipe, and its digest";
  other.data.train = (real / "new/data/other.jsonl").string();
  SayPathsAsRun(other, run, stored);
  EXPECT_EQ(other.data.train, real / "new/data/other.jsonl") << "another file stays another";
  Config in_full;
  in_full.data.train = then;
  FindWhereRunBegan(in_full, run);
  EXPECT_EQ(in_full.data.train, now) << "a recipe may name it in full, too";
}

TEST(Paths, OfANewRecipeLeadToTheSamePlaceFromEverywhere) {
  namespace fs = std::filesystem;
  const TempFolder temp;
  const fs::path real = fs::canonical(temp.path());
  fs::create_directories(temp / "made/deep");
  fs::create_directories(temp / "model");
  RealFileSystem().WriteFileAtomic(temp / "blob", "{}\n");
  fs::create_symlink(temp / "blob", temp / "rows.jsonl");
  EXPECT_EQ(PathInRecipe(temp / "rows.jsonl", temp / "r.toml"), "rows.jsonl");
  EXPECT_EQ(PathInRecipe(temp / "rows.jsonl", temp / "made/deep/r.toml"), "../../rows.jsonl");
  EXPECT_EQ(PathInRecipe(temp / "model/", temp / "made/r.toml"), "../model");
  EXPECT_EQ(PathInRecipe(temp / "made/..", temp / "made/r.toml"), "..");
  EXPECT_EQ(PathInRecipe(temp / "model", ""), real / "model") << "to no file: in full";
  EXPECT_EQ(PathInRecipe("/proc/version", temp / "r.toml"), "/proc/version") << "far away: in full";
  EXPECT_EQ(PathInRecipe("arithmetic", temp / "r.toml"), "arithmetic");
  EXPECT_EQ(PathInRecipe("", temp / "r.toml"), "");
  // As they were typed, from a folder between.
  const fs::path before = fs::current_path();
  fs::current_path(temp / "made");
  EXPECT_EQ(PathInRecipe("../rows.jsonl", "deep/r.toml"), "../../rows.jsonl");
  EXPECT_EQ(PathInRecipe("../rows.jsonl", ""), real / "rows.jsonl");
  fs::current_path(before);
}

TEST(Paths, AllThatIsMissingIsRefusedAtOnce) {
  Config config;
  config.data.train = "arithmetic";
  EXPECT_NO_THROW(RefuseMissingFiles(config, "r.toml"));
  config.model.path = "no/such/model";
  config.data.eval = "no/such/rows.jsonl";
  try {
    RefuseMissingFiles(config, "r.toml");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
    EXPECT_NE(e.message().find("model.path = "), std::string::npos) << e.message();
    EXPECT_NE(e.message().find("data.eval = "), std::string::npos) << e.message();
  }
}

TEST(Paths, OnlyACommentWithACommandSaysHowAFileIsMade) {
  const TempFolder temp;
  Config config;
  config.data.train = "none/rows.jsonl";
  const auto missing = [&](const std::string& comment) {
    RealFileSystem().WriteFileAtomic(temp / "r.toml", comment);
    return MissingFiles(config, temp / "r.toml").front();
  };
  const std::string header =
      "# grpo of m on none/rows.jsonl: 3 prompts. Made by `plumb config new`";
  EXPECT_EQ(missing(header + "\n#   plumb train RECIPE\n").find("a comment of the recipe"),
            std::string::npos)
      << missing(header);
  EXPECT_NE(missing("# It needs\n#   make rows > none/rows.jsonl\n")
                .find("says how it is made: " + (temp / "r.toml") + ":2: make rows > "),
            std::string::npos);
}

TEST(Paths, WhatRewardPartsNameIsLookedForToo) {
  const TempFolder temp;
  Config config;
  config.data.train = "arithmetic";
  config.reward.parts = {{.name = "judge", .kind = "python", .path = "no/such.py"},
                         {.name = "shell", .kind = "program", .path = "sh"},
                         {.name = "mine", .kind = "program", .path = "no-such-program"},
                         {.name = "rule", .kind = "answer"}};
  const auto missing = MissingFiles(config, temp / "r.toml");
  ASSERT_EQ(missing.size(), 2u);
  EXPECT_TRUE(missing[0].starts_with("reward part 'judge': path = \"no/such.py\" is not there"))
      << missing[0];
  EXPECT_NE(missing[0].find((std::filesystem::current_path() / "no/such.py").string()),
            std::string::npos);
  EXPECT_NE(missing[0].find((std::filesystem::canonical(temp.path()) / "no/such.py").string()),
            std::string::npos)
      << missing[0];
  EXPECT_TRUE(
      missing[1].starts_with("reward part 'mine': path = \"no-such-program\" is no program"))
      << missing[1];
  config.algorithm.name = AlgorithmName::kDpo;  // which scores nothing
  EXPECT_TRUE(MissingFiles(config, temp / "r.toml").empty());
}

}  // namespace
}  // namespace plumb::configs
