// run/session/lessons/lesson_plan.h: phases and brackets of demonstrations that say their source.
#include "run/session/lessons/lesson_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/base/error.h"

namespace plumb::run {
namespace {

DemonstrationData Data(const Tokenizer& tokenizer,
                       const std::vector<std::pair<std::string, std::string>>& rows) {
  DemonstrationData data;
  for (const auto& [source, text] : rows) {
    Demonstration d{.tokens = tokenizer.Encode(text), .loss_mask = {}};
    d.loss_mask.assign(d.tokens.size(), 1);
    data.train.push_back(d);
    data.sources.push_back(source);
  }
  return data;
}

TEST(LessonPlan, PhasesHaveTheRowsOfTheirSource) {
  const auto bytes = Tokenizer::BuiltIn("bytes");
  const DemonstrationData data =
      Data(*bytes, {{"text", "a"}, {"code", "b"}, {"text", "c"}, {"", "d"}});
  configs::Config config;
  config.run.steps = 10;
  config.sft.curriculum = {"text=0.25", "code=0.6"};
  const LessonPlan plan = PlanLessons(config, *bytes, data);
  ASSERT_EQ(plan.curriculum.phases().size(), 2u);
  EXPECT_EQ(plan.curriculum.phases()[0].rows, (std::vector<uint32_t>{0, 2}));
  EXPECT_EQ(plan.curriculum.phases()[0].end, 3);
  EXPECT_EQ(plan.curriculum.phases()[1].rows, (std::vector<uint32_t>{1}));
  EXPECT_EQ(plan.curriculum.phases()[1].end, 6);
  ASSERT_EQ(plan.notes.size(), 1u);
  EXPECT_NE(plan.notes[0].find("then all of them 4 steps"), std::string::npos) << plan.notes[0];
  config.sft.curriculum = {"prose=0.5"};
  try {
    PlanLessons(config, *bytes, data);
    FAIL() << "no row is prose";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("there are: code, text"), std::string::npos) << e.what();
  }
}

TEST(LessonPlan, ThePenaltyIsOnBracketsOfCodeThatMatch) {
  const auto bytes = Tokenizer::BuiltIn("bytes");
  configs::Config config;
  config.sft.syntax_penalty = 0.3;
  const LessonPlan plan = PlanLessons(
      config, *bytes, Data(*bytes, {{"text", "(a)"}, {"code", "f([1])"}, {"code", "f([1)]"}}));
  ASSERT_EQ(plan.syntax.brackets.size(), 3u);
  EXPECT_TRUE(plan.syntax.brackets[0].empty());
  EXPECT_EQ(plan.syntax.brackets[1], (std::vector<uint8_t>{0, 1, 1, 0, 1, 1}));
  EXPECT_TRUE(plan.syntax.brackets[2].empty());
  EXPECT_NE(plan.notes[0].find("1 demonstrations of code; those of 1 do not match"),
            std::string::npos)
      << plan.notes[0];
  EXPECT_THROW(PlanLessons(config, *bytes, Data(*bytes, {{"text", "(a)"}})), Error);
}

TEST(LessonPlan, BracketsMatchWhereEachClosesTheLastOpened) {
  for (const char* fine : {"", "x", "()", "f(a[1], {2: 3})", "([{}])()"})
    EXPECT_TRUE(BracketsMatch(fine)) << fine;
  for (const char* broken : {"(", ")", "(]", "([)]", "())", "{()"})
    EXPECT_FALSE(BracketsMatch(broken)) << broken;
}

}  // namespace
}  // namespace plumb::run
