#include "learner/loop/run_state.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/base/error.h"

namespace plumb::learner {
namespace {

TEST(RunStateTest, ComesBackAsItWas) {
  RunState state{
      .store = "12:7",
      .before = EvalResult{.version = 0,
                           .accuracy = 0.25,
                           .accuracy_se = 0.02,
                           .reward = 0.1,
                           .reward_se = 0.01,
                           .reward_chosen = 0.5,
                           .reward_rejected = -0.25,
                           .answers = 8,
                           .unscored = 1,
                           .loss = 0.7,
                           .seconds = 2.5},
      .sft =
          SftResult{
              .steps = 21, .tokens = 900, .heldout_first = 2.5, .heldout_last = 1.5, .flat = true},
      .sft_ended = true,
      .rewards = {.equal_steps = 3, .scoreless_steps = 1, .groups = 40, .equal_groups = 12}};
  state.sft->lowest = 1.25;
  state.sft->without_new_low = 2;
  const RunState back = ReadRunState(WriteRunState(state), "here");
  EXPECT_EQ(back.store, "12:7");
  EXPECT_EQ(back.before->accuracy, 0.25);
  EXPECT_EQ(back.before->reward_se, 0.01);
  EXPECT_EQ(back.before->accuracy_se, 0.02);
  EXPECT_EQ(back.before->reward_chosen, 0.5);
  EXPECT_EQ(back.before->reward_rejected, -0.25);
  EXPECT_EQ(back.before->unscored, 1);
  EXPECT_EQ(*back.before->loss, 0.7);
  EXPECT_EQ(back.sft->steps, 21);
  EXPECT_EQ(back.sft->heldout_last, 1.5);
  EXPECT_EQ(back.sft->lowest, 1.25);
  EXPECT_EQ(back.sft->without_new_low, 2);
  EXPECT_TRUE(back.sft->flat && back.sft_ended);
  EXPECT_EQ(back.rewards, state.rewards);
  EXPECT_EQ(back.before->seconds, 2.5);
  const RunState none = ReadRunState(WriteRunState({.sft = SftResult{}}), "here");
  EXPECT_TRUE(std::isinf(none.sft->lowest)) << "nothing was measured yet";
  EXPECT_FALSE(none.sft_ended || none.before.has_value());
}

TEST(RunStateTest, APerplexityComesBackEvenWhereJsonHasNoNumberForIt) {
  for (const double loss : {1.5, 800.0}) {
    const RunState state{.before =
                             EvalResult{.answers = 3, .loss = loss, .perplexity = std::exp(loss)}};
    const RunState back = ReadRunState(WriteRunState(state), "here");
    EXPECT_EQ(*back.before->perplexity, std::exp(loss));
  }
  EXPECT_FALSE(ReadRunState(WriteRunState({.before = EvalResult{.loss = 0.5}}), "here")
                   .before->perplexity.has_value());
}

TEST(RunStateTest, OlderOnesAreRead) {
  const RunState empty = ReadRunState("{}", "here");
  EXPECT_TRUE(empty.store.empty() && !empty.before && !empty.sft);
  const RunState online = ReadRunState(
      "{\"before\":{\"version\":0,\"accuracy\":0.5,\"reward\":1.0,\"answers\":4,\"unscored\":0},"
      "\"sft\":{\"steps\":5,\"tokens\":9,\"heldout_first\":1.5,\"heldout_last\":1.0,\"flat\":false}"
      "}",
      "here");
  EXPECT_EQ(online.before->answers, 4);
  EXPECT_EQ(online.before->seconds, 0) << "not known";
  EXPECT_EQ(online.rewards, RewardTally());
  EXPECT_EQ(online.sft->steps, 5);
  EXPECT_FALSE(online.sft_ended);
  const RunState offline = ReadRunState(
      "{\"before\":{\"loss\":0.75,\"accuracy\":0.5,\"margin\":0.25,\"examples\":6},\"store\":"
      "\"x\"}",
      "here");
  EXPECT_EQ(*offline.before->loss, 0.75);
  EXPECT_EQ(offline.before->reward, 0.25);
  EXPECT_EQ(offline.before->answers, 6);
}

TEST(RunStateTest, AnythingElseIsDamageWithItsPlace) {
  for (const char* text :
       {"", "{", "[]", "7", "{\"store\":7}", "{\"before\":{}}", "{\"before\":{\"loss\":0.5}}",
        "{\"before\":7}", "{\"sft\":{\"steps\":\"many\"}}", "{\"sft\":[]}",
        "{\"equal_reward_steps\":\"x\"}"}) {
    try {
      ReadRunState(text, "checkpoints/step-00000007");
      ADD_FAILURE() << text << " was read";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kCorruption) << text;
      EXPECT_EQ(e.where(), "checkpoints/step-00000007");
    }
  }
}

}  // namespace
}  // namespace plumb::learner
