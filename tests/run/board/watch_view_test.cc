#include "run/board/watch_view.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/text/columns.h"
#include "tests/run/board/made_runs.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string Joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

WatchState Made() {
  WatchState s;
  s.name = "demo";
  s.algorithm = "grpo";
  s.model = "new, 4 x 128";
  s.step = 311;
  s.steps = 400;
  s.seconds = 468;
  s.seconds_a_step = 1.5;
  s.newest = {{"reward/mean", 0.953},   {"eval/accuracy", 0.89},
              {"replay/leased", 10000}, {"replay/held", 32},
              {"replay/queue", 4},      {"dropped/unscored", 8},
              {"refused/stale", 12},    {"perf/tokens_per_s", 19300},
              {"replay/inserts", 9984}, {"offpolicy/staleness_mean", 1.25}};
  for (const char* key : {"reward/mean", "eval/accuracy", "perf/tokens_per_s"}) {
    WatchCurve curve{key, {}};
    for (int i = 0; i < 120; ++i) curve.values.push_back(static_cast<float>(i) / 120);
    s.curves.push_back(std::move(curve));
  }
  s.sample = {300, "What is 6 x 7?", "It is 42.", "reward 1"};
  return s;
}

// What every window has to be.
void ExpectFits(const WatchState& s, int width, int height) {
  for (const bool colour : {false, true}) {
    const auto lines = DrawWatch(s, width, height, {.colour = colour});
    EXPECT_LE(static_cast<int>(lines.size()), height) << width << " x " << height;
    for (const std::string& line : lines) {
      EXPECT_LE(ShownColumns(line), width) << line;
      EXPECT_FALSE(Has(line, "\n"));
      if (!colour) {
        EXPECT_FALSE(Has(line, "\x1b"));
        EXPECT_EQ(ShownColumns(line), ColumnsOf(line));
      }
    }
  }
}

TEST(WatchViewTest, AnEightyByTwentyFourWindowHasItAll) {
  const auto lines = DrawWatch(Made(), 80, 24, {.colour = false});
  ASSERT_EQ(lines.size(), 24u);
  EXPECT_EQ(lines[0], "demo  grpo · new, 4 x 128" + std::string(80 - 25 - 9, ' ') + "● running");
  EXPECT_EQ(lines[1].substr(0, 14), "step 312/400  ");
  EXPECT_TRUE(Has(lines[1], "78 % · 1.50 s a step · 2:12 left"));
  EXPECT_EQ(ColumnsOf(lines[1]), 80);
  EXPECT_EQ(lines[2].substr(0, 17), "reward/mean 0.953");
  EXPECT_TRUE(Has(lines[2], "eval/accuracy 89 %"));
  const std::string all = Joined(lines);
  EXPECT_TRUE(Has(all, "── ring ──"));
  EXPECT_TRUE(Has(all, "replay 32 leases out → actor"));
  EXPECT_TRUE(Has(all, "→ store 9984 groups, 4 waiting"));
  EXPECT_TRUE(Has(all, "→ learner 1.25 staleness"));
  EXPECT_TRUE(Has(all, "refused/stale 12 · dropped/unscored 8"));
  EXPECT_TRUE(Has(all, "── answer of step 301, reward 1 ──"));
  EXPECT_TRUE(Has(all, "What is 6 x 7?\nIt is 42.\n"));
  EXPECT_EQ(lines.back(), "q leaves; the run goes on");
}

TEST(WatchViewTest, NoLineIsWiderThanTheWindowAndNoneIsTooMany) {
  WatchState wide = Made();
  wide.name =
      "\u6F22\u5B57 run with a very long name \u6F22\u5B57\u6F22\u5B57\u6F22\u5B57\u6F22\u5B57";
  wide.model = "\U0001F600\U0001F600\U0001F600 model";
  wide.sample.prompt = std::string(500, 'x') + "\u6F22";
  wide.sample.completion.clear();
  for (int i = 0; i < 300; ++i) wide.sample.completion += "\u6F22";
  wide.newest["dropped/\x1b[2J\u202E evil"] = 7;
  WatchState failed = wide;
  failed.state = RunState::kFailed;
  failed.reason = "the disk is full\nand\tmore \x1b]0;title\x07";
  WatchState empty;
  WatchState bare = Made();
  bare.curves.clear();
  bare.sample = {};
  for (const WatchState* s : {&wide, &failed, &empty, &bare}) {
    for (int width = 0; width < 210; width += width < 90 ? 1 : 13) {
      for (const int height : {0, 1, 2, 3, 5, 8, 12, 16, 20, 24, 30, 50, 80})
        ExpectFits(*s, width, height);
    }
  }
}

TEST(WatchViewTest, TextsOfAModelCannotSteerTheTerminal) {
  WatchState s = Made();
  s.sample.completion = "red \x1b[31m\x1b[2J, bell \x07, \u202Eback";
  s.name = "\x1b[2Jname";
  const std::string all = Joined(DrawWatch(s, 80, 30, {.colour = false}));
  EXPECT_FALSE(Has(all, "\x1b"));
  EXPECT_FALSE(Has(all, "\x07"));
  EXPECT_FALSE(Has(all, "\u202E"));
  EXPECT_TRUE(Has(all, "red \u241B[31m\u241B[2J, bell \u2407, \uFFFDback"));
  const std::string coloured = Joined(DrawWatch(s, 80, 30, {.colour = true}));
  EXPECT_FALSE(Has(coloured, "\x1b[2J"));
  EXPECT_TRUE(Has(coloured, "\x1b[36m"));
}

TEST(WatchViewTest, SaysHowARunEnded) {
  WatchState s = Made();
  s.state = RunState::kFailed;
  s.reason = "the disk is full";
  std::string all = Joined(DrawWatch(s, 80, 24, {.colour = false}));
  EXPECT_TRUE(Has(all, "● failed"));
  EXPECT_TRUE(Has(all, "the disk is full"));
  s.reason.clear();
  all = Joined(DrawWatch(s, 80, 24, {.colour = false}));
  EXPECT_TRUE(Has(all, "left without a summary"));
  s.state = RunState::kEnded;
  all = Joined(DrawWatch(s, 80, 24, {.colour = false}));
  EXPECT_TRUE(Has(all, "7:48 of training"));
  EXPECT_FALSE(Has(all, " left"));
  s.state = RunState::kRunning;
  s.idle_s = 400;
  EXPECT_TRUE(Has(Joined(DrawWatch(s, 120, 24, {.colour = false})), "no step for 6:40"));
}

TEST(WatchViewTest, BrailleDrawsACurve) {
  // Two columns of dots a character, from the lower left to the upper right.
  EXPECT_EQ(Braille({0, 1, 2, 3}, 2, 1), (std::vector<std::string>{"\u2860\u280A"}));
  EXPECT_EQ(Braille({5, 5}, 1, 1), (std::vector<std::string>{"\u2824"})) << "all equal: the middle";
  EXPECT_EQ(Braille({}, 3, 2), (std::vector<std::string>{"   ", "   "}));
  EXPECT_EQ(Braille({kNone, kNone}, 2, 1), (std::vector<std::string>{"  "}));
  // A jump of one column of dots to the next is filled in.
  EXPECT_EQ(Braille({0, 1}, 1, 2), (std::vector<std::string>{"\u28B8", "\u2878"}));
  for (int columns = 0; columns < 70; columns += 7) {
    for (const std::string& line : Braille({1, 5, kNone, 2, 8, 3}, columns, 4))
      EXPECT_EQ(ColumnsOf(line), columns);
  }
}

TEST(WatchViewTest, ALineForAStep) {
  EXPECT_EQ(
      WatchLine(11, 400,
                {{"reward/mean", 0.512},
                 {"objective/kl", 0.0123},
                 {"time/step", 1.5},
                 {"other", 1},
                 {"perf/tokens_per_s", 15234},
                 {"eval/accuracy", 0.5}}),
      "step 12/400  reward 0.512  held-out accuracy 50 %  KL 0.012  tokens/s 15.2k  seconds 1.50");
  EXPECT_EQ(WatchLine(0, 0, {{"dpo/loss", 0.6931}}), "step 1  loss 0.693");
}

TEST(WatchViewTest, LooksAtARun) {
  const plumb::testing::TempFolder temp;
  plumb::testing::MadeRun made;
  made.async = true;
  plumb::testing::RunMaker(temp / "a", made).WriteAll();
  RunView run("a", temp / "a");
  const WatchState s = LookAt(run, 160);
  EXPECT_EQ(s.state, RunState::kEnded);
  EXPECT_EQ(s.step, 399);
  EXPECT_EQ(s.steps, 400);
  EXPECT_NEAR(s.seconds_a_step, 1.5, 0.4);
  EXPECT_GE(s.curves.size(), 6u);
  EXPECT_EQ(s.curves[0].key, "reward/mean");
  EXPECT_EQ(s.curves[0].values.size(), 160u);
  EXPECT_TRUE(Has(s.sample.prompt, "What is"));
  ExpectFits(s, 80, 24);
  ExpectFits(s, 200, 60);
}

}  // namespace
}  // namespace plumb::run
