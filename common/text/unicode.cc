#include "common/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

namespace plumb {
namespace {

constexpr char32_t kCodes = 0x110000;

// Letters and numbers of Unicode 16, which the reference knows. utf8proc 2.8, Debian 12's, has
// Unicode 15; a newer one finds them itself, and is asked first.
struct Range {
  char32_t first, last;
  CharacterClass kind;
};
constexpr CharacterClass kL = CharacterClass::kLetter, kN = CharacterClass::kNumber;
constexpr Range kNewer[] = {
    {0x1C89, 0x1C8A, kL},   {0xA7CB, 0xA7CD, kL},   {0xA7DA, 0xA7DC, kL},   {0x105C0, 0x105F3, kL},
    {0x10D40, 0x10D49, kN}, {0x10D4A, 0x10D65, kL}, {0x10D6F, 0x10D85, kL}, {0x10EC2, 0x10EC4, kL},
    {0x11380, 0x11389, kL}, {0x1138B, 0x1138B, kL}, {0x1138E, 0x1138E, kL}, {0x11390, 0x113B5, kL},
    {0x113B7, 0x113B7, kL}, {0x113D1, 0x113D1, kL}, {0x113D3, 0x113D3, kL}, {0x116D0, 0x116E3, kN},
    {0x11BC0, 0x11BE0, kL}, {0x11BF0, 0x11BF9, kN}, {0x13460, 0x143FA, kL}, {0x16100, 0x1611D, kL},
    {0x16130, 0x16139, kN}, {0x16D40, 0x16D6C, kL}, {0x16D70, 0x16D79, kN}, {0x18CFF, 0x18CFF, kL},
    {0x1CCF0, 0x1CCF9, kN}, {0x1E5D0, 0x1E5ED, kL}, {0x1E5F0, 0x1E5F0, kL}, {0x1E5F1, 0x1E5FA, kN},
    {0x2EBF0, 0x2EE5D, kL},
};

utf8proc_category_t CategoryOf(char32_t code) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

CharacterClass NewerClassOf(char32_t code) {
  const Range* it = std::lower_bound(std::begin(kNewer), std::end(kNewer), code,
                                     [](const Range& r, char32_t c) { return r.last < c; });
  return it != std::end(kNewer) && it->first <= code ? it->kind : CharacterClass::kOther;
}

}  // namespace

Character DecodeUtf8(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) -> uint32_t {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
  };
  const auto tail = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const uint32_t b = byte(at);
  if (b < 0x80) return {b, 1};
  if (b >= 0xC2 && b < 0xE0 && tail(at + 1)) return {(b & 0x1F) << 6 | (byte(at + 1) & 0x3F), 2};
  if (b >= 0xE0 && b < 0xF0 && tail(at + 1) && tail(at + 2)) {
    const char32_t code = (b & 0x0F) << 12 | (byte(at + 1) & 0x3F) << 6 | (byte(at + 2) & 0x3F);
    if (code >= 0x800 && (code < 0xD800 || code >= 0xE000)) return {code, 3};
  }
  if (b >= 0xF0 && b < 0xF5 && tail(at + 1) && tail(at + 2) && tail(at + 3)) {
    const char32_t code = (b & 0x07) << 18 | (byte(at + 1) & 0x3F) << 12 |
                          (byte(at + 2) & 0x3F) << 6 | (byte(at + 3) & 0x3F);
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
  switch (CategoryOf(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return CharacterClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return CharacterClass::kNumber;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return CharacterClass::kSpace;
    case UTF8PROC_CATEGORY_CC:
      return (code >= '\t' && code <= '\r') || code == 0x85 ? CharacterClass::kSpace
                                                            : CharacterClass::kOther;
    case UTF8PROC_CATEGORY_CN: return NewerClassOf(code);
    default: return CharacterClass::kOther;
  }
}

bool IsMark(char32_t code) {
  const utf8proc_category_t category = CategoryOf(code);
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
         category == UTF8PROC_CATEGORY_ME;
}

bool IsWordCharacter(char32_t code) {
  if (ClassOf(code) == CharacterClass::kLetter || IsMark(code)) return true;
  const utf8proc_category_t category = CategoryOf(code);
  if (category == UTF8PROC_CATEGORY_CN) return NewerClassOf(code) == CharacterClass::kNumber;
  // Letters in circles and squares are alphabetic without being letters; joiners belong to words.
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_PC || code == 0x200C || code == 0x200D ||
         (code >= 0x24B6 && code <= 0x24E9) || (code >= 0x1F130 && code <= 0x1F149) ||
         (code >= 0x1F150 && code <= 0x1F169) || (code >= 0x1F170 && code <= 0x1F189);
}

char32_t LowerCase(char32_t code) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code)));
}

bool IsCaseIgnorable(char32_t code) {
  switch (CategoryOf(code)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default:
      return std::u32string_view(
                 U"'.:\u00B7\u0387\u055F\u05F4\u2018\u2019\u2024\u2027\uFE13"
                 U"\uFE52\uFE55\uFF07\uFF0E\uFF1A")
                 .find(code) != std::u32string_view::npos;
  }
}

bool RepairUtf8(std::string& text) {
  if (IsUtf8(text)) return false;
  std::string out;
  out.reserve(text.size() + 16);
  for (size_t i = 0; i < text.size();) {
    const Character c = DecodeUtf8(text, i);
    if (c.code == kNotACharacter) {
      out += "\xEF\xBF\xBD";
    } else {
      out.append(text, i, c.bytes);
    }
    i += c.bytes;
  }
  text = std::move(out);
  return true;
}

std::string ComposeNfc(std::string_view text) {
  // Below U+0300 nothing combines and every character is its own normal form.
  if (std::all_of(text.begin(), text.end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0xCC; })) {
    return std::string(text);
  }
  std::string out;
  out.reserve(text.size());
  std::vector<utf8proc_int32_t> codes;  // decomposed
  const auto compose = [&] {
    // utf8proc's own sorting of marks is quadratic in their run: in order, it has nothing to do.
    const auto combining = [](utf8proc_int32_t c) {
      return utf8proc_get_property(c)->combining_class;
    };
    for (auto begin = codes.begin(); begin != codes.end();) {
      auto end = begin;
      while (end != codes.end() && combining(*end) != 0) ++end;
      std::stable_sort(begin, end, [&](auto a, auto b) { return combining(a) < combining(b); });
      begin = end == codes.end() ? end : end + 1;
    }
    codes.resize(static_cast<size_t>(utf8proc_normalize_utf32(
        codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE))));
    for (const utf8proc_int32_t c : codes) AppendUtf8(static_cast<char32_t>(c), out);
    codes.clear();
  };
  for (size_t at = 0; at < text.size();) {
    const Character c = DecodeUtf8(text, at);
    if (c.code == kNotACharacter) {
      compose();
      out += text[at];
    } else {
      utf8proc_int32_t parts[8];  // four is the most there is
      int boundary = 0;
      const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.code), parts, 8,
                                             UTF8PROC_DECOMPOSE, &boundary);
      codes.insert(codes.end(), parts, parts + n);
    }
    at += c.bytes;
  }
  compose();
  return out;
}

}  // namespace plumb
