#include "actor/pages/recompute_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "actor/pages/kv_pages.h"

namespace plumb::actor {
namespace {

policy_model::ModelShape Shape() {
  policy_model::ModelShape s;
  s.layers = 1, s.hidden = 8, s.heads = 1, s.kv_heads = 1, s.head_dim = 8, s.ffn = 8, s.vocab = 50;
  s.max_positions = 200;
  return s;
}

constexpr int32_t kSlots = 4, kPage = 4;

// A table of one's own: rows 0 .. 3 of slots, 4 .. 7 of prompts.
struct Bench {
  explicit Bench(bool states = false)
      : pages(Shape(), Device::kCpu, DType::kFloat32, kPage, 60),
        table(0, {.max_batch = kSlots, .prefill_tokens = 8, .max_positions = 40}, &pages),
        queue(&table, kSlots, states) {}

  // The pages of `row`, from its first on.
  void Lay(int32_t row, const std::vector<int32_t>& numbers) {
    std::copy(numbers.begin(), numbers.end(), table.entries().begin() + row * table.stride());
  }
  std::vector<RecomputeQueue::Chunk> Step(int32_t budget) {
    from.clear(), to.clear(), moves.clear(), chunks.clear();
    queue.Settle({from, to, moves}, &decode);
    queue.Plan(&budget, &chunks);
    queue.Commit();
    return chunks;
  }

  KvPages pages;
  PageTable table;
  RecomputeQueue queue;
  std::vector<int32_t> from, to, decode;
  std::vector<RecomputeQueue::Move> moves;
  std::vector<RecomputeQueue::Chunk> chunks;
};

Group Prompt(int32_t tokens) {
  Group g;
  g.request.tokens.assign(static_cast<size_t>(tokens), 1);
  g.request.num_samples = 2;
  g.full_pages = (tokens - 1) / kPage;
  g.prefilled = tokens - 1;
  return g;
}

void ExpectChunk(const RecomputeQueue::Chunk& c, int32_t row, int32_t slot, int32_t begin,
                 int32_t end) {
  EXPECT_EQ(c.row, row);
  EXPECT_EQ(c.slot, slot);
  EXPECT_EQ(c.begin, begin);
  EXPECT_EQ(c.end, end);
}

TEST(RecomputeQueue, APromptThenWhatItHandsOnThenTheAnswers) {
  Bench b(/*states=*/true);
  Group g = Prompt(11);  // ten tokens: two whole pages, and two of a third
  b.Lay(1, {10, 11, 12, 13});
  b.Lay(2, {10, 11, 22, 23});
  b.queue.AddPrompt(&g, 1, 10);
  b.queue.AddSample(&g, 1, 13, /*draws=*/true);
  b.queue.AddSample(&g, 2, 12, /*draws=*/false);
  EXPECT_FALSE(g.prefill_done());
  EXPECT_EQ(b.queue.drawing(), 1);
  std::vector<RecomputeQueue::Chunk> step = b.Step(8);
  ASSERT_EQ(step.size(), 1u);
  ExpectChunk(step[0], 1, -1, 0, 8);
  step = b.Step(8);
  ASSERT_EQ(step.size(), 1u) << "what goes to the others is not there before the step behind it";
  ExpectChunk(step[0], 1, -1, 8, 10);
  EXPECT_TRUE(b.from.empty());
  step = b.Step(4);
  EXPECT_EQ(b.from, std::vector<int32_t>{12});
  EXPECT_EQ(b.to, std::vector<int32_t>{22});
  ASSERT_EQ(b.moves.size(), 1u);
  EXPECT_EQ(b.moves[0].from, 1);
  EXPECT_EQ(b.moves[0].to, 2);
  ASSERT_EQ(step.size(), 2u);
  ExpectChunk(step[0], 1, 1, 10, 13);
  ExpectChunk(step[1], 2, 2, 10, 11);
  EXPECT_TRUE(g.prefill_done());
  EXPECT_TRUE(b.queue.Holds(1));
  step = b.Step(4);
  EXPECT_EQ(b.decode, std::vector<int32_t>{1});
  EXPECT_FALSE(b.queue.Holds(1));
  ASSERT_EQ(step.size(), 1u);
  ExpectChunk(step[0], 2, 2, 11, 12);
  b.queue.SetDraws(2, true);  // it was told what it waited for
  EXPECT_TRUE(b.Step(4).empty());
  EXPECT_EQ(b.decode, (std::vector<int32_t>{1, 2}));
  EXPECT_TRUE(b.queue.empty());
}

TEST(RecomputeQueue, WholePagesOfSeveralPromptsAreComputedForTheFirst) {
  Bench b;
  Group one = Prompt(11), two = Prompt(15), three = Prompt(11);
  b.Lay(0, {10, 11, 12});
  b.Lay(1, {10, 11, 22, 23});
  b.Lay(4, {10, 31, 32});  // still to start
  b.queue.AddPrompt(&one, 0, 10);
  b.queue.AddPrompt(&two, 1, 14);
  b.queue.AddPrompt(&three, 4, 7);
  std::vector<RecomputeQueue::Chunk> step = b.Step(12);
  ASSERT_EQ(step.size(), 2u);
  ExpectChunk(step[0], 0, -1, 0, 10);
  ExpectChunk(step[1], 1, -1, 8, 10);
  step = b.Step(12);
  ASSERT_EQ(step.size(), 2u);
  ExpectChunk(step[0], 1, -1, 10, 14);
  ExpectChunk(step[1], 4, -1, 4, 7);
  EXPECT_FALSE(one.recomputes);
  b.Step(12);
  EXPECT_TRUE(b.queue.empty());
  EXPECT_FALSE(three.recomputes);
}

TEST(RecomputeQueue, WhatNobodyFinishedIsLeftToTheNext) {
  Bench b;
  Group one = Prompt(11), two = Prompt(15);
  b.Lay(0, {10, 11, 12});
  b.Lay(1, {10, 11, 22, 23});
  b.queue.AddPrompt(&one, 0, 10);
  b.queue.AddPrompt(&two, 1, 14);
  b.queue.AddSample(&one, 0, 12, true);
  b.queue.AddSample(&two, 1, 16, true);
  std::vector<RecomputeQueue::Chunk> step = b.Step(6);
  ASSERT_EQ(step.size(), 1u);
  b.queue.Drop(0);  // with the page that is half done
  EXPECT_FALSE(one.recomputes);
  step = b.Step(20);
  ASSERT_EQ(step.size(), 1u);
  ExpectChunk(step[0], 1, -1, 4, 14);
}

TEST(RecomputeQueue, AnotherSampleOfTheGroupTakesThePromptOver) {
  for (const bool states : {false, true}) {
    Bench b(states);
    Group g = Prompt(11);
    b.Lay(0, {10, 11, 12});
    b.Lay(3, {10, 11, 42});
    b.queue.AddPrompt(&g, 0, 10);
    b.queue.AddSample(&g, 0, 12, true);
    b.queue.AddSample(&g, 3, 12, true);
    b.Step(9);
    b.queue.Drop(0);
    const std::vector<RecomputeQueue::Chunk> step = b.Step(20);
    ASSERT_EQ(step.size(), 1u);
    ExpectChunk(step[0], 3, -1, states ? 0 : 8, 10);
    b.Step(20);
    EXPECT_TRUE(b.from.empty()) << "nobody else is there";
    b.queue.Drop(3);
    EXPECT_TRUE(b.queue.empty());
  }
}

TEST(RecomputeQueue, WhatIsTakenOutNoLongerWaits) {
  Bench b;
  Group g = Prompt(9), h = Prompt(9);
  b.Lay(4, {1, 2});
  b.queue.AddPrompt(&g, 4, 8);
  b.queue.DropPrompt(&g);
  EXPECT_TRUE(b.queue.empty());
  EXPECT_TRUE(g.prefill_done());
  b.queue.AddPrompt(&h, 4, 8);
  b.queue.AddSample(&h, 2, 9, true);
  b.queue.Clear();
  EXPECT_TRUE(b.queue.empty());
  EXPECT_TRUE(h.prefill_done());
}

}  // namespace
}  // namespace plumb::actor
