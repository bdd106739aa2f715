#include "policy_model/batch_indices.h"

#include <gtest/gtest.h>

namespace plumb::policy_model {
namespace {

TEST(BatchIndicesTest, EachArrayIsWhereItBelongs) {
  PackedBatch batch;
  const std::vector<int32_t> tokens = {3, 4, 5};
  const std::vector<uint8_t> mask = {0, 0, 1};
  batch.Append(tokens, mask);
  Staging staging(Device::kCpu);
  SeenLists lists;
  lists.seen = {7};
  lists.cu_seen = {8};
  lists.places = {9};
  lists.place_begins = {10};
  lists.begins = {11};
  const std::vector<float> first = {0.5f}, third = {0.25f};
  const BatchIndices at = StageBatch(batch, batch.tokens, lists, {first, {}, third}, staging);
  EXPECT_EQ(at.tokens[2], 5);
  EXPECT_EQ(at.positions[2], 2);
  EXPECT_EQ(at.cu_seqlens[1], 3);
  EXPECT_EQ(at.rows[0], 1);
  EXPECT_EQ(at.targets[0], 5);
  EXPECT_EQ(at.seen[0], 7);
  EXPECT_EQ(at.cu_seen[0], 8);
  EXPECT_EQ(at.places[0], 9);
  EXPECT_EQ(at.place_begins[0], 10);
  EXPECT_EQ(at.begins[0], 11);
  const AttentionShape shape = AttentionOf({.heads = 4}, batch, at, lists);
  EXPECT_EQ(shape.begins, at.begins);
  EXPECT_EQ(shape.positions, at.positions);
  lists.begins.clear();
  EXPECT_EQ(AttentionOf({.heads = 4}, batch, at, lists).begins, nullptr);
  EXPECT_EQ(at.g_first[0], 0.5f);
  EXPECT_EQ(at.g_second, nullptr);
  EXPECT_EQ(at.g_third[0], 0.25f);
}

}  // namespace
}  // namespace plumb::policy_model
