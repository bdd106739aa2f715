// The published digest of weights: a tree hash over fixed 1 MiB blocks.
//
//   leaf i = XXH3-128(block i)          block i = bytes [i MiB, min((i+1) MiB, total))
//   digest = XXH3-128(leaf 0 | leaf 1 | ... | total as 8 little-endian bytes)
//   leaves as 16 big-endian bytes
//
// Goals: fast (memory speed), combinable: whoever holds whole blocks computes their leaves, and
// only leaves travel. Non-goal: resistance against somebody who wants a collision; checkpoints
// carry SHA-256 for that. Besides it HashBytes, the same family of hashes for telling rows of data
// apart.
// Thread safety: pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb {

// The digest of a flat weight buffer as lower-case hex.
using Digest = std::string;

inline constexpr size_t kDigestBlockBytes = size_t{1} << 20;
using BlockHash = std::array<uint8_t, 16>;

// at most kDigestBlockBytes
BlockHash HashBlock(std::span<const std::byte> block);
// of a shard that starts at a block
std::vector<BlockHash> HashBlocks(std::span<const std::byte> bytes);
Digest CombineBlocks(std::span<const BlockHash> blocks, uint64_t total_bytes);

// Of a model that consists of several named sets of weights: WeightDigest of "name digest\n" a set.
// One set: its own digest.
Digest CombineSets(std::span<const std::pair<std::string, Digest>> sets);

// XXH3-64. Equal on every machine: it may be stored. Two of 100 million different rows share one
// with a chance of 3 in 10,000.
uint64_t HashBytes(std::string_view bytes);

// 32 lower-case hex digits.
Digest WeightDigest(std::span<const std::byte> bytes);

}  // namespace plumb
