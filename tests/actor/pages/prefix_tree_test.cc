#include "actor/pages/prefix_tree.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "common/base/rng.h"

namespace plumb::actor {
namespace {

policy_model::ModelShape Shape() {
  policy_model::ModelShape s;
  s.layers = 1, s.hidden = 8, s.heads = 1, s.kv_heads = 1, s.head_dim = 8, s.ffn = 8, s.vocab = 50;
  s.max_positions = 200;
  return s;
}

TEST(PrefixTree, OneThatHasBeenIdleForLongestGoesFirstAndLeavesBeforeWhatIsAbove) {
  KvPages pages(Shape(), Device::kCpu, DType::kFloat32, 2, 4);
  PrefixTree tree(&pages);
  const std::vector<int32_t> ab = {1, 2}, cd = {3, 4}, ef = {5, 6};
  const int32_t root = PrefixTree::Root(-1);
  const int32_t first = pages.Allocate(), second = pages.Allocate(), other = pages.Allocate();
  tree.Add(root, ab, first);
  tree.Add(first, cd, second);
  tree.Add(root, ef, other);
  EXPECT_EQ(tree.Find(root, ab), first);
  EXPECT_EQ(tree.Find(first, cd), second);
  EXPECT_LT(tree.Find(root, cd), 0) << "the same tokens in another place";
  EXPECT_LT(tree.Find(PrefixTree::Root(0), ab), 0) << "the same tokens of another task";
  EXPECT_EQ(tree.idle(), 0);
  for (const int32_t page : {second, first, other}) {
    pages.Release(page, 1);
    tree.Left(page);
  }
  EXPECT_EQ(tree.idle(), 3);
  EXPECT_EQ(pages.free_pages(), 1);
  tree.Hold(first);  // somebody reads the first one again
  EXPECT_EQ(tree.idle(), 2);
  tree.Evict();
  EXPECT_LT(tree.Find(first, cd), 0);
  EXPECT_EQ(tree.Find(root, ef), other);
  tree.Evict();
  EXPECT_EQ(tree.idle(), 0);
  EXPECT_EQ(pages.free_pages(), 3);
  EXPECT_EQ(tree.Find(root, ab), first) << "what is held stays";
  EXPECT_DEATH(tree.Evict(), "idle");
  tree.Clear();
  EXPECT_LT(tree.Find(root, ab), 0);
  EXPECT_EQ(pages.free_pages(), 3) << "whoever holds it goes on";
  pages.Release(first, 2);
  tree.Left(first);
  pages.Retire(2);
  EXPECT_EQ(pages.free_pages(), 4);
  EXPECT_EQ(tree.idle(), 0);
}

// Sequences of few tokens come and go; each takes what is known and adds the rest.
TEST(PrefixTree, FindsExactlyWhatWasAddedAndNotForgotten) {
  uint64_t found = 0, evicted = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    RandomStream random(seed, 4);
    constexpr int32_t kPages = 40;
    KvPages pages(Shape(), Device::kCpu, DType::kFloat32, 1, kPages);
    PrefixTree tree(&pages);
    std::map<std::vector<int32_t>, int32_t> known;  // path -> page
    std::vector<std::vector<int32_t>> running;      // pages of each sequence
    for (int64_t step = 0; step < 400; ++step) {
      if (random.NextBelow(100) == 0) {
        tree.Clear();
        known.clear();
        // What runs goes on with pages that the tree does not know: nobody may add behind them.
        for (auto& sequence : running) {
          for (auto page = sequence.rbegin(); page != sequence.rend(); ++page) {
            pages.Release(*page, step);
            tree.Left(*page);
          }
        }
        running.clear();
        pages.Retire(step);
      }
      if (running.size() < 3) {
        std::vector<int32_t> path, held;
        int32_t above = PrefixTree::Root(-1);
        for (uint32_t n = 1 + random.NextBelow(12); n > 0; --n) {
          const auto token = static_cast<int32_t>(random.NextBelow(3));
          path.push_back(token);
          const int32_t page = tree.Find(above, std::span(&token, 1));
          const auto expected = known.find(path);
          ASSERT_EQ(page, expected == known.end() ? -1 : expected->second);
          if (page >= 0) {
            ++found;
            tree.Hold(page);
            above = page;
          } else {
            if (pages.free_pages() == 0) {
              ASSERT_GT(tree.idle(), 0);
              tree.Evict();
              ++evicted;
              std::erase_if(known, [&](const auto& k) { return pages.references(k.second) == 0; });
            }
            const int32_t fresh = pages.Allocate();
            tree.Add(above, std::span(&token, 1), fresh);
            known[path] = fresh;
            above = fresh;
          }
          held.push_back(above);
        }
        running.push_back(held);
      } else {
        const size_t who = random.NextBelow(static_cast<uint32_t>(running.size()));
        for (auto page = running[who].rbegin(); page != running[who].rend(); ++page) {
          pages.Release(*page, step);
          tree.Left(*page);
        }
        running.erase(running.begin() + static_cast<ptrdiff_t>(who));
        pages.Retire(step);
      }
      ASSERT_EQ(tree.size(), static_cast<int32_t>(known.size()));
      ASSERT_EQ(pages.free_pages() + tree.size(), kPages);
    }
  }
  EXPECT_GT(found, 10000u);
  EXPECT_GT(evicted, 1000u);
}

}  // namespace
}  // namespace plumb::actor
