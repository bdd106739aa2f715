#include "common/base/program_call.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

std::string Program(const std::string& path) {
  RealFileSystem().CreateDirectories(std::filesystem::path(path).parent_path().string());
  RealFileSystem().WriteFileAtomic(path, "");
  chmod(path.c_str(), 0755);
  return path;
}

TEST(ProgramCallTest, IsWhatAShellThereWouldFind) {
  const plumb::testing::TempFolder temp;
  const std::string clone = temp / "clone", bin = temp / "bin", none = temp / "none";
  const std::string built = Program(clone + "/build/plumb"), installed = Program(bin + "/plumb");
  EXPECT_EQ(CallOf(built, none, clone), "build/plumb");
  EXPECT_EQ(CallOf(built, none, clone + "/build"), "./plumb");
  EXPECT_EQ(CallOf(built, none, bin), built);
  EXPECT_EQ(CallOf(built, none + ":" + clone + "/build:" + bin, clone), "plumb");
  EXPECT_EQ(CallOf(built, bin + ":" + clone + "/build", clone), "build/plumb")
      << "another program of that name comes first";
  EXPECT_EQ(CallOf(installed, bin, clone), "plumb");
  std::filesystem::create_symlink(built, temp / "plumb");
  EXPECT_EQ(CallOf(built, temp.path(), bin), "plumb");
}

TEST(ProgramCallTest, OfThisProgram) {
  EXPECT_NE(ProgramCall().find("common_test"), std::string::npos);
}

}  // namespace
}  // namespace plumb
