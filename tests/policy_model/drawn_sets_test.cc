// Sets lie row by row, the rows that were asked for.
#include "policy_model/drawn_sets.h"

#include <gtest/gtest.h>

#include "common/record/kept_tokens.h"

namespace plumb::policy_model {
namespace {

TEST(DrawnSetsTest, RowsOfAChunkAndNothingWhereNoneWasFiltered) {
  constexpr int64_t kVocab = 40;  // two words
  std::vector<uint8_t> sets;
  const std::vector<uint32_t> first = {0b110, 1}, second = {1u << 31, 0};
  AppendKeptTokens(first, kVocab, sets);
  const size_t cut = sets.size();
  AppendKeptTokens(second, kVocab, sets);
  PackedBatch batch;
  batch.Clear();
  batch.kept = {std::span<const uint8_t>(), std::span(sets).first(cut),
                std::span(sets).subspan(cut)};
  DrawnSets drawn{Stream(Device::kCpu)};
  EXPECT_EQ(drawn.Of(batch, 0, 3, kVocab), nullptr);
  batch.filtered = true;
  const uint32_t* words = drawn.Of(batch, 1, 2, kVocab);
  ASSERT_NE(words, nullptr);
  EXPECT_EQ(std::vector<uint32_t>(words, words + 4),
            (std::vector<uint32_t>{first[0], first[1], second[0], second[1]}));
  // Every token, where a row was drawn from all.
  words = drawn.Of(batch, 0, 1, kVocab);
  EXPECT_EQ(std::vector<uint32_t>(words, words + 2), (std::vector<uint32_t>{~0u, 0xffu}));
}

}  // namespace
}  // namespace plumb::policy_model
