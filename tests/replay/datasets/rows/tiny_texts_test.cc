// replay/datasets/rows/tiny_texts.h: the generated world, its held-out questions and its mistakes.
#include "replay/datasets/rows/tiny_texts.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "common/base/error.h"

namespace plumb::replay {
namespace {

std::set<std::string> Asked(const std::vector<Prompt>& prompts) {
  std::set<std::string> texts;
  for (const Prompt& p : prompts) texts.insert(p.text);
  return texts;
}

std::string Said(const std::string& answer) {
  const size_t begin = answer.find("<answer>") + 8;
  return answer.substr(begin, answer.find("</answer>") - begin);
}

TEST(TinyTexts, AskEachFactInSixWaysOfWhichOneIsHeldOut) {
  const auto train = TinyPrompts(3, false, 0), heldout = TinyPrompts(3, true, 0);
  EXPECT_EQ(train.size(), 240u);
  EXPECT_EQ(heldout.size(), 48u);
  std::set<std::string> all = Asked(train);
  all.merge(Asked(heldout));
  EXPECT_EQ(all.size(), 288u) << "no question stands in both";
  EXPECT_NE(Asked(TinyPrompts(4, true, 0)), Asked(heldout)) << "the seed says which";
  EXPECT_EQ(TinyPrompts(3, true, 10).size(), 10u);
  EXPECT_EQ(TinyPrompts(3, false, 0), train);
}

TEST(TinyTexts, HaveThreeSourcesAndCarelessDialogues) {
  const TinyTextOptions options{.seed = 1, .rows = 1500, .heldout = 300};
  const auto rows = TinyDemonstrations(options);
  ASSERT_EQ(rows.size(), 1500u);
  EXPECT_EQ(rows, TinyDemonstrations(options));
  std::map<std::string, std::string> facts;
  for (const bool heldout : {false, true}) {
    for (const Prompt& p : TinyPrompts(1, heldout, 0)) facts[p.text] = p.ground_truth;
  }
  const std::set<std::string> held = Asked(TinyPrompts(1, true, 0));
  std::map<std::string, int> sources;
  int wrong = 0, rude = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string source = nlohmann::json::parse(rows[i].columns_json)["source"];
    ++sources[source];
    EXPECT_EQ(rows[i].prompt.empty(), source != "dialogue");
    if (source != "dialogue") continue;
    EXPECT_EQ(held.contains(rows[i].prompt), i >= 1200) << i;
    wrong += Said(rows[i].completion) != facts.at(rows[i].prompt);
    rude += rows[i].completion.find("silly") != std::string::npos;
  }
  EXPECT_EQ(sources, (std::map<std::string, int>{{"text", 500}, {"code", 500}, {"dialogue", 500}}));
  EXPECT_NEAR(wrong / 500.0, 1.0 / 6, 0.06);
  EXPECT_NEAR(rude / 500.0, 1.0 / 6, 0.06);
}

TEST(TinyTexts, PairsHaveTheRightAndPoliteAnswerFirst) {
  const TinyTextOptions options{.seed = 1, .rows = 400, .heldout = 40};
  const auto pairs = TinyPairs(options, 0);
  ASSERT_EQ(pairs.size(), 400u);
  EXPECT_NE(pairs, TinyPairs(options, 1)) << "another draw has others";
  std::map<std::string, std::string> facts;
  for (const bool heldout : {false, true}) {
    for (const Prompt& p : TinyPrompts(1, heldout, 0)) facts[p.text] = p.ground_truth;
  }
  int wrong = 0;
  for (const PreferenceRecord& pair : pairs) {
    const std::string &better = pair.chosen[0].content, &worse = pair.rejected[0].content;
    EXPECT_EQ(Said(better), facts.at(pair.prompt_text));
    EXPECT_EQ(better.find("silly"), std::string::npos);
    EXPECT_NE(better, worse);
    wrong += Said(worse) != facts.at(pair.prompt_text);
  }
  EXPECT_GT(wrong, 150);
}

TEST(TinyTexts, RefuseMoreHeldOutRowsThanThereAre) {
  EXPECT_THROW(TinyDemonstrations({.seed = 1, .rows = 10, .heldout = 11}), Error);
}

}  // namespace
}  // namespace plumb::replay
