#include "common/base/nearest.h"

#include <gtest/gtest.h>

#include <vector>

namespace plumb {
namespace {

TEST(NearestTest, CountsEdits) {
  EXPECT_EQ(EditDistance("", ""), 0u);
  EXPECT_EQ(EditDistance("", "abc"), 3u);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3u);
  EXPECT_EQ(EditDistance("steps", "stepps"), 1u);
  EXPECT_EQ(EditDistance("stesp", "steps"), 1u);  // a turned pair is one edit
  EXPECT_EQ(EditDistance("toy_gpro", "toy_grpo"), 1u);
  EXPECT_EQ(EditDistance("ab", "ba"), 1u);
  EXPECT_EQ(EditDistance("abcd", "badc"), 2u);
}

TEST(NearestTest, TheFirstOfTheNearest) {
  const std::vector<std::string> names = {"train", "eval", "trail", "store"};
  EXPECT_EQ(NearestName("trian", names), "train");
  EXPECT_EQ(NearestName("trai", names), "train");
  EXPECT_EQ(NearestName("zzzzzzzz", names), "train");
  EXPECT_EQ(NearestName("zzzzzzzz", names, 3), "");
  EXPECT_EQ(NearestName("train", {}), "");
}

TEST(NearestTest, SuggestsNothingFarFetched) {
  const std::vector<std::string> names = {"--max-new-tokens", "--samples", "answer"};
  EXPECT_EQ(DidYouMean("--max-tokens", names), ", did you mean '--max-new-tokens'?");
  EXPECT_EQ(DidYouMean("anwser", names), ", did you mean 'answer'?");
  EXPECT_EQ(DidYouMean("frobnicate", names), "");
}

}  // namespace
}  // namespace plumb
