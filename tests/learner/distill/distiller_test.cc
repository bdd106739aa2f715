// learner/distill/distiller.h and teacher_set.h: whom a teacher is for, and what it is unsure of.
#include "learner/distill/distiller.h"

#include <gtest/gtest.h>

#include <set>

#include "common/base/error.h"
#include "tests/learner/distill/teaching_rig.h"

namespace plumb::learner {
namespace {

size_t There(const std::vector<TeacherRows>& said) {
  size_t n = 0;
  for (const TeacherRows& rows : said) n += rows.there();
  return n;
}

TEST(DistillerTest, WhatTheTeacherIsUnsureOfIsLeftOutButForAShare) {
  TeachingRig rig;
  rig.config.distill.teachers = {rig.Folder("t", 32, 8)};
  rig.data = RandomDemonstrations(60, 5);
  rig.views.clear();
  for (const Demonstration& d : rig.data) rig.views.push_back({d.tokens, d.loss_mask});
  const std::vector<std::string> datasets(rig.views.size());
  const auto ask = [&](double confidence, double share, uint64_t step = 0) {
    rig.config.distill.confidence = confidence;
    rig.config.distill.unsure_share = share;
    Distiller distiller(rig.config, rig.weights, nullptr, nullptr);
    auto said = distiller.Ask(rig.views, datasets, 1.0f, step);
    std::map<std::string, double> metrics;
    distiller.AddMetrics(metrics);
    EXPECT_GT(metrics.at("distill/confidence"), 0);
    EXPECT_LT(metrics.at("distill/confidence"), 1);
    if (confidence > 0) {
      EXPECT_NEAR(metrics.at("distill/left_out"),
                  1 - static_cast<double>(There(said)) / static_cast<double>(said.size()), 1e-12);
    }
    return said;
  };
  EXPECT_EQ(There(ask(0, 0)), rig.views.size());
  EXPECT_EQ(There(ask(1, 1)), rig.views.size());
  EXPECT_EQ(There(ask(1, 0)), 1u) << "the surest stays";
  const auto some = ask(1, 0.3);
  EXPECT_GT(There(some), 8u);
  EXPECT_LT(There(some), 30u);
  const auto again = ask(1, 0.3), later = ask(1, 0.3, 1);
  size_t differ = 0;
  for (size_t i = 0; i < some.size(); ++i) {
    EXPECT_EQ(some[i].there(), again[i].there()) << "a restarted run leaves out the same";
    differ += some[i].there() != later[i].there();
  }
  EXPECT_GT(differ, 0u) << "another step another share";
}

TEST(DistillerTest, EachDatasetHasItsTeacher) {
  TeachingRig rig;
  const std::string sums = rig.Folder("sums", 32, 8), words = rig.Folder("words", 48, 9);
  rig.config.distill.teachers = {"sums=" + sums, words};
  TeacherSet both(rig.config, rig.weights, nullptr, nullptr);
  std::vector<std::string> datasets;
  for (size_t i = 0; i < rig.views.size(); ++i) datasets.push_back(i % 2 == 0 ? "sums" : "other");
  const auto said = both.Say(rig.views, datasets, {.picks = 2});
  LocalTeacher of_sums(rig.config, sums, rig.weights, nullptr),
      of_words(rig.config, words, rig.weights, nullptr);
  const auto first = of_sums.Say(rig.views, {.picks = 2}),
             second = of_words.Say(rig.views, {.picks = 2});
  for (size_t i = 0; i < said.size(); ++i) {
    const TeacherRows& expected = i % 2 == 0 ? first[i] : second[i];
    EXPECT_EQ(said[i].ids, expected.ids) << i;
    for (size_t k = 0; k < expected.logprob.size(); ++k)
      EXPECT_NEAR(said[i].logprob[k], expected.logprob[k], 1e-5);
  }
  rig.config.distill.teachers = {"sums=" + sums};
  TeacherSet one(rig.config, rig.weights, nullptr, nullptr);
  try {
    one.Say(rig.views, datasets, {});
    FAIL() << "nobody teaches \"other\"";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("no teacher is for the dataset \"other\""),
              std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace plumb::learner
