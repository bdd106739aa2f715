#include "run/roles/cluster/relay_tree.h"

#include <gtest/gtest.h>

#include <map>

namespace plumb::run {
namespace {

using Names = std::vector<std::string>;

std::string Name(int i) { return "a" + std::to_string(i); }

TEST(RelayTreeTest, IsAsFlatAsCanBe) {
  RelayTree tree(2);
  for (int i = 0; i < 7; ++i) tree.Put(Name(i), true);
  EXPECT_EQ(tree.Above("a0"), Names{});
  EXPECT_EQ(tree.Above("a1"), Names{});
  EXPECT_EQ(tree.Above("a2"), Names{"a0"});
  EXPECT_EQ(tree.Above("a5"), Names{"a1"});
  EXPECT_EQ(tree.Above("a6"), (Names{"a2", "a0"}));
  EXPECT_EQ(tree.Below("a0"), 2u);
  EXPECT_EQ(tree.Below("a2"), 1u);
  EXPECT_EQ(tree.Below("a6"), 0u);
  EXPECT_EQ(tree.Above("nobody"), Names{});
}

// 100 actors, 3 each: nobody has more, all are reached, and the head sends to three.
TEST(RelayTreeTest, NobodyHasMoreThanItsShare) {
  RelayTree tree(3);
  for (int i = 0; i < 100; ++i) tree.Put(Name(i), true);
  for (const int gone : {0, 7, 50, 99, 3}) tree.Take(Name(gone));
  std::map<std::string, size_t> below;
  for (int i = 0; i < 100; ++i) {
    if (!tree.HandsOn(Name(i))) continue;
    const Names above = tree.Above(Name(i));
    EXPECT_LE(above.size(), 4u);
    ++below[above.empty() ? "head" : above[0]];
  }
  EXPECT_EQ(below["head"], 3u);
  size_t all = 0;
  for (const auto& [name, n] : below) {
    EXPECT_LE(n, 3u) << name;
    if (name != "head") {
      EXPECT_EQ(n, tree.Below(name)) << name;
    }
    all += n;
  }
  EXPECT_EQ(all, 95u);
}

TEST(RelayTreeTest, WhereOneGoesOneTakesItsPlace) {
  RelayTree tree(2);
  for (int i = 0; i < 7; ++i) tree.Put(Name(i), true);
  tree.Take("a0");
  EXPECT_EQ(tree.Above("a2"), Names{"a6"});
  EXPECT_EQ(tree.Above("a5"), Names{"a1"}) << "of others nothing changes";
  EXPECT_EQ(tree.size(), 6u);
}

TEST(RelayTreeTest, WhoHandsNothingOnIsAtTheEdge) {
  RelayTree tree(1);
  tree.Put("shut", false);
  EXPECT_EQ(tree.Above("shut"), Names{});
  tree.Put("open", true);
  EXPECT_EQ(tree.Above("open"), Names{});
  EXPECT_EQ(tree.Above("shut"), Names{"open"});
  tree.Put("also shut", false);
  EXPECT_EQ(tree.Above("also shut"), Names{}) << "nobody else is there: of the head";
  tree.Put("open", false);  // it was slow
  EXPECT_EQ(tree.Below("open"), 0u);
  EXPECT_EQ(tree.Above("shut"), Names{});
  tree.Put("open", true);
  EXPECT_EQ(tree.size(), 3u);
}

}  // namespace
}  // namespace plumb::run
