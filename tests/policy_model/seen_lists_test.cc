#include "policy_model/seen_lists.h"

#include <gtest/gtest.h>

#include "kernels/products/row_product.h"

namespace plumb::policy_model {
namespace {

TEST(SeenListsTest, ListsWhatEachSequenceSeesAndWhereEachTokenIsSeen) {
  // A prompt of two tokens, and two answers that go on from it.
  PackedBatch batch;
  batch.Clear();
  const std::vector<int32_t> prompt = {7, 8}, first = {7, 8, 9}, second = {7, 8, 5, 6};
  batch.AppendPrefix(prompt);
  batch.Append(first, std::vector<uint8_t>{0, 0, 0}, 2);
  batch.Append(second, std::vector<uint8_t>{0, 0, 0, 1}, 2);
  SeenLists lists;
  lists.Fill(batch, Device::kCpu);
  EXPECT_TRUE(lists.seen.empty() && lists.begins.empty()) << "nobody looks at them there";
  lists.Fill(batch, Device::Cuda(0));
  EXPECT_EQ(lists.seen, (std::vector<int32_t>{0, 1, 0, 1, 2, 0, 1, 3, 4}));
  EXPECT_EQ(lists.cu_seen, (std::vector<int32_t>{0, 2, 5, 9}));
  EXPECT_EQ(lists.places, (std::vector<int32_t>{0, 2, 5, 1, 3, 6, 4, 7, 8}));
  EXPECT_EQ(lists.place_begins, (std::vector<int32_t>{0, 3, 6, 7, 8, 9}));
  EXPECT_EQ(lists.begins, (std::vector<int32_t>{0, 0, 2, 5, 5}));
  lists.Clear();
  EXPECT_TRUE(lists.seen.empty() && lists.place_begins.empty() && lists.begins.empty());
}

TEST(SeenListsTest, WithoutAnythingSharedTheyAreForAttentionThatComputesAsGenerationDoes) {
  PackedBatch batch;
  batch.Clear();
  batch.Append(std::vector<int32_t>{7, 8}, std::vector<uint8_t>{0, 1});
  batch.Append(std::vector<int32_t>{5}, std::vector<uint8_t>{0});
  SeenLists lists;
  lists.Fill(batch, Device::Cuda(0));
  EXPECT_EQ(lists.seen, (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(lists.begins, (std::vector<int32_t>{0, 0, 2}));
  EXPECT_TRUE(lists.places.empty());
  kernels::SetExactProducts(false);
  lists.Fill(batch, Device::Cuda(0));
  kernels::SetExactProducts(true);
  EXPECT_TRUE(lists.seen.empty() && lists.begins.empty());
  kernels::SetExactOnCpu(true);
  lists.Fill(batch, Device::kCpu);
  kernels::SetExactOnCpu(false);
  EXPECT_EQ(lists.begins, (std::vector<int32_t>{0, 0, 2}));
}

}  // namespace
}  // namespace plumb::policy_model
