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
    Progress progress(0, steps, terminal, out);
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

TEST(ProgressTest, EstimatesFromTheStepItself) {
  // 2 s a step, 30 left
  const std::string text = Written(31, false, [](Progress& p) { p.Step(0, kMetrics); });
  EXPECT_NE(text.find("1:00 left"), std::string::npos) << text;
}

TEST(ProgressTest, WithoutAReferenceTheUpdatesKlIsShown) {
  const std::string text = Written(2, false, [](Progress& p) {
    p.Step(0, {{"policy/approx_kl", 0.125}});
  });
  EXPECT_NE(text.find("kl 0.1250"), std::string::npos) << text;
  const std::string unmeasured = Written(2, false, [](Progress& p) {
    p.Step(0, {{"reward/mean", 1}});
  });
  EXPECT_NE(unmeasured.find("kl -  "), std::string::npos) << unmeasured;
  const std::string unscored = Written(2, false, [](Progress& p) {
    p.Step(0, {{"reward/unscored", 8}});
  });
  EXPECT_NE(unscored.find("reward -  kl -  length -  "), std::string::npos) << unscored;
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
