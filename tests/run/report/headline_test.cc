// The head of a run's page. run/report/headline.h
#include "run/report/headline.h"

#include <gtest/gtest.h>

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(HeadlineTest, SaysWhatWasTrainedHowWhenAndByWhat) {
  RunData data;
  data.recipe = ReadRecipeValues(
      "[model]\npath = \"models/SmolLM2<135M/\"\n\n[policy]\nadapter = "
      "\"lora\"\n\n[algorithm]\nname "
      "= \"dpo\"\n\n[preference]\nloss = \"ipo\"\n");
  data.identity = Json::parse(
      R"({"recipe":"configs/mine.toml","version":"0.1.0","commit":"abc-with-changes","began_s":1764439502.5})");
  EXPECT_EQ(HeadlineHtml(data),
            "<p class=\"headline\"><b>dpo (ipo)</b> \u00b7 <b>SmolLM2&lt;135M + LoRA</b> \u00b7 "
            "mine.toml \u00b7 2025-11-29 18:05 UTC \u00b7 Plumb 0.1.0 (abc-with-changes)</p>\n");
}

TEST(HeadlineTest, AnOldRunSaysLess) {
  RunData data;
  data.first_wall_s = 1764439502;
  EXPECT_EQ(HeadlineHtml(data), "<p class=\"headline\">2025-11-29 18:05 UTC \u00b7 Plumb</p>\n");
  data.recipe = ReadRecipeValues("[model]\npath = \"\"\nlayers = 2\nhidden = 128\n");
  EXPECT_TRUE(Has(HeadlineHtml(data), "<b>new model of 2 layers \u00d7 128</b>"));
}

TEST(HeadlineTest, TilesFitTheAlgorithm) {
  RunData pairs;
  pairs.columns["dpo/loss"] = {{0}, {0.7}};
  pairs.summary = Json::parse(
      R"({"steps":3,"eval":{"before":{"accuracy":0.5,"accuracy_se":0.0,"answers":40},"after":{"accuracy":0.95,"accuracy_se":0.034,"answers":40}}})");
  const std::string tiles = TilesHtml(pairs);
  EXPECT_TRUE(Has(tiles, "50.0\u00a0\u00b1\u00a00.0 \u2192 95.0\u00a0\u00b1\u00a03.4\u00a0%"));
  EXPECT_TRUE(Has(tiles, "held-out pairs ranked right (equal rewards count as half)"));
  EXPECT_TRUE(Has(tiles, "+45.0 points"));
  EXPECT_TRUE(Has(tiles, "40 pairs"));

  RunData demonstrations;
  demonstrations.columns["sft/loss"] = {{0}, {2}};
  demonstrations.summary = Json::parse(
      R"({"eval":{"before":{"accuracy":0,"loss":2.0},"after":{"accuracy":0,"loss":1.0}}})");
  const std::string loss = TilesHtml(demonstrations);
  EXPECT_TRUE(Has(loss, "2.000 \u2192 1.000"));
  EXPECT_TRUE(Has(loss, "perplexity 7.389 \u2192 2.718"));
  EXPECT_FALSE(Has(loss, "accuracy")) << "nothing is right or wrong there";

  RunData rollouts;
  for (int64_t i = 0; i < 20; ++i) {
    rollouts.columns["reward/mean"].step.push_back(i);
    rollouts.columns["reward/mean"].value.push_back(static_cast<double>(i));
  }
  EXPECT_TRUE(Has(TilesHtml(rollouts), "0.5 \u2192 18.5"));
  EXPECT_TRUE(Has(TilesHtml(rollouts), "first and the last 2 steps"));
}

TEST(HeadlineTest, FactsHaveDigests) {
  RunData data;
  data.summary =
      Json::parse(R"({"policy_digest":"d1","sft":{"steps":3,"heldout_first":2,"heldout_last":1}})");
  EXPECT_TRUE(Has(FactsHtml(data), "d1"));
  EXPECT_TRUE(Has(FactsHtml(data), "3 steps, held-out loss 2.0000 to 1.0000"));
}

TEST(HeadlineTest, AllOrNoneRightIsNotFreeOfDoubt) {
  RunData data;
  data.recipe = ReadRecipeValues("[eval]\nsamples = 2\n");
  data.summary = Json::parse(
      R"({"eval":{"before":{"accuracy":0.0,"accuracy_se":0.0,"answers":100},"after":{"accuracy":1.0,"accuracy_se":0.0,"answers":100}}})");
  const std::string tiles = TilesHtml(data);
  EXPECT_TRUE(Has(tiles, "0.0\u00a0(0.0\u20137.1) \u2192 100.0\u00a0(92.9\u2013100.0)\u00a0%"))
      << "of 50 prompts: " << tiles;
  EXPECT_TRUE(Has(tiles, "Wilson's interval"));
}

TEST(HeadlineTest, WhatHadNoScoreHasNoAccuracy) {
  RunData data;
  data.summary = Json::parse(
      R"({"eval":{"before":{"accuracy":null,"accuracy_se":null,"answers":8,"unscored":8},"after":{"accuracy":0.5,"accuracy_se":0.1,"answers":8,"unscored":0}}})");
  const std::string tiles = TilesHtml(data);
  EXPECT_TRUE(Has(tiles, "<b>- \u2192 50.0\u00a0\u00b1\u00a010.0")) << tiles;
  EXPECT_FALSE(Has(tiles, "points")) << "there is nothing to compare with";
  EXPECT_TRUE(Has(tiles, "8 without a score"));
}

}  // namespace
}  // namespace plumb::run
