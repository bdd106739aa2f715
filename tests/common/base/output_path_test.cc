#include "common/base/output_path.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

std::string Read(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(OutputPathTest, LinksAreFollowedAndPipesLeftAsTheyAre) {
  const testing::TempFolder temp;
  const std::string file = temp / "file", link = temp / "link", pipe = temp / "pipe";
  EXPECT_EQ(ReplaceablePath(file), file) << "not there yet";
  { std::ofstream(file) << "old"; }
  std::filesystem::create_symlink("file", link);
  EXPECT_EQ(ReplaceablePath(link), file);
  std::filesystem::create_symlink("to_come", temp / "early");
  EXPECT_EQ(ReplaceablePath(temp / "early"), temp / "to_come");
  std::filesystem::create_symlink("circle", temp / "circle");
  EXPECT_EQ(ReplaceablePath(temp / "circle"), temp / "circle");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(ReplaceablePath(pipe), std::nullopt);
  EXPECT_EQ(ReplaceablePath("/dev/null"), std::nullopt);
}

TEST(OutputPathTest, WritingAsAWholeReplacesNeitherLinksNorDevices) {
  const testing::TempFolder temp;
  const std::string file = temp / "file", link = temp / "link";
  { std::ofstream(file) << "old"; }
  std::filesystem::create_symlink(file, link);
  RealFileSystem().WriteFileAtomic(link, "new");
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(Read(file), "new");
  const std::string device = temp / "device";
  std::filesystem::create_symlink("/dev/null", device);
  RealFileSystem().WriteFileAtomic(device, "gone");
  EXPECT_TRUE(std::filesystem::is_character_file(device));
  EXPECT_TRUE(std::filesystem::is_symlink(device));
}

TEST(OutputPathTest, WhatCannotBeWrittenOrWouldDestroyWhatIsReadIsRefusedAtOnce) {
  const testing::TempFolder temp;
  const std::string file = temp / "rows.jsonl";
  { std::ofstream(file) << "rows"; }
  std::filesystem::create_symlink(file, temp / "link");
  const auto error = [&](const std::string& path) {
    try {
      CheckOutput(path, {"-", temp / "none", file}, "--out");
      return std::string();
    } catch (const Error& e) {
      return std::string(e.what());
    }
  };
  for (const std::string& good :
       {std::string("-"), std::string("new.jsonl"), temp / "new", std::string("/dev/null")})
    EXPECT_EQ(error(good), "") << good;
  EXPECT_NE(error("").find("--out: is empty"), std::string::npos) << error("");
  EXPECT_NE(error(temp.path()).find("is a folder"), std::string::npos) << error(temp.path());
  EXPECT_NE(error(temp / "no/x").find("there is no folder " + (temp / "no")), std::string::npos)
      << error(temp / "no/x");
  for (const std::string& same : {file, temp / "link", temp / "./rows.jsonl"})
    EXPECT_NE(error(same).find("is the file that is read"), std::string::npos) << same;
}

TEST(OutputPathTest, AFolderThatTakesNoFileIsSaidBeforeTheWork) {
  const testing::TempFolder temp;
  std::filesystem::permissions(
      temp.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  const pid_t child = fork();
  if (child == 0) {
    if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(2);  // root writes all
    try {
      CheckOutput(temp / "x", {}, "--out");
    } catch (const Error& e) {
      const bool said =
          e.code() == ErrorCode::kIo &&
          e.message().find("cannot be written: Permission denied") != std::string::npos;
      _exit(said ? 0 : 3);
    }
    _exit(1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  std::filesystem::permissions(temp.path(), std::filesystem::perms::owner_all);
}

TEST(OutputPathTest, AFileThatHoldsSomethingIsReplacedOnlyWithLeave) {
  const testing::TempFolder temp;
  const std::string file = temp / "rows.jsonl", empty = temp / "empty.jsonl";
  { std::ofstream(file) << "rows"; }
  { std::ofstream made(empty); }
  for (const std::string& good : {std::string("-"), temp / "new", std::string("/dev/null"), empty})
    EXPECT_NO_THROW(CheckNothingIsLost(good, /*overwrite=*/false, "--out")) << good;
  EXPECT_NO_THROW(CheckNothingIsLost(file, /*overwrite=*/true, "--out"));
  try {
    CheckNothingIsLost(file, /*overwrite=*/false, "--out");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kConflict);
    EXPECT_NE(e.message().find("--overwrite"), std::string::npos) << e.message();
  }
}

TEST(OutputPathTest, WhoeverWritesToAPipeWithoutAReaderIsToldSo) {
  std::signal(SIGPIPE, SIG_IGN);
  std::fflush(stdout);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const int saved = ::dup(STDOUT_FILENO);
  ::dup2(ends[1], STDOUT_FILENO);
  ::close(ends[0]);
  ::close(ends[1]);
  std::fputc('\n', stdout);
  std::string first, later;
  try {
    FlushOutput();
  } catch (const Error& e) {
    first = e.what();
  }
  later = OutputProblem(0);  // where the write that failed was another
  ::dup2(saved, STDOUT_FILENO);
  ::close(saved);
  std::clearerr(stdout);
  EXPECT_EQ(first, "standard output: cannot write: Broken pipe");
  EXPECT_EQ(later, "Broken pipe");
  EXPECT_NO_THROW(FlushOutput());
}

}  // namespace
}  // namespace plumb
