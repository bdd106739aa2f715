#include "policy_model/files/unicode.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "common/error.h"

namespace plumb::policy_model {
namespace {

constexpr char32_t kCodes = 0x110000;
constexpr char32_t kSpaces[] = {0x09,   0x0A,   0x0B,   0x0C,   0x0D,   0x20,   0x85,   0xA0,   0x1680,
                                0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008,
                                0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};

// Letters and numbers of Unicode 15 and 16. PCRE2 10.42, Debian 12's, has Unicode 14: without these, token ids would depend
// on the PCRE2 at hand and differ from the reference's.
struct Range {
  char32_t first, last;
};
constexpr Range kNewLetters[] = {
    {0x1C89, 0x1C8A}, {0xA7CB, 0xA7CD}, {0xA7DA, 0xA7DC}, {0x105C0, 0x105F3}, {0x10D4A, 0x10D65},
    {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x1123F, 0x11240}, {0x11380, 0x11389}, {0x1138B, 0x1138B},
    {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7}, {0x113D1, 0x113D1}, {0x113D3, 0x113D3},
    {0x11BC0, 0x11BE0}, {0x11F02, 0x11F02}, {0x11F04, 0x11F10}, {0x11F12, 0x11F33}, {0x1342F, 0x1342F},
    {0x13441, 0x13446}, {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF},
    {0x1B132, 0x1B132}, {0x1B155, 0x1B155}, {0x1DF25, 0x1DF2A}, {0x1E030, 0x1E06D}, {0x1E4D0, 0x1E4EB},
    {0x1E5D0, 0x1E5ED}, {0x1E5F0, 0x1E5F0}, {0x2B739, 0x2B739}, {0x2EBF0, 0x2EE5D}, {0x31350, 0x323AF},
};
constexpr Range kNewNumbers[] = {
    {0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x11F50, 0x11F59}, {0x16130, 0x16139},
    {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9}, {0x1D2C0, 0x1D2D3}, {0x1E4F0, 0x1E4F9}, {0x1E5F1, 0x1E5FA},
};

// PCRE2 knows the general categories: one search over the text of all characters fills a table, so that scanning a text
// costs an index a character and no regular expression ever runs on it.
void Mark(const std::string& all, const std::vector<char32_t>& code_at, const char* pattern, CharacterClass value,
          std::vector<CharacterClass>& table) {
  int error = 0;
  PCRE2_SIZE where = 0;
  std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error, &where, nullptr),
      pcre2_code_free);
  PLUMB_CHECK(code != nullptr, "PCRE2 without Unicode");
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create_from_pattern(code.get(), nullptr), pcre2_match_data_free);
  PCRE2_SIZE at = 0;
  while (pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(all.data()), all.size(), at, PCRE2_NO_UTF_CHECK, match.get(),
                     nullptr) > 0) {
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match.get());
    for (PCRE2_SIZE i = range[0]; i < range[1]; ++i) {
      if (code_at[i] != kNotACharacter) table[code_at[i]] = value;
    }
    at = range[1];
  }
}

// Marks every code that one of `patterns` matches.
void MarkCodes(std::vector<CharacterClass>& table,
               std::span<const std::pair<const char*, CharacterClass>> patterns) {
  std::string all;
  std::vector<char32_t> code_at;  // by byte: the code that starts there
  for (char32_t code = 0; code < kCodes; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    AppendUtf8(code, all);
    code_at.push_back(code);
    code_at.resize(all.size(), kNotACharacter);
  }
  for (const auto& [pattern, value] : patterns) Mark(all, code_at, pattern, value, table);
}

void MarkRanges(std::vector<CharacterClass>& table, std::span<const Range> ranges,
                CharacterClass value) {
  for (const Range& r : ranges)
    std::fill(table.begin() + r.first, table.begin() + r.last + 1, value);
}

std::vector<CharacterClass> BuildTable() {
  std::vector<CharacterClass> table(kCodes, CharacterClass::kOther);
  constexpr std::pair<const char*, CharacterClass> kPatterns[] = {
      {"\\p{L}+", CharacterClass::kLetter}, {"\\p{N}+", CharacterClass::kNumber}};
  MarkCodes(table, kPatterns);
  MarkRanges(table, kNewLetters, CharacterClass::kLetter);
  MarkRanges(table, kNewNumbers, CharacterClass::kNumber);
  for (char32_t code : kSpaces) table[code] = CharacterClass::kSpace;
  return table;
}

std::vector<bool> BuildWordTable() {
  std::vector<CharacterClass> table(kCodes, CharacterClass::kOther);
  constexpr std::pair<const char*, CharacterClass> kPattern[] = {
      {"[\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}]+", CharacterClass::kLetter}};
  // Letters in circles and squares are alphabetic without being letters; joiners belong to words.
  constexpr Range kMore[] = {{0x200C, 0x200D},
                             {0x24B6, 0x24E9},
                             {0x1F130, 0x1F149},
                             {0x1F150, 0x1F169},
                             {0x1F170, 0x1F189}};
  MarkCodes(table, kPattern);
  for (const std::span<const Range> ranges :
       {std::span<const Range>(kNewLetters), std::span<const Range>(kNewNumbers),
        std::span<const Range>(kMore)}) {
    MarkRanges(table, ranges, CharacterClass::kLetter);
  }
  std::vector<bool> words(kCodes);
  for (size_t i = 0; i < kCodes; ++i) words[i] = table[i] == CharacterClass::kLetter;
  return words;
}

}  // namespace

Character DecodeUtf8(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) -> uint32_t { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0; };
  const auto tail = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const uint32_t b = byte(at);
  if (b < 0x80) return {b, 1};
  if (b >= 0xC2 && b < 0xE0 && tail(at + 1)) return {(b & 0x1F) << 6 | (byte(at + 1) & 0x3F), 2};
  if (b >= 0xE0 && b < 0xF0 && tail(at + 1) && tail(at + 2)) {
    const char32_t code = (b & 0x0F) << 12 | (byte(at + 1) & 0x3F) << 6 | (byte(at + 2) & 0x3F);
    if (code >= 0x800 && (code < 0xD800 || code >= 0xE000)) return {code, 3};
  }
  if (b >= 0xF0 && b < 0xF5 && tail(at + 1) && tail(at + 2) && tail(at + 3)) {
    const char32_t code =
        (b & 0x07) << 18 | (byte(at + 1) & 0x3F) << 12 | (byte(at + 2) & 0x3F) << 6 | (byte(at + 3) & 0x3F);
    if (code >= 0x10000 && code < kCodes) return {code, 4};
  }
  return {kNotACharacter, 1};
}

bool IsUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Character c = DecodeUtf8(text, at);
    if (c.code == kNotACharacter) return false;
    at += c.bytes;
  }
  return true;
}

void AppendUtf8(char32_t code, std::string& out) {
  const auto put = [&](uint32_t b) { out.push_back(static_cast<char>(b)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

CharacterClass ClassOf(char32_t code) {
  static const std::vector<CharacterClass> table = BuildTable();
  return code < kCodes ? table[code] : CharacterClass::kOther;
}

bool IsWordCharacter(char32_t code) {
  static const std::vector<bool> words = BuildWordTable();
  return code < kCodes && words[code];
}

}  // namespace plumb::policy_model
