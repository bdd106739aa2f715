// common/base/log.h
#include "common/base/log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

TEST(Log, RoleRankAndLevelStandInTheFile) {
  testing::TempFolder folder;
  const std::string path = folder / "actor.log";
  SetUpLogging("actor", 3, path, LogLevel::kInfo);
  LogInfo("a line with {braces} and %s");
  LogDebug("not this one");
  SetUpLogging("learner", -1, path, LogLevel::kDebug);
  LogDebug("but this one");
  const std::string text = RealFileSystem().ReadFile(path, 10000);
  EXPECT_NE(text.find(" actor-3 info: a line with {braces} and %s\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("not this one"), std::string::npos);
  EXPECT_NE(text.find(" learner debug: but this one\n"), std::string::npos) << text;
  SetUpLogging("plumb", -1, "");
}

TEST(Log, EveryIntervalOneWarningWithTheCountOfTheRest) {
  testing::TempFolder folder;
  const std::string path = folder / "log";
  SetUpLogging("test", 0, path);
  LogEvery every(std::chrono::milliseconds(50));
  for (int i = 0; i < 10; ++i) every.Warning("slow disk");
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  every.Warning("slow disk");
  SetUpLogging("plumb", -1, "");
  const std::string text = RealFileSystem().ReadFile(path, 10000);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2) << text;
  EXPECT_NE(text.find("slow disk (and 9 more like it)"), std::string::npos) << text;
}

TEST(Log, OnceIsOnceForEachLine) {
  testing::TempFolder folder;
  const std::string path = folder / "log";
  SetUpLogging("test", 0, path);
  for (const char* line : {"an odd file", "another odd file", "an odd file"}) LogWarningOnce(line);
  SetUpLogging("plumb", -1, "");
  const std::string text = RealFileSystem().ReadFile(path, 10000);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2) << text;
}

}  // namespace
}  // namespace plumb
