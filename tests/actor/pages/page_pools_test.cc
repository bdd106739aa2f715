#include "actor/pages/page_pools.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "actor/pages/kv_pages.h"
#include "common/base/error.h"

namespace plumb::actor {
namespace {

// Gemma 3 1B as far as its pages go: of 26 layers every sixth sees everything, the others 512
// tokens.
policy_model::ModelShape Gemma() {
  policy_model::ModelShape s;
  s.family = "gemma3_text";
  s.layers = 26, s.hidden = 1152, s.heads = 4, s.kv_heads = 1, s.head_dim = 256, s.ffn = 6912;
  s.vocab = 262144, s.max_positions = 32768, s.window = 512, s.local_rope_theta = 10000;
  for (int l = 0; l < 26; ++l) s.sliding.push_back((l + 1) % 6 != 0 ? 1 : 0);
  return s;
}

PageDemand Demand(int64_t budget_mb, int32_t longest) {
  return {.size = {.max_batch = 32, .prefill_tokens = 512, .max_positions = 32768},
          .longest = longest,
          .page_tokens = 16,
          .budget_mb = budget_mb};
}

int64_t Bytes(const policy_model::ModelShape& shape, int64_t layers, int64_t pages) {
  return KvPages::PageBytes(shape, DType::kBFloat16, 16) / shape.layers * layers * pages;
}

TEST(PagePools, TheBudgetIsSharedAsTheLongestSequencesNeedIt) {
  const policy_model::ModelShape shape = Gemma();
  for (const int64_t budget : {128, 512, 2048}) {
    for (const int32_t longest : {600, 2048, 8192, 32768}) {
      const PageDemand demand = Demand(budget, longest);
      const auto pools = DividePages(shape, DType::kBFloat16, demand);
      EXPECT_EQ(pools[0].layers, 4);
      EXPECT_EQ(pools[1].layers, 22);
      EXPECT_EQ(pools[1].window, 512);
      const int64_t spent = Bytes(shape, 4, pools[0].pages) + Bytes(shape, 22, pools[1].pages);
      EXPECT_LE(spent, budget << 20);
      PageTableSize size = demand.size;
      size.max_positions = longest;
      const auto sequences = [&](const PagePool& pool) {
        size.window = pool.window;
        return static_cast<double>(pool.pages - PageTable::PagesOfPrompt(size, 16)) /
               static_cast<double>(PageTable::PagesOfSample(size, 16));
      };
      const double all = sequences(pools[0]), sliding = sequences(pools[1]);
      PageTableSize most = demand.size;
      most.window = 512;
      const bool capped = pools[1].pages == PageTable::MostPages(most, 16);
      if (capped) {
        EXPECT_GE(all, sliding) << "what is left goes to the others";
      }
      if (capped || std::min(all, sliding) < 1) continue;
      // Within a page of each pool.
      EXPECT_NEAR(all, sliding, 0.1 * all) << budget << " MiB, " << longest;
    }
  }
}

TEST(PagePools, ASequenceOf8kTokensInAGemma) {
  const policy_model::ModelShape shape = Gemma();
  const int64_t tokens = 8192, page = 16;
  const int64_t kept = Bytes(shape, 26, tokens / page);
  PageTableSize size = Demand(1, 0).size;
  size.window = 512;
  // What an answer holds while it is drawn: all pages of 4 layers, a ring of 22.
  const int64_t ring = PageTable::PagesOfSample(size, 16) / 2;
  const int64_t apart = Bytes(shape, 4, tokens / page) + Bytes(shape, 22, ring);
  std::printf(
      "gemma3 1B, 8192 tokens, bfloat16: %.1f MiB with all pages kept, %.1f MiB with a "
      "pool a kind of layers\n",
      static_cast<double>(kept) / (1 << 20), static_cast<double>(apart) / (1 << 20));
  EXPECT_EQ(kept, int64_t{208} << 20);
  EXPECT_EQ(ring, 33);
  EXPECT_LT(apart, kept / 4);
}

TEST(PagePools, OnePoolWhereAllLayersAreAlikeOrAllIsKept) {
  policy_model::ModelShape shape = Gemma();
  PageDemand demand = Demand(512, 0);
  demand.one_pool = true;
  EXPECT_EQ(DividePages(shape, DType::kBFloat16, demand)[0].layers, 26);
  EXPECT_EQ(DividePages(shape, DType::kBFloat16, demand)[0].window, 0);
  demand.one_pool = false;
  demand.keep_all = true;
  EXPECT_EQ(DividePages(shape, DType::kBFloat16, demand)[1].layers, 0);
  shape.sliding.assign(26, 1);
  EXPECT_EQ(DividePages(shape, DType::kBFloat16, demand)[0].window, 0);
  demand.keep_all = false;
  EXPECT_EQ(DividePages(shape, DType::kBFloat16, demand)[0].window, 512);
  shape.sliding.assign(26, 0);
  EXPECT_EQ(DividePages(shape, DType::kBFloat16, demand)[0].layers, 26);
  EXPECT_EQ(DividePages(shape, DType::kBFloat16, demand)[0].window, 0);
}

TEST(PagePools, APoolOfNothingIsRefused) {
  PageDemand demand = Demand(1, 0);
  demand.page_tokens = 4096;  // 16 MiB a page of the layers that see everything
  try {
    DividePages(Gemma(), DType::kBFloat16, demand);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("does not hold one page of 4096 tokens"),
              std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace plumb::actor
