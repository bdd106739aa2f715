// Prompts of a store elsewhere: asked for together, kept within bounds. replay/store/prompt_cache.h
#include "replay/store/prompt_cache.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

struct Asked {
  std::vector<std::vector<uint64_t>> questions;
  int failures = 0;
  std::vector<Prompt> operator()(std::span<const PromptRef> refs) {
    if (failures-- > 0) throw Error(ErrorCode::kUnavailable, "the store is away");
    std::vector<Prompt> prompts;
    questions.emplace_back();
    for (const PromptRef& ref : refs) {
      questions.back().push_back(ref.row);
      prompts.push_back({.dataset = ref.dataset, .row = ref.row, .text = std::string(1000, 'x')});
    }
    return prompts;
  }
};

PromptRef Row(uint64_t row) { return {"train", row, 1}; }

TEST(PromptCache, WhatIsWantedComesWithTheFirstQuestionAndIsAskedOnce) {
  Asked asked;
  PromptCache cache([&](auto refs) { return asked(refs); });
  for (uint64_t row = 0; row < 4; ++row) cache.Want(Row(row));
  for (uint64_t row = 0; row < 4; ++row) EXPECT_EQ(cache.Get(Row(3 - row)).row, 3 - row);
  ASSERT_EQ(asked.questions.size(), 1u);
  EXPECT_EQ(asked.questions[0].size(), 4u);
  cache.Want(Row(2));
  EXPECT_EQ(cache.Get(Row(9)).row, 9u);
  EXPECT_EQ(asked.questions[1], (std::vector<uint64_t>{9})) << "2 is at hand";
}

TEST(PromptCache, HoldsNoMoreThanItsBytesAndForgetsWhatWasLongUnused) {
  Asked asked;
  PromptCache cache([&](auto refs) { return asked(refs); }, 3 * 1500);
  for (const uint64_t row : {0, 1, 2, 0, 3}) cache.Get(Row(row));
  asked.questions.clear();
  cache.Get(Row(0));
  cache.Get(Row(3));
  EXPECT_TRUE(asked.questions.empty());
  cache.Get(Row(1));
  EXPECT_EQ(asked.questions.size(), 1u);
  PromptCache tiny([&](auto refs) { return asked(refs); }, 10);
  EXPECT_EQ(tiny.Get(Row(5)).row, 5u);
}

TEST(PromptCache, AFailedQuestionIsAskedAgain) {
  Asked asked;
  asked.failures = 1;
  PromptCache cache([&](auto refs) { return asked(refs); });
  cache.Want(Row(7));
  EXPECT_THROW(cache.Get(Row(1)), Error);
  EXPECT_EQ(cache.Get(Row(1)).row, 1u);
  EXPECT_EQ(asked.questions.at(0), (std::vector<uint64_t>{1, 7}));
}

TEST(PromptCache, ThreadsThatNeedOnePromptAskOnce) {
  std::atomic<int> questions{0};
  PromptCache cache([&](std::span<const PromptRef> refs) {
    ++questions;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return std::vector<Prompt>(refs.size());
  });
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) threads.emplace_back([&] { cache.Get(Row(1)); });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(questions, 1);
}

}  // namespace
}  // namespace plumb::replay
