// run/session/lessons/pair_labels.h: a scorer says which answer of a pair is the better one.
#include "run/session/lessons/pair_labels.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::run {
namespace {

// Worth its last token; a token of 99 has no score.
class LastToken : public Scorer {
 public:
  void Score(TrajectoryGroup& group) override {
    for (Trajectory& t : group.trajectories) {
      EXPECT_EQ(t.prompt_length(), 2);
      t.reward = t.tokens.back();
      t.scored = t.tokens.back() != 99;
      if (!t.scored) t.unscored_reason = "99 says nothing";
    }
  }
};

PreferencePair Pair(uint64_t row, int32_t chosen, int32_t rejected) {
  PreferencePair pair{.dataset = "pairs", .row = row, .chosen = {}, .rejected = {}};
  pair.chosen = {.tokens = {1, 2, chosen}, .loss_mask = {0, 0, 1}};
  pair.rejected = {.tokens = {1, 2, rejected}, .loss_mask = {0, 0, 1}};
  return pair;
}

TEST(PairLabels, TheHigherScoreIsChosenAndEqualOnesAreLeftOut) {
  LastToken scorer;
  std::vector<PreferencePair> pairs = {Pair(0, 7, 3), Pair(1, 4, 4), Pair(2, 5, 9)};
  const LabelCounts counts = LabelPairs(scorer, pairs);
  EXPECT_EQ(counts.kept, 1);
  EXPECT_EQ(counts.turned, 1);
  EXPECT_EQ(counts.equal, 1);
  EXPECT_EQ(counts.margin, 4);
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].chosen.tokens.back(), 7);
  EXPECT_EQ(pairs[1].row, 2u);
  EXPECT_EQ(pairs[1].chosen.tokens.back(), 9);
  EXPECT_EQ(pairs[1].rejected.tokens.back(), 5);
  EXPECT_EQ(pairs[1].margin, 4);
  EXPECT_NE(counts.Describe().find("1 the other way round"), std::string::npos);
}

TEST(PairLabels, AnAnswerWithoutAScoreIsAnErrorWithItsRow) {
  LastToken scorer;
  std::vector<PreferencePair> pairs = {Pair(5, 99, 3)};
  try {
    LabelPairs(scorer, pairs);
    FAIL() << "nothing says which is better";
  } catch (const Error& e) {
    EXPECT_EQ(e.where(), "row 5");
    EXPECT_NE(e.message().find("99 says nothing"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace plumb::run
