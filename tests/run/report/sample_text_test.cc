// Answers as text for people. run/report/sample_text.h
#include "run/report/sample_text.h"

#include <gtest/gtest.h>

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

Json Answer(const std::string& completion, const Json& reward) {
  return {{"step", 7},
          {"prompt", "What is 1 + 1?"},
          {"completion", completion},
          {"reward", reward},
          {"parts", {{"correct", reward}, {"correct.words", 12}}},
          {"finish", "stop"},
          {"ground_truth", "2"}};
}

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(SampleTextTest, AnswersToOnePromptStandTogetherBestFirst) {
  RunData data;
  EXPECT_EQ(SamplesHtml(data), "");
  Json unscored = Answer("none", nullptr);
  unscored["finish"] = "length";
  unscored["unscored_reason"] = "too slow";
  data.samples.push_back({.step = 7,
                          .answers = {Answer("bad", 0.25), unscored, Answer("good", 1)},
                          .answers_in_all = 8});
  data.samples.push_back(
      {.step = 9, .answers = {Answer(std::string(9000, 'x'), 0)}, .answers_in_all = 1});
  data.sample_groups = 2;
  const std::string html = SamplesHtml(data);
  size_t prompts = 0;
  for (size_t at = 0; (at = html.find("What is 1 + 1?", at)) != std::string::npos; ++at) ++prompts;
  EXPECT_EQ(prompts, 2u) << "once for each group";
  EXPECT_LT(html.find("step <b>9</b>"), html.find("step <b>7</b>")) << "newest first";
  EXPECT_LT(html.find(">good<"), html.find(">bad<"));
  EXPECT_LT(html.find(">bad<"), html.find(">none<"));
  EXPECT_TRUE(Has(html, "cut at the limit; too slow"));
  EXPECT_TRUE(Has(html, "3 of 8 answers, the best and the worst among them"));
  EXPECT_TRUE(Has(html, "3\u00a0000 bytes more in samples.jsonl"));
  EXPECT_TRUE(Has(html, "correct.words 12"));
}

TEST(SampleTextTest, ConversationsStandTurnByTurn) {
  Json answer = Answer("2+2=4<b>", 1);
  answer["turns"] = {{{"by", "policy"}, {"text", "2+2="}, {"reward", 0.5}},
                     {{"by", "environment"}, {"text", "4<b>"}},
                     {{"by", "policy"}, {"text", "x="}, {"failed", true}}};
  RunData data;
  data.samples.push_back({.step = 7, .answers = {answer}, .answers_in_all = 1});
  data.sample_groups = 1;
  const std::string html = SamplesHtml(data);
  EXPECT_TRUE(Has(html, "policy, reward 0.5")) << html;
  EXPECT_TRUE(Has(html, ">environment<")) << html;
  EXPECT_TRUE(Has(html, "4&lt;b&gt;")) << html;
  EXPECT_TRUE(Has(html, "policy, a call that failed")) << html;
  EXPECT_FALSE(Has(html, "2+2=4")) << "not once more as a whole";
}

TEST(SampleTextTest, MarkdownHoldsTextAsItIs) {
  EXPECT_EQ(SamplesMarkdown({}), "");
  const std::vector<Json> answers = {Answer("`````\n<b>x</b>", 0.25), Answer("middle", 0.5),
                                     Answer("good", 1)};
  EXPECT_EQ(SamplesMarkdown(answers),
            "**Prompt**\n\n```text\nWhat is 1 + 1?\n```\n"
            "\n**Expected**\n\n```text\n2\n```\n"
            "\nThe best and the worst of 3 answers.\n"
            "\n**Reward 1**\n\n```text\ncorrect 1\ncorrect.words 12\n```\n\n```text\ngood\n```\n"
            "\n**Reward 0.25**\n\n```text\ncorrect 0.25\ncorrect.words 12\n```\n\n"
            "``````text\n`````\n<b>x</b>\n``````\n");
}

}  // namespace
}  // namespace plumb::run
