// How long a prompt may be so that its answer fits (run/session/prompt_room.h).
#include "run/session/prompt_room.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::run {
namespace {

std::vector<Prompt> Prompts() {
  std::vector<Prompt> prompts(3);
  for (size_t i = 0; i < 3; ++i) {
    prompts[i].row = i;
    for (int32_t k = 0; k < 3 + static_cast<int32_t>(i); ++k) prompts[i].tokens.push_back(k);
  }
  return prompts;
}

PromptRoom Room(int64_t positions, int64_t answer, int64_t prompt = 1024) {
  configs::Config config;
  config.rollout.max_new_tokens = answer;
  config.data.max_prompt_tokens = prompt;
  policy_model::ModelShape shape;
  shape.max_positions = static_cast<int32_t>(positions);
  return RoomForPrompts(config, shape);
}

TEST(PromptRoomTest, IsWhatTheRecipeAllowsAndTheModelLeaves) {
  EXPECT_EQ(Room(64, 16, 10).tokens, 10);
  EXPECT_EQ(Room(64, 16, 10).bound, "data.max_prompt_tokens is 10");
  EXPECT_EQ(Room(64, 60).tokens, 4);
  EXPECT_EQ(Room(64, 60).bound,
            "the model's 64 positions leave 4 for a prompt beside rollout.max_new_tokens = 60");
  EXPECT_EQ(Room(64, 63).tokens, 1);
  for (const int64_t answer : {64, 65, 1 << 20}) {
    try {
      Room(64, answer);
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      const std::string said = e.what();
      for (const std::string& piece :
           {std::string("64 positions"), "max_new_tokens = " + std::to_string(answer),
            std::string("lower")}) {
        EXPECT_NE(said.find(piece), std::string::npos) << said;
      }
    }
  }
}

TEST(PromptRoomTest, WhatIsLongerFollowsThePolicyAndIsCounted) {
  const PromptRoom room = Room(64, 60);
  std::vector<Prompt> prompts = Prompts();
  FitCounts n = FitPrompts(room, configs::OverlongPolicy::kDrop, "sums", prompts);
  EXPECT_EQ(n.left_out, 1);
  EXPECT_EQ(n.cut, 0);
  ASSERT_EQ(prompts.size(), 2u);
  EXPECT_EQ(prompts[1].row, 1u);
  for (const auto& [policy, first] : {std::pair(configs::OverlongPolicy::kLeft, 1),
                                      std::pair(configs::OverlongPolicy::kRight, 0)}) {
    prompts = Prompts();
    n = FitPrompts(room, policy, "sums", prompts);
    EXPECT_EQ(n.left_out, 0);
    EXPECT_EQ(n.cut, 1);
    EXPECT_EQ(prompts.at(2).tokens, (std::vector<int32_t>{first, first + 1, first + 2, first + 3}))
        << NameOf(policy);
  }
  prompts = Prompts();
  EXPECT_THROW(FitPrompts(room, configs::OverlongPolicy::kError, "sums", prompts), Error);
}

}  // namespace
}  // namespace plumb::run
