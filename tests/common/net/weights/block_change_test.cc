#include "common/net/weights/block_change.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "common/base/error.h"

namespace plumb {
namespace {

using Bytes = std::vector<std::byte>;

Bytes Random(size_t n, uint64_t seed) {
  std::mt19937_64 draw(seed);
  Bytes out(n);
  for (std::byte& each : out) each = static_cast<std::byte>(draw());
  return out;
}

Bytes Decoded(const std::string& encoded, const Bytes& base, size_t size) {
  Bytes into(size, std::byte{0x5a});
  DecodeBlock(encoded, base, into);
  return into;
}

TEST(BlockChange, IsExactForAnyShareOfChanges) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{2}, size_t{7}, size_t{8}, size_t{9},
                            size_t{1001}, size_t{40'000}}) {
    const Bytes base = Random(size, 1);
    for (const int every : {1, 2, 3, 17, 400, 1'000'000}) {
      Bytes block = base;
      for (size_t i = 0; i < size; i += static_cast<size_t>(every)) block[i] ^= std::byte{0x11};
      const std::string encoded = EncodeBlock(block, base);
      EXPECT_EQ(Decoded(encoded, base, size), block) << size << " " << every;
      EXPECT_LE(encoded.size(), size + 1);
      EXPECT_EQ(Decoded(EncodeBlock(block, {}), {}, size), block) << "without a base";
    }
    // The last word alone.
    if (size == 0) continue;
    Bytes block = base;
    block.back() ^= std::byte{1};
    EXPECT_EQ(Decoded(EncodeBlock(block, base), base, size), block) << size;
  }
}

// Numbers that hold a choice of form: places for few changes, marks for many, all of it for most.
TEST(BlockChange, TheShortestFormIsTaken) {
  constexpr size_t kWords = 1 << 16;
  const Bytes base = Random(2 * kWords, 2);
  const auto size = [&](int every, bool all_of_word) {
    Bytes block = base;
    for (size_t word = 0; word < kWords; word += static_cast<size_t>(every)) {
      block[2 * word] ^= std::byte{1};
      if (all_of_word) block[2 * word + 1] ^= std::byte{1};
    }
    const std::string encoded = EncodeBlock(block, base);
    EXPECT_EQ(Decoded(encoded, base, base.size()), block);
    return std::pair(static_cast<int>(encoded[0]), encoded.size());
  };
  EXPECT_EQ(EncodeBlock(base, base), SameBlock());
  EXPECT_EQ(size(100, false), std::pair(1, 1 + 2 + 3 * (kWords / 100 + 1)));
  EXPECT_EQ(size(2, true), std::pair(2, 1 + kWords / 8 + kWords));
  EXPECT_EQ(size(1, true), std::pair(0, 1 + 2 * kWords));
  EXPECT_EQ(WholeBlock(EncodeBlock(base, {})).size(), base.size());
  EXPECT_TRUE(WholeBlock(SameBlock()).empty());
}

// Of float32 a small step changes the lower half: no change of a number costs four bytes.
TEST(BlockChange, HalvesOfLongerNumbersAreToldApart) {
  std::vector<float> base(1 << 14), next(1 << 14);
  for (size_t i = 0; i < base.size(); ++i) {
    base[i] = 0.02f * static_cast<float>(i % 97) + 0.001f;
    next[i] = base[i] * (1 + 1e-5f);
  }
  const auto bytes = [](const std::vector<float>& v) { return std::as_bytes(std::span(v)); };
  const std::string encoded = EncodeBlock(bytes(next), bytes(base));
  EXPECT_LT(encoded.size(), bytes(next).size() * 6 / 10);
  std::vector<float> into(base.size());
  DecodeBlock(encoded, bytes(base), std::as_writable_bytes(std::span(into)));
  EXPECT_EQ(into, next);
}

TEST(BlockChange, WhatIsNoneIsRefused) {
  const Bytes base = Random(1000, 3);
  Bytes block = base;
  for (size_t i = 0; i < 1000; i += 50) block[i] ^= std::byte{1};
  const std::string few = EncodeBlock(block, base);
  ASSERT_EQ(few[0], 1);
  for (size_t i = 0; i < 1000; i += 5) block[i] ^= std::byte{2};
  const std::string many = EncodeBlock(block, base);
  ASSERT_EQ(many[0], 2);
  Bytes into(1000);
  for (const std::string& fine : {few, many, EncodeBlock(block, {})}) {
    for (size_t cut = 0; cut < fine.size(); ++cut)
      EXPECT_THROW(DecodeBlock(fine.substr(0, cut), base, into), Error) << cut;
    EXPECT_THROW(DecodeBlock(fine + "x", base, into), Error);
  }
  EXPECT_THROW(DecodeBlock(few, {}, into), Error) << "of a block that is not here";
  EXPECT_THROW(DecodeBlock(std::string("\x03", 1), base, into), Error);
  EXPECT_THROW(DecodeBlock(std::string("\x01\x01\xff\xff\xff\xff\xff\xff\xff\x7f", 10), base, into),
               Error);
  EXPECT_THROW(DecodeBlock(std::string("\x01\xf5\x03", 3), base, into), Error) << "501 of 500";
}

}  // namespace
}  // namespace plumb
