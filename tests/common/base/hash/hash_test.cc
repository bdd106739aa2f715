// Sums and digests against published values and against slower versions of themselves.
// common/base/hash/sha256.h, common/base/hash/crc32c.h, common/base/hash/digest.h
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "common/base/hash/crc32c.h"
#include "common/base/hash/digest.h"
#include "common/base/hash/sha256.h"

namespace plumb {
namespace {

std::string RandomText(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}
std::span<const std::byte> Bytes(std::string_view s) {
  return std::as_bytes(std::span(s.data(), s.size()));
}

TEST(Sha256, PublishedValues) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Sha256Hex(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesOfAnySizeGiveTheSame) {
  const std::string text = RandomText(1000, 1);
  for (size_t piece = 1; piece < 140; piece += 3) {
    Sha256 hash;
    for (size_t at = 0; at < text.size(); at += piece)
      hash.Update(std::string_view(text).substr(at, piece));
    EXPECT_EQ(hash.HexDigest(), Sha256Hex(text));
  }
}

TEST(Crc32c, PublishedValuesAndPieces) {
  for (const Crc32cWay& way : Crc32cWays()) {
    const auto sum = [&](std::string_view text) {
      return way.sum(text.data(), text.size(), nullptr, 0);
    };
    EXPECT_EQ(sum("123456789"), 0xE3069283u) << way.name;
    EXPECT_EQ(sum(std::string(32, '\0')), 0x8A9136AAu) << way.name;  // RFC 3720, B.4
    EXPECT_EQ(sum(std::string(32, '\xff')), 0x62A8AB43u) << way.name;
    EXPECT_EQ(sum(""), 0u) << way.name;
  }
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  const std::string text = RandomText(300, 2);
  for (size_t n = 0; n <= text.size(); ++n) {
    EXPECT_EQ(Crc32c(text.data() + n, text.size() - n, Crc32c(text.data(), n)), Crc32c(text));
  }
}

// Each way of this processor against the tables: sizes around all blocks that any of them sums at
// once, any alignment and seed, with and without the copy.
TEST(Crc32c, EveryWayGivesTheSame) {
  const auto ways = Crc32cWays();
  for (const Crc32cWay& way : ways) std::printf("%s\n", way.name);
  const std::string text = RandomText((size_t{1} << 20) + 64, 5);
  std::string copy(text.size() + 64, '\0');
  const auto check = [&](size_t from, size_t n, uint32_t seed) {
    const uint32_t expected = ways[0].sum(text.data() + from, n, nullptr, seed);
    for (const Crc32cWay& way : ways) {
      ASSERT_EQ(way.sum(text.data() + from, n, nullptr, seed), expected)
          << way.name << ": " << n << " bytes from " << from;
      const size_t to = (from * 7 + n) % 64;
      copy[to + n] = '#';
      ASSERT_EQ(way.sum(text.data() + from, n, copy.data() + to, seed), expected)
          << way.name << ": " << n << " bytes from " << from;
      ASSERT_EQ(std::string_view(copy).substr(to, n), std::string_view(text).substr(from, n))
          << way.name << ": " << n;
      ASSERT_EQ(copy[to + n], '#') << way.name << ": " << n;
      std::fill(copy.begin(), copy.begin() + static_cast<std::ptrdiff_t>(to + n), '\0');
    }
  };
  for (size_t n = 0; n <= 1100; ++n) {
    for (const size_t from : {n % 64, (n * 29 + 1) % 64})
      check(from, n, static_cast<uint32_t>(n * 2654435761u));
  }
  for (size_t from = 0; from < 64; ++from) check(from, 1021, static_cast<uint32_t>(from));
  // Of three streams of 1,024 bytes, and long ones.
  for (const size_t block :
       {3u * 1024, 3u * 1024 + 3 * 128, 2 * 3u * 1024 + 5 * 128, 3 * 3u * 1024, 1u << 16}) {
    for (size_t n = block - 9; n <= block + 9; ++n)
      check(n % 61, n, static_cast<uint32_t>(n * 2654435761u));
  }
  for (const size_t from : {0u, 5u, 63u}) check(from, size_t{1} << 20, 0xFFFFFFFFu);
  EXPECT_EQ(Crc32cCopy(text.data(), 1000, copy.data()), Crc32c(text.data(), 1000));
  EXPECT_EQ(copy.substr(0, 1000), text.substr(0, 1000));
}

// A flipped bit anywhere changes the sum, whichever way it is computed.
TEST(Crc32c, EveryFlippedBitIsNoticed) {
  std::string text = RandomText(700, 6);
  for (const Crc32cWay& way : Crc32cWays()) {
    const uint32_t whole = way.sum(text.data(), text.size(), nullptr, 0);
    for (size_t bit = 0; bit < 8 * text.size(); ++bit) {
      text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
      ASSERT_NE(way.sum(text.data(), text.size(), nullptr, 0), whole)
          << way.name << ", bit " << bit;
      text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
    }
  }
}

TEST(HashBytes, IsXxh3AndStays) {
  EXPECT_EQ(HashBytes(""), 0x2D06800538D394C2u);  // published; stored by importers
  EXPECT_NE(HashBytes("ab"), HashBytes("ba"));
  // By the library's portable code; each length takes another way through it.
  constexpr std::pair<size_t, uint64_t> kKnown[] = {
      {3, 0x3698B80191E625F9u},   {17, 0xC56F339D36CC73D7u},   {200, 0xC56A3BC977E096FBu},
      {241, 0x18773C512B008A63u}, {1350, 0xE53575FC38F30661u}, {5000, 0x60B1C0AE31E84FEFu}};
  for (const auto& [size, hash] : kKnown) {
    std::string text;
    for (size_t i = 0; i < size; ++i) text.push_back(static_cast<char>(i * 31 & 0xFF));
    EXPECT_EQ(HashBytes(text), hash) << size;
  }
}

TEST(Digest, EveryByteAndTheSizeMatterAndShardsCombine) {
  std::string weights = RandomText(3 * kDigestBlockBytes + 12345, 3);
  const Digest digest = WeightDigest(Bytes(weights));
  EXPECT_EQ(digest.size(), 32u);
  std::mt19937 random(4);
  for (int i = 0; i < 30; ++i) {
    char& byte = weights[random() % weights.size()];
    byte ^= 1;
    EXPECT_NE(WeightDigest(Bytes(weights)), digest);
    byte ^= 1;
  }
  EXPECT_EQ(WeightDigest(Bytes(weights)), digest);
  EXPECT_NE(WeightDigest(Bytes(weights + std::string(1, '\0'))), digest);
  EXPECT_NE(WeightDigest({}), WeightDigest(Bytes(std::string(1, '\0'))));
  // Two holders of whole blocks.
  auto blocks = HashBlocks(Bytes(weights).first(2 * kDigestBlockBytes));
  const auto rest = HashBlocks(Bytes(weights).subspan(2 * kDigestBlockBytes));
  blocks.insert(blocks.end(), rest.begin(), rest.end());
  EXPECT_EQ(CombineBlocks(blocks, weights.size()), digest);
  // Blocks in another order are other weights.
  std::swap(blocks[0], blocks[1]);
  EXPECT_NE(CombineBlocks(blocks, weights.size()), digest);
}

// Fixed for ever: checkpoints hold digests. The values are those of another implementation (PyPI
// xxhash).
TEST(Digest, ValuesDoNotChange) {
  EXPECT_EQ(WeightDigest({}), "2c0a8a99dc147d5445c3b49d035665b2");
  EXPECT_EQ(WeightDigest(Bytes("plumb")), "58480e2727197451a84da62eff2346cd");
  EXPECT_EQ(WeightDigest(Bytes(std::string((size_t{1} << 20) + 1, 'w'))),
            "960731c79853d81a85ef259b5ad4d7c4");
}

TEST(Digest, SpeedIsPrinted) {
  const std::string weights(size_t{64} << 20, 'w');
  const auto measure = [&](const char* name, auto work) {
    work();
    const auto begin = std::chrono::steady_clock::now();
    work();
    const double s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::printf("%s: %.1f GB/s\n", name, static_cast<double>(weights.size()) / s / 1e9);
  };
  uint64_t keep = 0;
  measure("digest", [&] { keep += WeightDigest(Bytes(weights)).size(); });
  for (const Crc32cWay& way : Crc32cWays()) {
    measure((std::string("crc32c, ") + way.name).c_str(),
            [&] { keep += way.sum(weights.data(), weights.size(), nullptr, 0); });
  }
  measure("sha256", [&] { keep += Sha256Hex(weights).size(); });
  EXPECT_GT(keep, 0u);
}

}  // namespace
}  // namespace plumb
