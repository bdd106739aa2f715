// common/base/files/scratch_folder.h: there for this user alone, and gone with what is in it.
#include "common/base/files/scratch_folder.h"

#include <gtest/gtest.h>

#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "common/base/error.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

TEST(ScratchFolder, IsGoneWithWhatIsInIt) {
  std::string path;
  {
    const ScratchFolder folder(fs::temp_directory_path() / "plumb-test"),
        other(fs::temp_directory_path() / "plumb-test");
    path = folder.path();
    EXPECT_NE(path, other.path());
    EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_all);
    fs::create_directories(path + "/in/it");
    std::ofstream(path + "/in/it/file") << "text";
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST(ScratchFolder, OneThatCannotBeMadeIsAnError) {
  EXPECT_THROW(ScratchFolder("/nowhere at all/plumb"), Error);
}

TEST(ScratchFolder, OneThatAKilledProgramLeftIsRemovedAndOneInUseIsNot) {
  const ScratchFolder outer(TemporaryFolder() / "plumb-test");
  const fs::path beginning = fs::path(outer.path()) / "pairs";
  const auto old = fs::file_time_type::clock::now() - std::chrono::minutes(2);
  const ScratchFolder used(beginning);
  fs::last_write_time(used.path(), old);
  const std::string left = beginning.string() + "-AbCdEf", young = beginning.string() + "-GhIjKl",
                    other = beginning.string() + "-of-a-user";
  for (const std::string& folder : {left, young, other}) fs::create_directories(folder + "/store");
  for (const std::string& folder : {left, other}) fs::last_write_time(folder, old);
  const ScratchFolder next(beginning);
  EXPECT_FALSE(fs::exists(left));
  for (const std::string& folder : {used.path(), young, other, next.path()})
    EXPECT_TRUE(fs::exists(folder)) << folder;
}

TEST(ScratchFolder, AFolderForTemporaryFilesThatIsNotThereIsNamed) {
  const char* before = std::getenv("TMPDIR");
  const std::string kept = before ? before : "";
  ::setenv("TMPDIR", "/nowhere at all", 1);
  std::string said;
  try {
    TemporaryFolder();
  } catch (const Error& error) {
    said = error.what();
  }
  if (before) ::setenv("TMPDIR", kept.c_str(), 1);
  else ::unsetenv("TMPDIR");
  EXPECT_NE(said.find("TMPDIR = /nowhere at all"), std::string::npos) << said;
}

}  // namespace
}  // namespace plumb
