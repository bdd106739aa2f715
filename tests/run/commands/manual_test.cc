#include "run/commands/manual.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <string>

#include "tests/run/cli_runner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using testing::Has;
using testing::RunPlumb;

std::string Shell(const std::string& command) {
  FILE* pipe = ::popen(command.c_str(), "r");
  std::string out;
  std::array<char, 4096> part;
  while (const size_t n = std::fread(part.data(), 1, part.size(), pipe)) out.append(part.data(), n);
  ::pclose(pipe);
  return out;
}

class CompletionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const testing::CliOutput script = RunPlumb({"completion", "bash"});
    ASSERT_EQ(script.code, 0) << script.err;
    std::ofstream(folder_ / "plumb.bash") << script.out;
  }
  // What bash offers behind `plumb WORDS`, the last of them unfinished.
  std::string Offered(const std::string& words) {
    return Shell("bash -c '. " + (folder_ / "plumb.bash") + "; COMP_WORDS=(plumb " + words +
                 "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _plumb; echo ${COMPREPLY[*]}'");
  }
  plumb::testing::TempFolder folder_;
};

TEST_F(CompletionTest, OffersVerbsThenTheirOptions) {
  EXPECT_EQ(Offered("tra"), "train\n");
  EXPECT_TRUE(Has(Offered("\"\""), "doctor"));
  EXPECT_FALSE(Has(Offered("\"\""), "manual")) << "the verb for installing is not offered";
  EXPECT_EQ(Offered("data imp"), "import\n");
  EXPECT_EQ(Offered("train recipe.toml --over"), "--overwrite\n");
  EXPECT_EQ(Offered("--steps train --res"), "--resume\n");
  EXPECT_EQ(Offered("train recipe"), "\n") << "files are the shell's";
}

TEST_F(CompletionTest, TheScriptForZshHasTheSameWords) {
  const testing::CliOutput script = RunPlumb({"completion", "zsh"});
  EXPECT_EQ(script.code, 0);
  EXPECT_TRUE(script.out.starts_with("#compdef plumb\n"));
  EXPECT_TRUE(Has(script.out, "--overwrite"));
  EXPECT_EQ(RunPlumb({"completion", "tcsh"}).code, 2);
}

TEST(ManualTest, SaysWhatEachVerbTakesAndTheExitCodes) {
  const testing::CliOutput page = RunPlumb({"manual"});
  ASSERT_EQ(page.code, 0) << page.err;
  for (const char* text : {".TH PLUMB 1", ".SS plumb train\n", ".SS plumb data import\n",
                           "\\-\\-overwrite", ".SH EXIT STATUS\n"})
    EXPECT_TRUE(Has(page.out, text)) << text;
  if (Shell("command -v groff").empty()) GTEST_SKIP() << "NOT READ: no groff";
  plumb::testing::TempFolder folder;
  std::ofstream(folder / "plumb.1") << page.out;
  EXPECT_EQ(Shell("groff -man -Tutf8 -ww -z " + (folder / "plumb.1") + " 2>&1"), "");
}

}  // namespace
}  // namespace plumb::run
