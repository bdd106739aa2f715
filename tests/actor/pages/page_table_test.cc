#include "actor/pages/page_table.h"

#include <gtest/gtest.h>

#include <set>

namespace plumb::actor {
namespace {

policy_model::ModelShape Shape() {
  policy_model::ModelShape s;
  s.layers = 1, s.hidden = 8, s.heads = 1, s.kv_heads = 1, s.head_dim = 8, s.ffn = 8, s.vocab = 50;
  s.max_positions = 200;
  return s;
}

constexpr PageTableSize kSize = {
    .max_batch = 2, .prefill_tokens = 8, .max_positions = 200, .window = 10};

// A prompt of 31 tokens (30 prefilled: 7 full pages of 4 and half of one), answers of 50.
Group TwoSamples() {
  Group g;
  g.request.tokens.assign(31, 1);
  g.request.num_samples = 2;
  g.request.limit = 50;
  g.full_pages = 7;
  g.prompt_row = 2;
  return g;
}

TEST(PageTable, ARingOfPagesServesTheWholeOfASample) {
  KvPages pages(Shape(), Device::kCpu, DType::kFloat32, 4, 40);
  PageTable table(0, kSize, &pages);
  Group g = TwoSamples();
  ASSERT_TRUE(table.CanAdmit(g, {}));
  table.Admit(&g);
  // The window and a chunk: 10 + 8 - 1 tokens, wherever they begin.
  EXPECT_EQ(pages.held_pages(), 5);
  g.prefilled = g.prefill_target();
  table.DropUnseen(&g, 0);
  // The first answer token sees positions 21 to 30: pages 5, 6 and half of 7.
  EXPECT_EQ(pages.held_pages(), 3);
  std::vector<int32_t> from, to;
  ASSERT_TRUE(table.CanStart(g));
  table.Start(&g, 0, &from, &to);
  EXPECT_EQ(from.size(), 1u) << "the partial page is copied";
  ++g.started;
  table.Start(&g, 1, &from, &to);
  EXPECT_EQ(from.size(), 1u) << "the last sample takes it over";
  ++g.started;
  table.ReleasePrompt(&g, 0);
  for (const size_t slot : {0u, 1u}) {
    const int32_t* row = table.entries().data() + slot * static_cast<size_t>(table.stride());
    std::set<int32_t> own;
    // 31 + 50 - 1 KV slots are pages 0 to 19; from 7 on they go round a ring of 4.
    for (int32_t p = 7; p < 20; ++p) {
      own.insert(row[p]);
      EXPECT_EQ(row[p], row[7 + (p - 7) % 4]) << p;
      EXPECT_EQ(pages.references(row[p]), 1);
    }
    EXPECT_EQ(own.size(), 4u);
    EXPECT_EQ(pages.references(row[5]), 2) << "both samples see it";
  }
  table.Finish(0, 1);
  table.Finish(1, 1);
  pages.Retire(1);
  EXPECT_EQ(pages.free_pages(), 40);
}

TEST(PageTable, TwoKindsOfLayersHoldTheirPromptsApart) {
  KvPages all(Shape(), Device::kCpu, DType::kFloat32, 4, 60),
      sliding(Shape(), Device::kCpu, DType::kFloat32, 4, 60);
  PageTableSize whole = kSize;
  whole.window = 0;
  PageTable first(0, whole, &all), second(1, kSize, &sliding);
  EXPECT_FALSE(first.slides());
  EXPECT_TRUE(second.slides());
  Group g = TwoSamples();
  first.Admit(&g);
  second.Admit(&g);
  EXPECT_EQ(g.prompt[0].held, 8);
  EXPECT_EQ(g.prompt[1].held, 5);
  // 8 of the prompt and 20 - 7 of an answer; 5 and a ring of 4.
  EXPECT_EQ(first.MinimumPages(g.request), 8 + 13);
  EXPECT_EQ(second.MinimumPages(g.request), 5 + 4);
  first.ReleasePrompt(&g, 0);
  EXPECT_EQ(sliding.held_pages(), 5);
}

TEST(PageTable, NoPoolNeedsMoreThanAllSamplesAndPromptsHold) {
  EXPECT_EQ(PageTable::PagesOfSample(kSize, 4), 2 * 4);
  EXPECT_EQ(PageTable::PagesOfPrompt(kSize, 4), 5);
  EXPECT_EQ(PageTable::MostPages(kSize, 4), 2 * (2 * 4 + 5));
  PageTableSize whole = kSize;
  whole.window = 0;
  EXPECT_EQ(PageTable::MostPages(whole, 4), 2 * 100);
}

}  // namespace
}  // namespace plumb::actor
