// common/record/kept_tokens.h
#include "common/record/kept_tokens.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/base/error.h"
#include "common/base/rng.h"

namespace plumb {
namespace {

std::vector<uint32_t> Words(int64_t vocab, const std::vector<int32_t>& ids) {
  std::vector<uint32_t> words(static_cast<size_t>((vocab + 31) / 32), 0);
  for (const int32_t id : ids) words[static_cast<size_t>(id / 32)] |= 1u << (id % 32);
  return words;
}

std::vector<uint8_t> Packed(int64_t vocab, const std::vector<int32_t>& ids) {
  std::vector<uint8_t> out;
  AppendKeptTokens(Words(vocab, ids), vocab, out);
  return out;
}

TEST(KeptTokens, FormsOfTheHeader) {
  EXPECT_EQ(Packed(3, {0, 1, 2}), (std::vector<uint8_t>{0}));
  EXPECT_EQ(Packed(40, {5, 7, 39}), (std::vector<uint8_t>{6, 5, 1, 31}));
  EXPECT_EQ(Packed(200, {180}), (std::vector<uint8_t>{2, 180 % 128 + 128, 1}));
  EXPECT_EQ(Packed(12, {0, 1, 2, 3, 9}), (std::vector<uint8_t>{5, 15, 2}));
  EXPECT_EQ(Packed(64, {0, 1, 2, 8, 9, 10, 11}), (std::vector<uint8_t>{5, 7, 15}));
}

TEST(KeptTokens, EverySetComesBackAndIsSmall) {
  RandomStream random(4, 4);
  std::vector<uint8_t> all;
  std::vector<std::vector<uint32_t>> sets;
  std::vector<std::pair<int64_t, std::vector<int32_t>>> inputs;
  for (const int64_t vocab : {1, 31, 32, 33, 257, 5000}) {
    for (const uint32_t one_in : {1, 2, 7, 40, 1000}) {
      std::vector<int32_t> ids;
      for (int32_t id = 0; id < vocab; ++id) {
        if (random.NextBelow(one_in) == 0) ids.push_back(id);
      }
      if (ids.empty()) ids.push_back(static_cast<int32_t>(vocab - 1));
      inputs.emplace_back(vocab, ids);
      const size_t before = all.size();
      AppendKeptTokens(Words(vocab, ids), vocab, all);
      EXPECT_LE(all.size() - before, static_cast<size_t>(vocab) / 8 + 4);
      EXPECT_LE(all.size() - before, 3 * ids.size() + 3);
    }
  }
  KeptTokensReader reader(all);
  for (const auto& [vocab, ids] : inputs) {
    ASSERT_FALSE(reader.done());
    const auto set = reader.Next();
    std::vector<uint32_t> words(static_cast<size_t>((vocab + 31) / 32), 77);
    UnpackKeptTokens(set, vocab, words);
    EXPECT_EQ(words, Words(vocab, ids)) << vocab;
    const bool every = static_cast<int64_t>(ids.size()) == vocab;
    EXPECT_EQ(KeepsEveryToken(set), every);
    EXPECT_EQ(CountKept(set), every ? 0 : static_cast<int64_t>(ids.size()));
    for (int32_t id = 0; id < std::min<int64_t>(vocab, 300); ++id) {
      EXPECT_EQ(Keeps(set, id), std::binary_search(ids.begin(), ids.end(), id))
          << vocab << " " << id;
    }
  }
  EXPECT_TRUE(reader.done());
}

TEST(KeptTokens, BytesThatAreNoListAreRefused) {
  const std::vector<std::vector<uint8_t>> bad = {
      {2},                             // no token
      {6, 5, 1},                       // two of three
      {5, 7},                          // a byte of two
      {1},                             // bits without a byte
      {3, 0},                          // bits that end in none
      {2, 128},                        // inside a number
      {2, 128, 0},                     // a longer form
      {128, 128, 128, 128, 128, 1},    // too long a number
      {4, 255, 255, 255, 255, 7, 0},   // beyond 2^31
      {255, 255, 255, 255, 15, 1, 1},  // bits that are not there
  };
  for (const auto& bytes : bad) {
    KeptTokensReader reader(bytes);
    EXPECT_THROW(reader.Next(), Error) << bytes.size() << " " << int{bytes[0]};
  }
  std::vector<uint32_t> words(1);
  EXPECT_THROW(UnpackKeptTokens(Packed(40, {39}), 30, words), Error);
  EXPECT_TRUE(KeepsEveryToken({}));
}

}  // namespace
}  // namespace plumb
