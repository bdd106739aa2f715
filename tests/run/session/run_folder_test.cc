#include "run/session/run_folder.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/base/error.h"
#include "common/base/file.h"
#include "run/session/built.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

constexpr char kRecipe[] = PLUMB_SOURCE_DIR "/configs/arithmetic_grpo.toml";

PreparedRun Prepare(const std::string& out, const std::vector<std::string>& overrides, bool resume,
                    bool overwrite = false) {
  configs::Config config = configs::LoadRecipe(kRecipe, overrides).config;
  config.run.out = out;
  return PrepareRun(config, kRecipe, resume, overwrite);
}

template <class Body>
Error ErrorOf(Body body) {
  try {
    body();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no error";
  return Error(ErrorCode::kIo, "none");
}

std::string Read(const std::string& path) { return RealFileSystem().ReadFile(path, 1 << 20); }

std::string WithCheckpoint(const RunFolder& folder, const std::string& name) {
  RealFileSystem().CreateDirectories(folder.checkpoints() + "/" + name);
  RealFileSystem().WriteFileAtomic(folder.checkpoints() + "/" + name + "/manifest.json", "{}");
  return name;
}

// Everything below a folder with its content, but for the lock.
std::map<std::string, std::string> ContentOf(const std::string& folder) {
  std::map<std::string, std::string> content;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().filename() == RunLock::kFile) continue;
    content[entry.path().string()] =
        entry.is_regular_file() ? Read(entry.path().string()) : "folder";
  }
  return content;
}

TEST(RunFolderTest, AFolderIsMadeOnceAndNeverOverwrittenUnasked) {
  const TempFolder temp;
  const std::string out = temp / "run";
  const RunFolder folder = Prepare(out, {}, false).folder();
  EXPECT_EQ(folder.path, out);
  EXPECT_TRUE(std::filesystem::is_directory(folder.checkpoints()));
  const std::string id = ReadRunId(folder);
  RealFileSystem().WriteFileAtomic(folder.metrics(), "{\"step\":0}\n");

  const Error again = ErrorOf([&] { Prepare(out, {}, false); });
  EXPECT_EQ(again.code(), ErrorCode::kConflict);
  EXPECT_NE(again.message().find("--resume"), std::string::npos);
  EXPECT_TRUE(std::filesystem::exists(folder.metrics())) << "refusing must not touch the run";

  Prepare(out, {}, true);
  EXPECT_EQ(ReadRunId(folder), id) << "a resumed run is the same run";
  EXPECT_TRUE(std::filesystem::exists(folder.metrics()));

  Prepare(out, {}, false, /*overwrite=*/true);
  EXPECT_NE(ReadRunId(folder), id) << "a new run has a new id: the store of the old one is refused";
  EXPECT_FALSE(std::filesystem::exists(folder.metrics()));
}

// A run that was made is worth more than a recipe that cannot start.
TEST(RunFolderTest, AReplacedRunIsBackWhereTheNewOneCannotStart) {
  const TempFolder temp;
  const std::string out = temp / "run";
  const RunFolder folder = Prepare(out, {}, false).folder();
  RealFileSystem().WriteFileAtomic(folder.metrics(), "{\"step\":0}\n");
  RealFileSystem().WriteFileAtomic(out + "/notes.txt", "mine");
  const auto before = ContentOf(out);

  for (const int code : {2, 3, 5, 9}) {
    PreparedRun failing = Prepare(out, {"run.steps=7"}, false, /*overwrite=*/true);
    EXPECT_FALSE(std::filesystem::exists(folder.metrics()));
    failing.UndoIfNothingTrained(code);
    EXPECT_EQ(ContentOf(out), before) << code;
  }
  Prepare(out, {"run.steps=7"}, false, /*overwrite=*/true);  // and killed
  Prepare(out, {"run.steps=8"}, false, true).UndoIfNothingTrained(3);
  EXPECT_EQ(ContentOf(out), before);
  // Killed while it was set aside, or put back.
  for (const char* left : {"metrics.jsonl", "run.json"}) {
    RealFileSystem().CreateDirectories(out + "/.moving");
    RealFileSystem().Rename(out + "/" + left, out + "/.moving/" + left);
    EXPECT_EQ(ErrorOf([&] { Prepare(out, {}, false); }).code(), ErrorCode::kConflict) << left;
    EXPECT_EQ(ContentOf(out), before) << left;
  }

  PreparedRun trained = Prepare(out, {}, false, /*overwrite=*/true);
  ReplacedRunGoes(folder);
  trained.UndoIfNothingTrained(0);
  EXPECT_FALSE(std::filesystem::exists(folder.replaced()));
  EXPECT_TRUE(std::filesystem::exists(out + "/notes.txt")) << "no run's";
}

TEST(RunFolderTest, AFolderOfSomethingElseIsLeftAlone) {
  const TempFolder temp;
  RealFileSystem().CreateDirectories(temp / "mine");
  RealFileSystem().WriteFileAtomic(temp / "mine/thesis.tex", "ten years");
  for (const bool overwrite : {false, true}) {
    EXPECT_EQ(ErrorOf([&] { Prepare(temp / "mine", {}, false, overwrite); }).code(),
              ErrorCode::kConflict);
    EXPECT_EQ(ContentOf(temp / "mine").size(), 1u);
  }
}

TEST(RunFolderTest, ResumingWhereNoRunIsSaysSoAndMakesNone) {
  const TempFolder temp;
  const Error nowhere = ErrorOf([&] { Prepare(temp / "none", {}, true); });
  EXPECT_EQ(nowhere.code(), ErrorCode::kNotFound);
  EXPECT_EQ(nowhere.where(), temp / "none");
  EXPECT_FALSE(std::filesystem::exists(temp / "none"));
  RealFileSystem().CreateDirectories(temp / "empty");
  EXPECT_EQ(ErrorOf([&] { Prepare(temp / "empty", {}, true, /*overwrite=*/true); }).code(),
            ErrorCode::kNotFound);
  EXPECT_TRUE(std::filesystem::is_empty(temp / "empty"));
}

// Whoever runs in a folder has it until its process ends: neither resumed nor replaced, and nothing
// in it is touched.
TEST(RunFolderTest, ARunThatGoesOnIsNeitherResumedNorReplaced) {
  const TempFolder temp;
  const auto going = std::make_unique<PreparedRun>(Prepare(temp / "run", {}, false));
  const auto before = ContentOf(temp / "run");
  for (const bool resume : {true, false}) {
    const Error refused = ErrorOf([&] { Prepare(temp / "run", {"run.steps=7"}, resume, !resume); });
    EXPECT_EQ(refused.code(), ErrorCode::kConflict);
    EXPECT_EQ(refused.where(), temp / "run");
    EXPECT_NE(refused.message().find("going on"), std::string::npos) << refused.message();
  }
  EXPECT_EQ(ContentOf(temp / "run"), before);
  std::filesystem::rename(temp / "run", temp / "moved");
  EXPECT_EQ(ErrorOf([&] { Prepare(temp / "moved", {}, false, /*overwrite=*/true); }).code(),
            ErrorCode::kConflict);
}

TEST(RunFolderTest, WhatCannotChangeIsNamedWithTheReasonAndChangesNothing) {
  const TempFolder temp;
  Prepare(temp / "run", {}, false);
  const auto before = ContentOf(temp / "run");
  const Error e = ErrorOf([&] {
    Prepare(temp / "run", {"run.steps=7", "rollout.temperature=0.5", "run.seed=77"}, true);
  });
  EXPECT_EQ(e.code(), ErrorCode::kConflict);
  for (const char* part :
       {"rollout.temperature: the run has 1.0, the recipe says 0.5; stored answers", "run.seed",
        "77", "` has all of the run's own"}) {
    EXPECT_NE(e.message().find(part), std::string::npos) << part << ": " << e.message();
  }
  // What it proposes is a command that goes on: the run's folder, no file in it.
  EXPECT_NE(e.message().find("`plumb train --resume --out " + (temp / "run") + "` has"),
            std::string::npos)
      << e.message();
  EXPECT_EQ(e.message().find("run.steps"), std::string::npos) << "that one may change";
  EXPECT_EQ(ContentOf(temp / "run"), before);
  EXPECT_TRUE(Prepare(temp / "run", {}, true).changes().empty());
}

TEST(RunFolderTest, ChangesAreRecordedWithTheirStep) {
  const TempFolder temp;
  const RunFolder folder = Prepare(temp / "run", {"run.steps=10"}, false).folder();
  WithCheckpoint(folder, "step-00000004");
  RealFileSystem().CreateDirectories(
      folder.checkpoints() + "/step-00000006");  // half-written: the run does not go on from it
  {
    const PreparedRun first =
        Prepare(temp / "run", {"run.steps=20", "optimizer.learning_rate=0.5"}, true);
    EXPECT_EQ(first.next_step(), 4);
    ASSERT_EQ(first.changes().size(), 2u);
  }
  EXPECT_EQ(configs::LoadRecipe(folder.config()).config.run.steps, 20);
  WithCheckpoint(folder, "step-00000012");
  Prepare(temp / "run", {"run.steps=20", "optimizer.learning_rate=0.5"},
          true);  // as it is now: nothing to record
  Prepare(temp / "run", {"run.steps=20", "optimizer.learning_rate=0.25"}, true);
  std::vector<nlohmann::json> lines;
  std::istringstream in(Read(folder.changes()));
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0], (nlohmann::json{
                          {"step", 4}, {"option", "run.steps"}, {"before", "10"}, {"now", "20"}}));
  EXPECT_EQ(lines[1]["option"], "optimizer.learning_rate");
  EXPECT_EQ(lines[2], (nlohmann::json{{"step", 12},
                                      {"option", "optimizer.learning_rate"},
                                      {"before", "0.5"},
                                      {"now", "0.25"}}));
}

// Whatever refuses a resume later, e.g. the store: as long as no step was trained, the run is as it
// was.
TEST(RunFolderTest, AResumeThatTrainedNothingIsTakenBack) {
  const TempFolder temp;
  const RunFolder folder = Prepare(temp / "run", {"run.steps=10"}, false).folder();
  WithCheckpoint(folder, "step-00000004");
  RealFileSystem().WriteFileAtomic(folder.metrics(), "{\"step\":3}\n");
  const auto before = ContentOf(temp / "run");
  for (const int code : {2, 6}) {
    PreparedRun run = Prepare(temp / "run", {"run.steps=20"}, true);
    run.UndoIfNothingTrained(code);
    EXPECT_EQ(ContentOf(temp / "run"), before) << code;
  }
  for (const int code : {0, 7}) {  // ended, or stopped by hand
    PreparedRun run = Prepare(temp / "run", {"run.steps=" + std::to_string(20 + code)}, true);
    run.UndoIfNothingTrained(code);
    EXPECT_EQ(configs::LoadRecipe(folder.config()).config.run.steps, 20 + code);
  }
  {
    PreparedRun run = Prepare(temp / "run", {"run.steps=40"}, true);
    WithCheckpoint(folder, "step-00000005");
    run.UndoIfNothingTrained(6);
    EXPECT_EQ(configs::LoadRecipe(folder.config()).config.run.steps, 40) << "it went on with it";
  }
}

TEST(RunFolderTest, AResumeIsNotStoppedAsTheLifeBeforeWas) {
  const TempFolder temp;
  Prepare(temp / "run", {}, false);
  RealFileSystem().WriteFileAtomic(temp / "run/stopped", "");
  Prepare(temp / "run", {}, true);
  EXPECT_FALSE(RealFileSystem().Exists(temp / "run/stopped"));
}

TEST(RunFolderTest, WhatLiesInTheFoldersPlaceIsNotTakenBack) {
  const TempFolder temp;
  PreparedRun first = Prepare(temp / "run", {}, false);
  std::filesystem::rename(temp / "run", temp / "moved");
  const PreparedRun second = Prepare(temp / "run", {}, false);
  first.UndoIfNothingTrained(2);
  EXPECT_EQ(ReadRunId(second.folder()).size(), 16u);
}

TEST(RunFolderTest, ARunSaysWhoMadeItOfWhatAndWhen) {
  const TempFolder temp;
  const RunFolder folder = Prepare(temp / "run", {}, false).folder();
  const std::string before = Read(folder.identity());
  const auto identity = nlohmann::json::parse(before);
  EXPECT_EQ(identity["recipe"], kRecipe);
  EXPECT_EQ(identity["version"], BuiltVersion());
  EXPECT_EQ(BuiltVersion().find_first_not_of("0123456789."), std::string::npos);
  EXPECT_EQ(identity["commit"], BuiltCommit());
  EXPECT_GT(identity["began_s"].get<double>(), 1.7e9);
  WithCheckpoint(folder, "step-00000001");
  Prepare(temp / "run", {}, true);
  EXPECT_EQ(Read(folder.identity()), before) << "a resume is the same run";
}

TEST(RunFolderTest, WhatAKilledStartLeftStandsInNobodysWay) {
  const TempFolder temp;
  std::filesystem::create_directories(temp / "a");
  { std::ofstream(temp / "a/run.json.tmp.1.0") << "{"; }
  const RunFolder a = Prepare(temp / "a", {}, false).folder();
  EXPECT_FALSE(std::filesystem::exists(temp / "a/run.json.tmp.1.0"));
  // Killed between its name and its recipe.
  std::filesystem::remove(a.config());
  EXPECT_THROW(Prepare(temp / "a", {}, true), Error) << "there is nothing to go on with";
  const std::string id = ReadRunId(a);
  Prepare(temp / "a", {}, false);
  EXPECT_NE(ReadRunId(a), id);
  // What has steps is a run, whatever else it lacks.
  std::filesystem::remove(a.config());
  RealFileSystem().WriteFileAtomic(a.metrics(), "{\"step\":0}\n");
  EXPECT_THROW(Prepare(temp / "a", {}, false), Error);
}

TEST(RunFolderTest, ARunWhoseCheckpointsAreGoneDoesNotBeginAnewUnasked) {
  const TempFolder temp;
  const RunFolder folder = Prepare(temp / "run", {}, false).folder();
  std::filesystem::create_directories(folder.model());
  try {
    Prepare(temp / "run", {}, true);
    FAIL() << "it trained already";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
    EXPECT_NE(std::string(e.what()).find("holds no checkpoint"), std::string::npos) << e.what();
  }
  EXPECT_TRUE(std::filesystem::exists(folder.model()));
  WithCheckpoint(folder, "step-00000004");
  EXPECT_EQ(Prepare(temp / "run", {}, true).next_step(), 4);
}

TEST(RunFolderTest, ANewRunThatCannotStartLeavesNothing) {
  const TempFolder temp;
  Prepare(temp / "run", {}, false).UndoIfNothingTrained(2);
  EXPECT_FALSE(std::filesystem::exists(temp / "run"));
  PreparedRun begun = Prepare(temp / "run", {}, false);
  WithCheckpoint(begun.folder(), "step-00000000");
  begun.UndoIfNothingTrained(2);
  EXPECT_TRUE(std::filesystem::exists(temp / "run/run.json"));
  PreparedRun stepped = Prepare(temp / "stepped", {}, false);
  RealFileSystem().WriteFileAtomic(stepped.folder().metrics(), "{\"step\":0}\n");
  stepped.UndoIfNothingTrained(2);
  EXPECT_TRUE(std::filesystem::exists(temp / "stepped/run.json")) << "without a checkpoint, too";
}

}  // namespace
}  // namespace plumb::run
