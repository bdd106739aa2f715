// Sums and digests against published values and against slower versions of themselves.
// common/sha256.h, common/crc32c.h, common/digest.h
#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "common/crc32c.h"
#include "common/digest.h"
#include "common/sha256.h"

namespace plumb {
namespace {

std::string RandomText(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}
std::span<const std::byte> Bytes(std::string_view s) { return std::as_bytes(std::span(s.data(), s.size())); }

TEST(Sha256, PublishedValuesBothWays) {
  for (const bool portable : {false, true}) {
    UsePortableSha256ForTest(portable);
    EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(Sha256Hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    EXPECT_EQ(Sha256Hex(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
  UsePortableSha256ForTest(false);
}

TEST(Sha256, PiecesOfAnySizeGiveTheSame) {
  const std::string text = RandomText(1000, 1);
  for (size_t n = 0; n <= 200; ++n) {
    const std::string whole = Sha256Hex(text.substr(0, n));
    UsePortableSha256ForTest(true);
    EXPECT_EQ(Sha256Hex(text.substr(0, n)), whole);
    UsePortableSha256ForTest(false);
  }
  for (size_t piece = 1; piece < 140; piece += 3) {
    Sha256 hash;
    for (size_t at = 0; at < text.size(); at += piece) hash.Update(std::string_view(text).substr(at, piece));
    EXPECT_EQ(hash.HexDigest(), Sha256Hex(text));
  }
}

TEST(Crc32c, PublishedValuesAndPieces) {
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(Crc32c(""), 0u);
  const std::string text = RandomText(300, 2);
  for (size_t n = 0; n <= text.size(); ++n) {
    EXPECT_EQ(Crc32c(text.data(), n), Crc32cPortable(text.data(), n));
    EXPECT_EQ(Crc32c(text.data() + n, text.size() - n, Crc32c(text.data(), n)), Crc32c(text));
  }
  // Where three streams are summed side by side and joined: sizes around both block lengths, any alignment and seed.
  const std::string large = RandomText(3 * 3 * 1024 + 3 * 128 + 100, 5);
  for (const size_t block : {3u * 128, 2 * 3u * 128, 3u * 1024, 3u * 1024 + 3 * 128, 2 * 3u * 1024 + 5 * 128, 3 * 3u * 1024}) {
    for (size_t n = block - 9; n <= block + 9; ++n) {
      const size_t from = n % 8;
      const auto seed = static_cast<uint32_t>(n * 2654435761u);
      EXPECT_EQ(Crc32c(large.data() + from, n, seed), Crc32cPortable(large.data() + from, n, seed)) << n;
    }
  }
}

TEST(HashBytes, IsXxh3AndStays) {
  EXPECT_EQ(HashBytes(""), 0x2D06800538D394C2u);  // published; stored by importers
  EXPECT_NE(HashBytes("ab"), HashBytes("ba"));
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

// Fixed for ever: checkpoints hold digests. The values are those of another implementation (PyPI xxhash).
TEST(Digest, ValuesDoNotChange) {
  EXPECT_EQ(WeightDigest({}), "2c0a8a99dc147d5445c3b49d035665b2");
  EXPECT_EQ(WeightDigest(Bytes("plumb")), "58480e2727197451a84da62eff2346cd");
  EXPECT_EQ(WeightDigest(Bytes(std::string((size_t{1} << 20) + 1, 'w'))), "960731c79853d81a85ef259b5ad4d7c4");
}

TEST(Digest, SpeedIsPrinted) {
  const std::string weights(size_t{64} << 20, 'w');
  const auto measure = [&](const char* name, auto work) {
    work();
    const auto begin = std::chrono::steady_clock::now();
    work();
    const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::printf("%s: %.1f GB/s\n", name, static_cast<double>(weights.size()) / s / 1e9);
  };
  uint64_t keep = 0;
  measure("digest", [&] { keep += WeightDigest(Bytes(weights)).size(); });
  measure("crc32c", [&] { keep += Crc32c(weights); });
  measure("sha256", [&] { keep += Sha256Hex(weights).size(); });
  EXPECT_GT(keep, 0u);
}

}  // namespace
}  // namespace plumb
