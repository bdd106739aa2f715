// Characters of UTF-8 text and the classes that pre-tokenizers ask for.
//
// Thread safety: the tables are built once, on first use, and const from then on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace plumb::policy_model {

struct Character {
  char32_t code = 0;  // kNotACharacter for a byte that is not UTF-8
  uint8_t bytes = 1;
};

inline constexpr char32_t kNotACharacter = 0xFFFFFFFF;

// The character at `at` (< text.size()). Overlong forms, surrogates and cut sequences are single bytes of kNotACharacter.
Character DecodeUtf8(std::string_view text, size_t at);
void AppendUtf8(char32_t code, std::string& out);
bool IsUtf8(std::string_view text);

enum class CharacterClass : uint8_t { kOther = 0, kLetter = 1, kNumber = 2, kSpace = 3 };

// \p{L}, \p{N}, \s (White_Space); the rest, and kNotACharacter, is kOther.
CharacterClass ClassOf(char32_t code);

// \w of Rust's regular expressions: letters, marks, decimal digits, letter-like numbers, connectors
// such as the underscore.
bool IsWordCharacter(char32_t code);

}  // namespace plumb::policy_model
