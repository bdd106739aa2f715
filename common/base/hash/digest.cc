#include "common/base/hash/digest.h"

#include <algorithm>

#include "common/base/error.h"
#include "common/base/hash/digest_avx2.h"
#include "common/base/text.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace plumb {
namespace {

BlockHash Canonical(XXH128_hash_t hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  BlockHash out;
  std::copy(std::begin(canonical.digest), std::end(canonical.digest), out.begin());
  return out;
}

}  // namespace

BlockHash HashBlock(std::span<const std::byte> block) {
  PLUMB_CHECK(block.size() <= kDigestBlockBytes, std::to_string(block.size()));
  return Canonical(XXH3_128bits(block.data(), block.size()));
}

std::vector<BlockHash> HashBlocks(std::span<const std::byte> bytes) {
  std::vector<BlockHash> blocks;
  blocks.reserve(bytes.size() / kDigestBlockBytes + 1);
  for (size_t at = 0; at < bytes.size(); at += kDigestBlockBytes) {
    blocks.push_back(HashBlock(bytes.subspan(at, std::min(kDigestBlockBytes, bytes.size() - at))));
  }
  return blocks;
}

Digest CombineBlocks(std::span<const BlockHash> blocks, uint64_t total_bytes) {
  PLUMB_CHECK(
      blocks.size() == (total_bytes + kDigestBlockBytes - 1) / kDigestBlockBytes,
      std::to_string(blocks.size()) + " blocks for " + std::to_string(total_bytes) + " bytes");
  std::vector<uint8_t> top;
  top.reserve(blocks.size() * sizeof(BlockHash) + 8);
  for (const BlockHash& block : blocks) top.insert(top.end(), block.begin(), block.end());
  for (int shift = 0; shift < 64; shift += 8)
    top.push_back(static_cast<uint8_t>(total_bytes >> shift));
  const BlockHash hash = Canonical(XXH3_128bits(top.data(), top.size()));
  return Hex(std::as_bytes(std::span(hash)));
}

uint64_t HashBytes(std::string_view bytes) {
#if defined(__x86_64__)
  static const bool wide = __builtin_cpu_supports("avx2");
  if (wide) return HashBytesAvx2(bytes.data(), bytes.size());
#endif
  return XXH3_64bits(bytes.data(), bytes.size());
}

Digest WeightDigest(std::span<const std::byte> bytes) {
  return CombineBlocks(HashBlocks(bytes), bytes.size());
}

Digest CombineSets(std::span<const std::pair<std::string, Digest>> sets) {
  if (sets.size() == 1) return sets[0].second;
  std::string all;
  for (const auto& [name, digest] : sets) all += name + " " + digest + "\n";
  return WeightDigest(std::as_bytes(std::span<const char>(all)));
}

}  // namespace plumb
