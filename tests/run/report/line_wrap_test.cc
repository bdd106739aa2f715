#include "run/report/line_wrap.h"

#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <cstdlib>

namespace plumb::run {
namespace {

TEST(LineWrapTest, CutsBehindASemicolonElseBetweenWords) {
  EXPECT_EQ(WrapLine("fits as it is", 13), "fits as it is");
  EXPECT_EQ(WrapLine("one two three four", 13), "one two three\n  four");
  EXPECT_EQ(WrapLine("one two three four", 12), "one two\n  three four");
  EXPECT_EQ(WrapLine("40 steps of 8; at most 4096 tokens", 24),
            "40 steps of 8;\n  at most 4096 tokens");
  EXPECT_EQ(WrapLine("a; most of it is behind that", 20), "a; most of it is\n  behind that")
      << "not after a word";
  EXPECT_EQ(WrapLine("/a/long/path/to/copy", 8), "/a/long/path/to/copy");
  EXPECT_EQ(WrapLine("in /a/long/path/to/copy now", 8), "in\n  /a/long/path/to/copy\n  now");
  EXPECT_EQ(WrapLine("αβγδ εζηθ", 9), "αβγδ εζηθ") << "characters, not bytes";
  EXPECT_EQ(WrapLine("", 8), "");
}

TEST(LineWrapTest, ToTheTerminalAndNotInAFile) {
  const std::string line = "one two three four five six seven";
  std::FILE* file = std::tmpfile();
  EXPECT_EQ(FitLine(line, file), line);
  std::fclose(file);
  winsize size{.ws_row = 24, .ws_col = 20, .ws_xpixel = 0, .ws_ypixel = 0};
  int ours = -1, theirs = -1;
  ASSERT_EQ(openpty(&ours, &theirs, nullptr, nullptr, &size), 0);
  std::FILE* terminal = fdopen(theirs, "w");
  EXPECT_EQ(FitLine(line, terminal), "one two three four\n  five six seven");
  std::fclose(terminal);
  close(ours);
}

}  // namespace
}  // namespace plumb::run
