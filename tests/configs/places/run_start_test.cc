// configs/places/run_start.h: paths of a run's recipe lead from where it was started.
#include "configs/places/run_start.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::configs {
namespace {

namespace fs = std::filesystem;
using plumb::testing::TempFolder;

void Put(const std::string& path, const std::string& text = "{}\n") {
  fs::create_directories(fs::path(path).parent_path());
  RealFileSystem().WriteFileAtomic(path, text);
}

void PutRun(const std::string& folder, const std::string& started_in, const std::string& then) {
  Put(folder + "/run.json",
      "{\"run_id\": \"a\", \"started_in\": \"" + started_in + "\", \"folder\": \"" + then + "\"}");
}

TEST(RunStart, FindsFilesFromTheFolderThatTheRunWasStartedIn) {
  const TempFolder temp;
  PutRun(temp / "home/runs/a", temp / "home", temp / "home/runs/a");
  Put(temp / "home/data/rows.jsonl");
  for (const std::string& run : {temp / "home/runs/a", temp / "home/runs/a/"}) {
    const RunStart start = RunStart::Of(run);
    EXPECT_EQ(start.Find("data/rows.jsonl"), temp / "home/data/rows.jsonl");
    EXPECT_EQ(start.Find("./data/../data/rows.jsonl"), temp / "home/data/rows.jsonl");
    EXPECT_EQ(start.Find("data/none.jsonl"), "");
    EXPECT_EQ(start.Find(temp / "home/data/rows.jsonl"), "") << "which leads there anyway";
    EXPECT_EQ(start.Find(""), "");
  }
}

TEST(RunStart, GoesAlongWhereTheFolderAboveTheRunWasMoved) {
  const TempFolder temp;
  PutRun(temp / "new/runs/a", temp / "old", temp / "old/runs/a");
  Put(temp / "new/data/rows.jsonl");
  EXPECT_EQ(RunStart::Of(temp / "new/runs/a").Find("data/rows.jsonl"),
            temp / "new/data/rows.jsonl");
  Put(temp / "old/data/rows.jsonl");
  EXPECT_EQ(RunStart::Of(temp / "new/runs/a").Find("data/rows.jsonl"), temp / "old/data/rows.jsonl")
      << "what the run was made with, as long as it is there";
  // Started in a folder that is not above the run: a move of the run says nothing of it.
  PutRun(temp / "moved/b", temp / "gone", temp / "disk/b");
  Put(temp / "moved/data/rows.jsonl");
  Put(temp / "data/rows.jsonl");
  EXPECT_EQ(RunStart::Of(temp / "moved/b").Find("data/rows.jsonl"), "");
}

// What lay beside the recipe stands in a run's config.toml in full.
TEST(RunStart, GoesAlongWithPathsInFullThatWereMovedWithTheRun) {
  const TempFolder temp;
  for (const char* began : {"old", "old/recipes"}) {  // also a folder that is not above the run
    PutRun(temp / "new/runs/a", temp / began, temp / "old/runs/a");
    Put(temp / "new/data/rows.jsonl");
    Put(temp / "rows.jsonl");
    const RunStart start = RunStart::Of(temp / "new/runs/a/");
    EXPECT_EQ(start.Find(temp / "old/data/rows.jsonl"), temp / "new/data/rows.jsonl");
    EXPECT_EQ(start.Find(temp / "old/data/none.jsonl"), "");
    EXPECT_EQ(start.Find(temp / "older/data/rows.jsonl"), "") << "never in what was moved";
    EXPECT_EQ(start.Find(temp / "gone/rows.jsonl"), "");
  }
  Put(temp / "old/data/rows.jsonl");
  EXPECT_EQ(RunStart::Of(temp / "new/runs/a").Find(temp / "old/data/rows.jsonl"), "")
      << "which is there still";
  // Deeper elsewhere; and a run that was renamed by itself takes nothing along.
  PutRun(temp / "far/away/old/runs/b", temp / "old", temp / "gone/old/runs/b");
  Put(temp / "far/away/old/data/rows.jsonl");
  EXPECT_EQ(RunStart::Of(temp / "far/away/old/runs/b").Find(temp / "gone/old/data/rows.jsonl"),
            temp / "far/away/old/data/rows.jsonl");
  PutRun(temp / "new/runs/c", temp / "old", temp / "new/runs/b");
  EXPECT_EQ(RunStart::Of(temp / "new/runs/c").Find(temp / "new/data/none.jsonl"), "");
}

TEST(RunStart, OfARunThatDoesNotSayLeadsNowhere) {
  const TempFolder temp;
  Put(temp / "rows.jsonl");
  EXPECT_EQ(RunStart::Of(temp / "none").Find("rows.jsonl"), "");
  for (const char* text : {"{\"run_id\": \"a\"}", "[]", "{", "{\"started_in\": 3}",
                           "{\"started_in\": \".\", \"folder\": \"run\"}"}) {
    Put(temp / "run/run.json", text);
    EXPECT_EQ(RunStart::Of(temp / "run").Find("rows.jsonl"), "") << text;
  }
}

TEST(RunStart, WhatAModelOfARunNamesLeadsFromItsStart) {
  const TempFolder temp;
  PutRun(temp / "home/runs/a", temp / "home", temp / "home/runs/a");
  Put(temp / "home/models/base/config.json");
  const std::string model = temp / "home/runs/a/checkpoints/step-00000004/model";
  fs::create_directories(model);
  for (const std::string& file : {model, temp / "home/runs/a/model"})
    EXPECT_EQ(PlaceNamedInRun("models/base", file), temp / "home/models/base");
  EXPECT_EQ(PlaceNamedInRun("models/none", model), "models/none");
  EXPECT_EQ(PlaceNamedInRun("models/base", temp / "home/models"), "models/base") << "no run's";
  EXPECT_EQ(PlaceNamedInRun(temp / "home", model), temp / "home");
}

}  // namespace
}  // namespace plumb::configs
