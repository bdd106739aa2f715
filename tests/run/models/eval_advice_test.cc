// run/models/eval_advice.h: a run is told of what its recipe can be measured by, and of nothing
// else.
#include "run/models/eval_advice.h"

#include <gtest/gtest.h>

#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

class EvalAdviceTest : public ::testing::Test {
 protected:
  // The folder of a run of this recipe.
  std::string Run(const std::string& recipe) {
    RealFileSystem().WriteFileAtomic(temp_ / "config.toml", recipe);
    return temp_.path();
  }
  plumb::testing::TempFolder temp_;
};

constexpr char kParts[] = "[[reward.parts]]\nkind = \"answer\"\n";

TEST_F(EvalAdviceTest, RewardsAreNamedOfARunThatHasThem) {
  const std::string held_out =
      Run("[data]\ntrain = \"arithmetic\"\neval = \"arithmetic\"\n" + std::string(kParts));
  EXPECT_EQ(OtherMeasure(held_out), " (--rewards " + held_out + "/config.toml: by the run's)");
  EXPECT_EQ(
      OwnMeasure(held_out),
      "; --recipe " + held_out + "/config.toml asks the run's own held-out prompts as it does");
  const std::string none = Run("[data]\ntrain = \"arithmetic\"\n" + std::string(kParts));
  EXPECT_EQ(OwnMeasure(none), "") << "it has no held-out prompts";
  EXPECT_NE(OtherMeasure(none), "");
}

TEST_F(EvalAdviceTest, OfOthersWhatMeasuresThem) {
  const std::string sft = Run("[data]\ntrain = \"rows.jsonl\"\n[algorithm]\nname = \"sft\"\n");
  EXPECT_EQ(OtherMeasure(sft), " (FILE --perplexity: how expected its answers are)");
  EXPECT_EQ(OwnMeasure(sft), "; FILE --perplexity: how expected its answers are");
  for (const char* name : {"dpo", "reward_model"}) {
    const std::string pairs = Run(std::string("[data]\ntrain = \"rows.jsonl\"\n[algorithm]\n") +
                                  "name = \"" + name + "\"\n");
    EXPECT_EQ(OtherMeasure(pairs), " (FILE --pairs: how well it tells the better answers)") << name;
  }
}

TEST_F(EvalAdviceTest, OfWhatCannotBeReadNothingIsSaid) {
  for (const std::string& run : {temp_ / "nowhere", Run("no recipe")}) {
    EXPECT_EQ(OtherMeasure(run), "") << run;
    EXPECT_EQ(OwnMeasure(run), "") << run;
  }
}

}  // namespace
}  // namespace plumb::run
