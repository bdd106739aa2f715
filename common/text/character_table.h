// What split patterns ask of a character, as bits in a table.
//
// Purpose: one look-up a character instead of a call into utf8proc. Categories are those of Unicode
// 16, which Hugging Face's tokenizers 0.23 know; utf8proc of Debian 12 has 15, the rest is here.
// Thread safety: the table is filled once, at the first use; after that it is only read.
// Ownership: static, 1.1 MB of address space, of which what has characters is touched.
#pragma once

#include <cstdint>

namespace plumb {

enum CharacterBits : uint8_t {
  kLowerLetter = 1,  // Ll
  kUpperLetter = 2,  // Lu, Lt
  kOtherLetter = 4,  // Lm, Lo
  kMarkCharacter = 8,
  kNumberCharacter = 16,
  kSpaceCharacter = 32,  // White_Space
  kPunctuation = 64,
  kSymbol = 128,
  kAnyLetter = kLowerLetter | kUpperLetter | kOtherLetter,
};

inline constexpr char32_t kCodePoints = 0x110000;

// kCodePoints entries. None of the bits: controls, formats, private use, unassigned.
const uint8_t* CharacterTable();

inline uint8_t BitsOf(const uint8_t* table, char32_t code) {
  return code < kCodePoints ? table[code] : 0;
}

}  // namespace plumb
