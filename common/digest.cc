#include "common/digest.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace plumb {

Digest WeightDigest(std::span<const std::byte> flat) {
  std::vector<XXH128_canonical_t> blocks;
  blocks.reserve(flat.size() / kDigestBlock + 2);
  for (size_t at = 0; at < flat.size(); at += kDigestBlock) {
    const size_t n = std::min(kDigestBlock, flat.size() - at);
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(flat.data() + at, n));
    blocks.push_back(canonical);
  }
  XXH128_canonical_t size{};
  for (int i = 0; i < 8; ++i) size.digest[i] = static_cast<unsigned char>(uint64_t{flat.size()} >> (8 * i));
  blocks.push_back(size);
  XXH128_canonical_t root;
  XXH128_canonicalFromHash(&root, XXH3_128bits(blocks.data(), blocks.size() * sizeof(XXH128_canonical_t)));
  static constexpr char kHex[] = "0123456789abcdef";
  Digest out;
  for (unsigned char byte : root.digest) {
    out += kHex[byte >> 4];
    out += kHex[byte & 15];
  }
  return out;
}

}  // namespace plumb
