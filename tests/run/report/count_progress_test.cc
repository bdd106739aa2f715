// The line of a verb that works through a number of things, on a terminal and elsewhere.
#include "run/report/count_progress.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "run/report/progress.h"

namespace plumb::run {
namespace {

std::string Shown(bool terminal) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* out = open_memstream(&text, &size);
  {
    CountProgress progress(40, "prompts", terminal, out);
    progress.Show(0);
    progress.Show(10, "5 tokens/s");
  }
  std::fclose(out);
  std::string shown(text, size);
  free(text);
  return shown;
}

TEST(CountProgress, SaysHowManyAndHowLongStill) {
  const CountProgress progress(40, "prompts", false, stderr);
  EXPECT_EQ(progress.Text(0, 3, ""), "0/40 prompts") << "nothing is known yet";
  EXPECT_EQ(progress.Text(10, 20, "7 tokens/s"), "10/40 prompts, 1:00 left, 7 tokens/s");
  EXPECT_EQ(progress.Text(40, 80, ""), "40/40 prompts");
  EXPECT_EQ(progress.Text(1, 300, ""), "1/40 prompts, 3h15m left");
  EXPECT_EQ(progress.Text(0, 20, "", 0.25), "0/40 prompts, 1:00 left") << "begun, none is done";
  EXPECT_EQ(progress.Text(10, 20, "", 0.5), "10/40 prompts, 0:20 left");
  EXPECT_EQ(progress.Text(0, 20, "", 0.0), "0/40 prompts");
  EXPECT_EQ(progress.Text(40, 80, "", 1.0), "40/40 prompts");
  EXPECT_EQ(Duration(65), "1:05");
}

TEST(CountProgress, RedrawsOneLineOnATerminalAndIsQuietElsewhereAtFirst) {
  EXPECT_EQ(Shown(true), "\r\x1b[K0/40 prompts\r\x1b[K") << "drawn, and taken away at the end";
  EXPECT_EQ(Shown(false), "") << "not every ten seconds have passed";
}

}  // namespace
}  // namespace plumb::run
