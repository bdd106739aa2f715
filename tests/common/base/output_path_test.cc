#include "common/base/output_path.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

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

}  // namespace
}  // namespace plumb
