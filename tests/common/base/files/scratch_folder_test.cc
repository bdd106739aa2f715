// common/base/files/scratch_folder.h: there for this user alone, and gone with what is in it.
#include "common/base/files/scratch_folder.h"

#include <gtest/gtest.h>

#include <fstream>

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

}  // namespace
}  // namespace plumb
