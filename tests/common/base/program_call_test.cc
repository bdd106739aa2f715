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

TEST(ProgramCallTest, IsWhatTheUserTypedWhereThatIsThisProgram) {
  const plumb::testing::TempFolder temp;
  const std::string built = Program(temp / "clone/build/plumb"), below = temp / "clone/runs/a";
  RealFileSystem().CreateDirectories(below);
  EXPECT_EQ(CallOf(built, "", below, "../../build/plumb"), "../../build/plumb");
  EXPECT_EQ(CallOf(built, "", temp.path(), built), built) << "the whole path, where that was typed";
  EXPECT_EQ(CallOf(built, "", temp.path(), "../other/plumb"), "clone/build/plumb")
      << "from another working directory than it was typed in";
  EXPECT_EQ(CallOf(built, temp / "clone/build", below, "plumb"), "plumb");
  EXPECT_EQ(CallOf(built, "", temp / "clone", "plumb"), "build/plumb") << "not on the PATH";
}

TEST(ProgramCallTest, StandsInEveryCommandBetweenBackticks) {
  const std::string call = ProgramCall();
  EXPECT_EQ(
      AsCalled("look with `plumb store inspect X`, then `plumb train`; plumb is no command"),
      "look with `" + call + " store inspect X`, then `" + call + " train`; plumb is no command");
  EXPECT_EQ(AsCalled("`plumbing`"), "`plumbing`");
  EXPECT_EQ(AsCalled(""), "");
}

TEST(ProgramCallTest, OfThisProgram) {
  EXPECT_NE(ProgramCall().find("common_test"), std::string::npos);
}

}  // namespace
}  // namespace plumb
