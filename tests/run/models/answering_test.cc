// Many prompts through the engine: the answers that each alone would get.
#include "run/models/answering.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "tests/run/models/toy_model.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

std::vector<Prompt> Prompts(const ModelFolder& model, size_t count) {
  std::vector<Prompt> prompts(count);
  for (size_t i = 0; i < count; ++i) {
    prompts[i].row = i;
    prompts[i].text = std::to_string(i) + "+" + std::to_string(i * 7 % 13) + "=";
    prompts[i].tokens = model.EncodePrompt(prompts[i], false);
  }
  return prompts;
}

const auto kNever = [] { return false; };

TEST(Answering, EveryPromptGetsTheAnswersItWouldGetAlone) {
  const plumb::testing::TempFolder temp;
  testing::WriteToyModel(temp / "model");
  const ModelFolder model = LoadModel(temp / "model", {.threads = 1});
  std::vector<Prompt> prompts = Prompts(model, 600);  // more than are in flight
  prompts[7].tokens.assign(100, 7);                   // no room in 64 positions
  const AnsweringOptions options{.samples = 2, .max_new_tokens = 6};
  std::map<size_t, actor::GenerateResult> all;
  Answering answering(model, options);
  ASSERT_TRUE(answering.Run(
      prompts, [&](size_t i, actor::GenerateResult& r) { all.emplace(i, std::move(r)); }, kNever));
  ASSERT_EQ(all.size(), prompts.size());
  for (const auto& s : all.at(7).samples) EXPECT_EQ(s.finish, FinishReason::kAborted) << s.reason;
  for (const size_t i : {0u, 300u, 599u}) {
    Answering one(model, options);
    one.Run(
        std::span(prompts).subspan(i, 1),
        [&](size_t, actor::GenerateResult& r) {
          for (size_t s = 0; s < 2; ++s)
            EXPECT_EQ(r.samples[s].tokens, all.at(i).samples[s].tokens);
        },
        kNever);
  }
}

// Prompts whose room for an answer differs end in another order than they are asked in.
TEST(Answering, AnswersComeInTheOrderOfThePromptsAndFewAreHeld) {
  const plumb::testing::TempFolder temp;
  testing::WriteToyModel(temp / "model", {.end_token = false});
  const ModelFolder model = LoadModel(temp / "model", {.threads = 1});
  std::vector<Prompt> prompts = Prompts(model, 40);
  const auto full = static_cast<size_t>(model.shape.max_positions) - 1;
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (i % 20 != 0) prompts[i].tokens.resize(full, prompts[i].tokens.back());  // ends at once
  }
  Answering answering(model,
                      {.samples = 4, .max_new_tokens = 20, .max_batch = 8, .held_tokens = 1});
  std::vector<size_t> order;
  int64_t most_held = 0;
  const auto told = [&] { return static_cast<int64_t>(order.size()); };
  ASSERT_TRUE(answering.Run(
      prompts, [&](size_t i, actor::GenerateResult&) { order.push_back(i); },
      [&] {
        most_held = std::max(most_held, answering.ended() - told());
        return false;
      }));
  std::vector<size_t> wanted(prompts.size());
  std::iota(wanted.begin(), wanted.end(), 0u);
  EXPECT_EQ(order, wanted);
  EXPECT_GT(most_held, 0) << "nothing ended out of order: this shows nothing";
  EXPECT_LE(most_held, 5) << "of six prompts that may be begun one is waited for";
  EXPECT_EQ(answering.ended(), told());
}

// The first prompts end long before most begin, and the share of the work is known before any has.
TEST(Answering, TheFirstAnswersOfAFileComeEarly) {
  const plumb::testing::TempFolder temp;
  testing::WriteToyModel(temp / "model", {.end_token = false});
  const ModelFolder model = LoadModel(temp / "model", {.threads = 1});
  const std::vector<Prompt> prompts = Prompts(model, 160);
  Answering answering(model, {.max_new_tokens = 20, .first_batch = 32});
  double share = 0, share_before_any = 0;
  uint64_t drawn_at_first = 0;
  ASSERT_TRUE(answering.Run(
      prompts,
      [&](size_t i, actor::GenerateResult&) {
        if (i == 0) drawn_at_first = answering.counters().generated_tokens;
      },
      [&] {
        EXPECT_GE(answering.share(), share) << "all answers are as long as they may be";
        share = answering.share();
        if (answering.ended() == 0) share_before_any = share;
        return false;
      }));
  EXPECT_LE(drawn_at_first, 160u * 20 / 4);
  EXPECT_NEAR(share_before_any, 0.2, 0.02) << "32 of 160 are about to end";
  EXPECT_EQ(answering.share(), 1);
  EXPECT_LE(answering.counters().decode_steps, 50u) << "the others were drawn together";
}

TEST(Answering, ShowsWhatIsDrawnAndStopsWhenAsked) {
  const plumb::testing::TempFolder temp;
  testing::WriteToyModel(temp / "model");
  const ModelFolder model = LoadModel(temp / "model", {.threads = 1});
  const std::vector<Prompt> prompts = Prompts(model, 4);
  Answering answering(model, {.max_new_tokens = 8});
  std::map<uint64_t, std::vector<int32_t>> drawn;
  std::map<size_t, std::vector<int32_t>> told;
  answering.Run(
      prompts, [&](size_t i, actor::GenerateResult& r) { told[i] = r.samples[0].tokens; }, kNever,
      [&](const actor::DrawnToken& token) { drawn[token.id].push_back(token.token); });
  for (size_t i = 0; i < prompts.size(); ++i) EXPECT_EQ(drawn[i], told[i]);
  int asked = 0;
  size_t finished = 0;
  EXPECT_FALSE(answering.Run(
      prompts, [&](size_t, actor::GenerateResult&) { ++finished; }, [&] { return ++asked > 2; }));
  EXPECT_LT(finished, prompts.size());
}

TEST(Answering, AnAnswerAsRewardsSeeIt) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  Prompt prompt;
  prompt.tokens = tokenizer->Encode("<bos>1+1=");
  const actor::GeneratedSample sample{
      .sample = 3, .tokens = tokenizer->Encode("2<eos>"), .finish = FinishReason::kStop};
  const Trajectory t = AsTrajectory(prompt, sample, *tokenizer);
  EXPECT_EQ(t.completion, "2<eos>");
  EXPECT_EQ(t.completion_length(), 2);
  EXPECT_EQ(t.prompt_length(), 5);
  EXPECT_STREQ(FinishName(t.finish), "stop");
  EXPECT_STREQ(FinishName(FinishReason::kLength), "length");
  EXPECT_STREQ(FinishName(FinishReason::kAborted), "aborted");
}

}  // namespace
}  // namespace plumb::run
