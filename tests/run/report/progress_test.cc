#include "run/report/progress.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace plumb::run {
namespace {

// What `body` makes a Progress write.
template <class Body>
std::string Written(int64_t steps, bool terminal, Body body) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* out = open_memstream(&text, &size);
  {
    Progress progress({.steps = steps}, terminal, out);
    body(progress);
  }
  std::fclose(out);
  std::string result(text, size);
  std::free(text);
  return result;
}

const std::map<std::string, double> kMetrics = {
    {"reward/mean", 0.5},           {"objective/kl", 0.25},      {"policy/approx_kl", 9},
    {"response_length/mean", 12.5}, {"perf/tokens_per_s", 4321}, {"time/step", 2}};

TEST(ProgressTest, PlainLinesForFirstAndLastStepOnly) {
  const std::string text = Written(100, false, [](Progress& p) {
    p.Phase("training");
    for (int64_t step = 0; step < 100; ++step) p.Step(step, kMetrics);
  });
  EXPECT_EQ(text.find("-- training\n"), 0u) << text;
  EXPECT_NE(text.find("step 1/100  reward 0.500  kl 0.2500  length 12.5  4321 tok/s"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("step 100/100"), std::string::npos);
  EXPECT_EQ(text.find("step 50/100"), std::string::npos) << "not ten seconds later";
  EXPECT_EQ(text.find('\x1b'), std::string::npos) << "no control sequences in a file";
}

// Before a first step of a minute; later the steps' own lines say that the run goes on.
TEST(ProgressTest, AWaitIsSaidUntilAStepsLineIsOut) {
  const auto body = [](Progress& p) {
    p.Phase("training");
    p.Waiting("waiting for 3 of 8 groups of step 0");
    p.Step(0, kMetrics);
    p.Waiting("waiting for 2 of 8 groups of step 1");
  };
  const std::string plain = Written(100, false, body);
  EXPECT_EQ(plain.find("-- training\n   waiting for 3 of 8 groups of step 0\nstep 1/100"), 0u)
      << plain;
  EXPECT_EQ(plain.find("waiting for 2"), std::string::npos) << plain;
  const std::string drawn = Written(100, true, body);
  EXPECT_NE(drawn.find("waiting for 2 of 8 groups of step 1"), std::string::npos) << drawn;
  EXPECT_EQ(drawn.find("step 0\n"), std::string::npos) << "the step takes its place: " << drawn;
}

// A step of minutes is worth a line that stays: what is said of the next stands below it.
TEST(ProgressTest, ALongStepsLineStays) {
  const std::string drawn = Written(100, true, [](Progress& p) {
    p.Step(0, kMetrics);
    p.Waiting("step 2: the update is computed, 0:10 so far");
    p.Waiting("step 2: the update is computed, 0:11 so far");
    p.Step(1, kMetrics);
  });
  EXPECT_NE(drawn.find(" left\nstep 2: the update is computed, 0:10 so far\r\x1b[Kstep 2: the "
                       "update is computed, 0:11 so far\r\x1b[K"),
            std::string::npos)
      << drawn;
}

TEST(ProgressTest, AWarmStartShowsHowFarItIs) {
  const auto body = [](Progress& p) {
    p.Phase("warm start");
    p.WarmStart(7, 200, 1.5);
  };
  EXPECT_NE(Written(2, true, body).find("warm start 7/200  loss 1.5000"), std::string::npos);
  EXPECT_EQ(Written(2, false, body), "-- warm start\n") << "in a log each ten seconds";
}

TEST(ProgressTest, EstimatesFromTheStepItself) {
  // 2 s a step, 30 left
  const std::string text = Written(31, false, [](Progress& p) { p.Step(0, kMetrics); });
  EXPECT_NE(text.find("1:00 left"), std::string::npos) << text;
}

TEST(ProgressTest, TheKlIsThatFromTheReferenceOrNone) {
  const auto shown = [](const std::map<std::string, double>& metrics) {
    return Written(2, false, [&](Progress& p) { p.Step(0, metrics); });
  };
  const std::string none = shown({{"policy/approx_kl", 0.125}, {"reward/mean", 1}});
  EXPECT_NE(none.find("reward 1.000  length -  "), std::string::npos) << none;
  const std::string unscored = shown({{"reward/unscored", 8}});
  EXPECT_NE(unscored.find("reward -  length -  "), std::string::npos) << unscored;
  // Less than nothing by rounding is nothing.
  const std::string rounded = shown({{"objective/kl", -0.00001}, {"reward/mean", -0.0001}});
  EXPECT_NE(rounded.find("reward 0.000  kl 0.0000  "), std::string::npos) << rounded;
  const std::string below = shown({{"objective/kl", -0.05}, {"reward/mean", -0.5}});
  EXPECT_NE(below.find("reward -0.500  kl -0.0500  "), std::string::npos) << below;
}

// Answers that are cut get no end and often no score: who sees it raises rollout.max_new_tokens.
TEST(ProgressTest, TheShareOfAnswersThatWereCutIsSaidWhereThereIsOne) {
  const auto shown = [](double share) {
    auto metrics = kMetrics;
    metrics["response_length/clipped"] = share;
    return Written(2, false, [&](Progress& p) { p.Step(0, metrics); });
  };
  for (const auto& [share, said] : {std::pair(0.25, "length 12.5 (25 % cut)  4321 tok/s"),
                                    {0.001, "length 12.5 (1 % cut)  "},
                                    {0.999, "length 12.5 (99 % cut)  "},
                                    {1.0, "length 12.5 (100 % cut)  "},
                                    {0.0, "length 12.5  4321 tok/s"}})
    EXPECT_NE(shown(share).find(said), std::string::npos) << share << ": " << shown(share);
}

TEST(ProgressTest, WhatIsSavedIsSaidAndCountedInWhatIsLeft) {
  const std::string file = Written(31, false, [](Progress& p) {
    p.time_left().Sizes(3'000'000'000, 1'000'000'000);
    p.time_left().Checkpoint(3'000'000'000, 15, 15);
    p.time_left().Evaluation(7);
    p.Saving("saving step 1 (3.0 GB) ...", 3'000'000'000);
    p.Saving("saving step 2 (3 MB) ...", 3'000'000);
    p.Step(0, kMetrics);
  });
  EXPECT_NE(file.find("saving step 1 (3.0 GB) ...\n"), std::string::npos) << file;
  EXPECT_EQ(file.find("saving step 2"), std::string::npos) << "soon done, and a line of a log";
  EXPECT_NE(file.find("1:12 left"), std::string::npos)
      << "30 steps of 2 s, 5 s for the last checkpoint, 7 s for the evaluation: " << file;
  const std::string terminal = Written(2, true, [](Progress& p) {
    p.Saving("saving step 1 (3 MB) ...", 3'000'000);
    p.Step(0, kMetrics);
  });
  EXPECT_EQ(terminal.find("saving step 1 (3 MB) ...\r\x1b[K"), 0u) << "gives way to the next";
}

TEST(ProgressTest, ATerminalLineIsRedrawnAndLeftOnAFreshLine) {
  const std::string text = Written(2, true, [](Progress& p) {
    p.Step(0, {});
    p.Line("checkpoint saved");
    p.Step(1, {});
  });
  EXPECT_NE(text.find("\r\x1b[Kcheckpoint saved\n"), std::string::npos)
      << "the bar gives way to a line";
  EXPECT_NE(text.find("step 2/2"), std::string::npos);
  EXPECT_EQ(text.back(), '\n');
}

}  // namespace
}  // namespace plumb::run
