// The digest under which weights are published: a tree hash over fixed blocks.
//
// Each block of kDigestBlock bytes (the last may be shorter) is hashed by itself with XXH3-128; the digest is XXH3-128
// over the block hashes in order and the total size. So shards hash their blocks where they are and only the hashes
// travel. Not cryptographic: it finds transport and memory errors; SHA-256 stands in manifests.
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <span>

#include "common/trajectory.h"

namespace plumb {

inline constexpr size_t kDigestBlock = size_t{1} << 20;

Digest WeightDigest(std::span<const std::byte> flat);

}  // namespace plumb
