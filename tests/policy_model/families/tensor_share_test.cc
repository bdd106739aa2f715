// policy_model/families/tensor_share.h: what of a model a rank computes, and where it lies.
#include "policy_model/families/tensor_share.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::policy_model {
namespace {

ModelShape Shape() {
  return {.family = "qwen3",
          .layers = 2,
          .hidden = 16,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 6,
          .ffn = 12,
          .vocab = 20,
          .max_positions = 32,
          .tied = false,
          .attention_bias = true,
          .eos_tokens = {18},
          .unused_tokens = {3, 17, 19}};
}

std::string ErrorOf(const ModelShape& shape, int ranks) {
  try {
    ShareOf(shape, ranks - 1, ranks, "run.parallel");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(TensorShareTest, AShareIsAModelOfFewerHeadsColumnsAndTokens) {
  const ModelShape second = ShareOf(Shape(), 1, 2, "");
  EXPECT_EQ(second.heads, 2);
  EXPECT_EQ(second.kv_heads, 1);
  EXPECT_EQ(second.head_dim, 6);
  EXPECT_EQ(second.ffn, 6);
  EXPECT_EQ(second.hidden, 16);
  EXPECT_EQ(second.vocab, 10);
  EXPECT_EQ(second.unused_tokens, (std::vector<int32_t>{7, 9})) << "of its own rows";
  EXPECT_EQ(ShareOf(Shape(), 0, 1, "").heads, 4);
  for (const int rank : {0, 1})
    EXPECT_NO_THROW(TensorTable(ShareOf(Shape(), rank, 2, "")))
        << "its end token lies in one share";
}

// Every number of what is cut is one rank's, in the order of the rank's own table; what is not cut
// is everybody's.
TEST(TensorShareTest, SharesMakeUpTheWhole) {
  constexpr int kRanks = 2;
  ModelShape shape = Shape();
  shape.vocab = 21;  // the first rank has 11 rows of it
  const TensorTable whole(shape);
  for (size_t i = 0; i < whole.entries().size(); ++i) {
    const TensorEntry& entry = whole.entries()[i];
    std::vector<int> owners(static_cast<size_t>(entry.elements));
    for (int rank = 0; rank < kRanks; ++rank) {
      const TensorTable share(ShareOf(shape, rank, kRanks, ""));
      int64_t at = 0;
      for (const ShareRun& run : ShareRuns(entry, rank, kRanks)) {
        EXPECT_EQ(run.share, at) << entry.name;
        at += run.size;
        for (int64_t k = 0; k < run.size; ++k) ++owners[static_cast<size_t>(run.whole + k)];
      }
      EXPECT_EQ(share.entries()[i].name, entry.name);
      EXPECT_EQ(share.entries()[i].elements, at) << entry.name;
    }
    for (const int each : owners) ASSERT_EQ(each, IsCut(entry) ? 1 : kRanks) << entry.name;
  }
  const auto named = [&](const std::string& name) -> const TensorEntry& {
    for (const TensorEntry& entry : whole.entries()) {
      if (entry.name == name) return entry;
    }
    throw Error(ErrorCode::kNotFound, name);
  };
  EXPECT_TRUE(IsCut(named("layers.0.qkv_bias")));
  EXPECT_FALSE(IsCut(named("layers.0.q_norm")));
  EXPECT_TRUE(GradientIsSummand(named("layers.0.q_norm")));
  EXPECT_FALSE(GradientIsSummand(named("layers.0.post_norm")));
  // A row of o is cut into runs, of which the second rank's begin in the middle.
  const auto runs = ShareRuns(named("layers.1.o"), 1, 2);
  ASSERT_EQ(runs.size(), 16u);
  EXPECT_EQ(runs[1].whole, 24 + 12);
  EXPECT_EQ(runs[1].share, 12);
}

TEST(TensorShareTest, WhatCannotBeCutIsRefusedWithTheReason) {
  EXPECT_EQ(ErrorOf(Shape(), 2), "");
  EXPECT_NE(ErrorOf(Shape(), 4).find("tp=4, and the model has 2 heads of keys and values"),
            std::string::npos)
      << ErrorOf(Shape(), 4);
  ModelShape odd = Shape();
  odd.ffn = 13;
  EXPECT_NE(ErrorOf(odd, 2).find("13 columns in a feed-forward part"), std::string::npos);
  ModelShape padded = Shape();
  padded.unused_tokens.clear();
  for (int32_t id = 10; id < 20; ++id) padded.unused_tokens.push_back(id);
  EXPECT_NE(ErrorOf(padded, 2).find("has no token"), std::string::npos) << ErrorOf(padded, 2);
  ModelShape wide = Shape();
  wide.family = "olmo3";
  wide.attention_bias = false;
  EXPECT_NE(ErrorOf(wide, 2).find("norms over the queries of all heads"), std::string::npos)
      << ErrorOf(wide, 2);
}

}  // namespace
}  // namespace plumb::policy_model
