// Characters of UTF-8 text, the classes that pre-tokenizers ask for, case and normal form C.
//
// utf8proc has the data of Unicode 15; letters and numbers are those of Unicode 16.
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace plumb {

struct Character {
  char32_t code = 0;  // kNotACharacter for a byte that is not UTF-8
  uint8_t bytes = 1;
};

inline constexpr char32_t kNotACharacter = 0xFFFFFFFF;

// The character at `at` (< text.size()). Overlong forms, surrogates and cut sequences are single
// bytes of kNotACharacter.
Character DecodeUtf8(std::string_view text, size_t at);
void AppendUtf8(char32_t code, std::string& out);
bool IsUtf8(std::string_view text);

enum class CharacterClass : uint8_t { kOther = 0, kLetter = 1, kNumber = 2, kSpace = 3 };

// \p{L}, \p{N}, \s (White_Space); the rest, and kNotACharacter, is kOther.
CharacterClass ClassOf(char32_t code);

// \w of Rust's regular expressions: letters, marks, decimal digits, letter-like numbers, connectors
// such as the underscore.
bool IsWordCharacter(char32_t code);
bool IsMark(char32_t code);  // \p{M}

// Of one character; itself where it has none of a single character.
char32_t LowerCase(char32_t code);
// What the rule of the last sigma looks through: marks, signs that stand within words.
bool IsCaseIgnorable(char32_t code);

// Bytes that belong to no character become U+FFFD, one for each longest beginning of a character
// (as Python, Rust and browsers have it); false when nothing had to change.
bool RepairUtf8(std::string& text);

// How many bytes at the end of `text` begin a character that bytes to come may complete: 0 to 3.
size_t OpenBytes(std::string_view text);

enum class NormalForm : uint8_t { kNfc, kNfd, kNfkc, kNfkd };

// Unicode normalisation forms; time n log n in a run of marks. Bytes that are not UTF-8 stay as
// they are and end a sequence.
std::string Normalize(NormalForm form, std::string_view text);
std::string ComposeNfc(std::string_view text);

}  // namespace plumb
