// reward/rules/coherence.h: low, middle and high of the formula, and what it is meant to tell
// apart.
#include "reward/rules/coherence.h"

#include "tests/reward/rule_testing.h"

namespace plumb::reward {
namespace {

double Score(std::string_view answer, std::string_view prompt, CoherenceOptions options = {}) {
  return CoherenceScore(answer, prompt, options);
}

TEST(Coherence, LowMiddleHigh) {
  const std::string prompt = "Why do plants need water?";
  EXPECT_EQ(Score("", prompt), 0);
  EXPECT_EQ(Score("The and of it.", prompt), 0) << "no content word";
  EXPECT_EQ(Score("Engines burn petrol.", prompt), 0);
  // Sentence 1 has plants, water of its three words: a whole link. Sentence 2 none. All 3-grams
  // differ.
  EXPECT_DOUBLE_EQ(Score("Plants drink water. Engines burn petrol.", prompt), 0.5);
  EXPECT_DOUBLE_EQ(Score("Plants drink water. The water carries salts.", prompt), 1);
  // One shared word of ten is half of full = 0.2.
  EXPECT_DOUBLE_EQ(
      Score("Water alpha1 alpha2 alpha3 alpha4 alpha5 alpha6 alpha7 alpha8 alpha9.", prompt), 0.5);
}

TEST(Coherence, RepeatingOneselfCosts) {
  // Ten times the same three words: 3 different 3-grams of 28.
  std::string loop;
  for (int i = 0; i < 10; ++i) loop += "plants need water. ";
  EXPECT_DOUBLE_EQ(Score(loop, "Why do plants need water?"), 3.0 / 28);
}

TEST(Coherence, StemsAndScripts) {
  EXPECT_DOUBLE_EQ(Score("Watering helped.", "water"), 1) << "watering and water are one word";
  EXPECT_DOUBLE_EQ(Score("\xE6\xB0\xB4\xE5\xBE\x88\xE5\xA5\xBD\xE3\x80\x82", "\xE6\xB0\xB4"), 1)
      << "a Han character is a word";
  EXPECT_DOUBLE_EQ(Score("So 42 it is.", "42?"), 1);
}

TEST(Coherence, Options) {
  EXPECT_EQ(RuleValue("coherence", {}, "Engines burn petrol."), 0);
  EXPECT_EQ(RuleValue("coherence", {"prompt=0"}, "Engines burn petrol."), 1)
      << "one sentence alone links to nothing";
  EXPECT_EQ(RuleValue("coherence", {"prompt=0"}, "Engines burn petrol. Roses smell nice."), 0);
  EXPECT_EQ(RuleValue("coherence", {"prompt=0", "n=2"},
                      "Diesel engines burn petrol. Diesel engines smell nice."),
            1);
  EXPECT_DOUBLE_EQ(
      RuleValue("coherence", {"prompt=0", "full=1"}, "Engines burn petrol. Engines smell nice."),
      1.0 / 3);
  Refusal(TestPart("coherence", "", {"n=4"}));
  Refusal(TestPart("coherence", "", {"full=0"}));
}

TEST(Coherence, AChatIsComparedWithTheLastQuestion) {
  TrajectoryGroup group = TestGroup({"Plants drink."});
  group.lease.prompt.text.clear();
  group.lease.prompt.messages = {
      {"system", "Engines burn."}, {"user", "Plants?"}, {"assistant", "Yes?"}};
  EXPECT_EQ(RuleValues(TestPart("coherence"), group).at(0), 1);
  group.lease.prompt.messages[1].content = "Engines?";
  EXPECT_EQ(RuleValues(TestPart("coherence"), group).at(0), 0);
}

}  // namespace
}  // namespace plumb::reward
