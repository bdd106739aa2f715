// A block of weights as what has changed in it since an earlier version, exactly.
//
//   first byte   what follows
//   0 whole      the block's bytes
//   1 places     how many words changed, each one's distance from the one before, their values
//   2 marks      a bit a word, which says whether it changed, their values
//
// A word is two bytes: a number in bfloat16, or one half of a number in float32, of which a small
// step mostly changes the lower one. Counts and distances are LEB128, values little-endian; an odd
// last byte is a word of its own. EncodeBlock writes the shortest of the three: small steps leave
// most numbers in bfloat16 as they were, but few whole blocks.
// Thread safety: pure functions. Units: bytes. Errors: kCorruption for bytes that are none of
// these, or of a block of another size; nothing is read or written outside of what was given.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace plumb {

inline constexpr char kRawBlock = 0;  // the first byte of one that comes whole

// `base`: the same block of the earlier version; empty, or of another size: there is none.
std::string EncodeBlock(std::span<const std::byte> block, std::span<const std::byte> base);

// What EncodeBlock says of a block that is as it was.
std::string SameBlock();

// The bytes of a block that came whole; empty: it came as what has changed.
std::string_view WholeBlock(std::string_view encoded);

// Writes the block to `into`, which has its size. `base` as above; what was encoded without one
// needs none.
void DecodeBlock(std::string_view encoded, std::span<const std::byte> base,
                 std::span<std::byte> into);

}  // namespace plumb
