#include "common/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <mutex>
#include <utility>
#include <vector>

#include "common/text/character_table.h"

namespace plumb {
namespace {

utf8proc_category_t CategoryOf(char32_t code) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

// Of the bytes at `at`, which are no character, those that begin one.
size_t BrokenBytes(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) -> uint32_t {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
  };
  const uint32_t lead = byte(at), second = byte(at + 1);
  const auto tail = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  if (lead >= 0xE0 && lead < 0xF0) {
    const bool fits =
        tail(at + 1) && (lead != 0xE0 || second >= 0xA0) && (lead != 0xED || second < 0xA0);
    return fits ? 2 : 1;
  }
  if (lead >= 0xF0 && lead < 0xF5) {
    const bool fits =
        tail(at + 1) && (lead != 0xF0 || second >= 0x90) && (lead != 0xF4 || second < 0x90);
    return fits ? (tail(at + 2) ? 3 : 2) : 1;
  }
  return 1;
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
    if (code >= 0x10000 && code < kCodePoints) return {code, 4};
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
  static const uint8_t* const kTable = CharacterTable();
  const uint8_t bits = BitsOf(kTable, code);
  if (bits & kAnyLetter) return CharacterClass::kLetter;
  if (bits & kNumberCharacter) return CharacterClass::kNumber;
  return bits & kSpaceCharacter ? CharacterClass::kSpace : CharacterClass::kOther;
}

bool IsMark(char32_t code) {
  const utf8proc_category_t category = CategoryOf(code);
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
         category == UTF8PROC_CATEGORY_ME;
}

bool IsWordCharacter(char32_t code) {
  if (ClassOf(code) == CharacterClass::kLetter || IsMark(code)) return true;
  const utf8proc_category_t category = CategoryOf(code);
  if (category == UTF8PROC_CATEGORY_CN) return ClassOf(code) == CharacterClass::kNumber;
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
      i += BrokenBytes(text, i);
    } else {
      out.append(text, i, c.bytes);
      i += c.bytes;
    }
  }
  text = std::move(out);
  return true;
}

size_t OpenBytes(std::string_view text) {
  const size_t longest = std::min<size_t>(3, text.size());
  for (size_t n = 1; n <= longest; ++n) {
    const auto byte = static_cast<unsigned char>(text[text.size() - n]);
    if (byte < 0x80) return 0;
    if (byte < 0xC0) continue;  // within a character
    const size_t wanted = byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : byte < 0xF8 ? 4 : 0;
    return n < wanted ? n : 0;
  }
  return 0;
}

namespace {

// Of each character below U+40000 a bit for each form: whether it may change there, itself or with
// what stands before it. What lies above has no decomposition and combines with nothing.
constexpr char32_t kMayChange = 0x40000;

// What decomposes or combines since Unicode 10. The reference's forms are those of Unicode 9, and a
// vocabulary was made with them: here, too, these characters change nothing.
struct Range {
  char32_t first, last;
};
constexpr Range kSinceUnicode10[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},
    {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x10781, 0x10785}, {0x10787, 0x107B0},
    {0x107B2, 0x107BA}, {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B},
    {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11938, 0x11938}, {0x1193D, 0x1193E},
    {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47},
    {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97},
    {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E030, 0x1E06D}, {0x1E08F, 0x1E08F},
    {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
    {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};

bool IsSinceUnicode10(char32_t code) {
  const Range* it = std::lower_bound(std::begin(kSinceUnicode10), std::end(kSinceUnicode10), code,
                                     [](const Range& r, char32_t c) { return r.last < c; });
  return it != std::end(kSinceUnicode10) && it->first <= code;
}

uint8_t BitOf(NormalForm form) { return static_cast<uint8_t>(1 << static_cast<int>(form)); }

utf8proc_option_t OptionsOf(NormalForm form) {
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                        (compatible ? UTF8PROC_COMPAT : 0));
}

bool Composes(NormalForm form) { return form == NormalForm::kNfc || form == NormalForm::kNfkc; }

constexpr uint8_t kComposed =
    1 << static_cast<int>(NormalForm::kNfc) | 1 << static_cast<int>(NormalForm::kNfkc);
constexpr size_t kMostParts = 32;  // of one character; 18 is the most there is

size_t Decompose(char32_t code, NormalForm form, utf8proc_int32_t (&parts)[kMostParts]) {
  int boundary = 0;
  return static_cast<size_t>(utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), parts,
                                                     kMostParts, OptionsOf(form), &boundary));
}

void Compose(std::vector<utf8proc_int32_t>& codes, NormalForm form) {
  // utf8proc's own sorting of marks is quadratic in their run: in order, it has nothing to do.
  const auto combining = [](utf8proc_int32_t c) {
    const int known = utf8proc_get_property(c)->combining_class;
    return known != 0 && IsSinceUnicode10(static_cast<char32_t>(c)) ? 0 : known;
  };
  for (auto begin = codes.begin(); begin != codes.end();) {
    auto end = begin;
    while (end != codes.end() && combining(*end) != 0) ++end;
    std::stable_sort(begin, end, [&](auto a, auto b) { return combining(a) < combining(b); });
    begin = end == codes.end() ? end : end + 1;
  }
  if (!Composes(form)) return;
  codes.resize(static_cast<size_t>(utf8proc_normalize_utf32(
      codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE))));
}

const std::array<uint8_t, kMayChange>& MayChange() {
  static std::array<uint8_t, kMayChange> table;
  static std::once_flag once;
  std::call_once(once, [] {
    utf8proc_int32_t parts[kMostParts];
    for (char32_t code = 0; code < kMayChange; ++code) {
      if (IsSinceUnicode10(code)) continue;
      const auto* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(code));
      if (property->combining_class != 0 || (code >= 0x1161 && code <= 0x1175) ||
          (code >= 0x11A8 && code <= 0x11C2))
        table[code] = 0xF;
      const bool hangul = code >= 0xAC00 && code < 0xD7A4;
      if (property->decomp_seqindex == UINT16_MAX && !hangul) continue;
      for (const NormalForm form :
           {NormalForm::kNfc, NormalForm::kNfd, NormalForm::kNfkc, NormalForm::kNfkd}) {
        const size_t n = Decompose(code, form, parts);
        if (form == NormalForm::kNfc) {
          // What it is made of may compose with what stands before.
          for (size_t i = 1; i < n; ++i) {
            const auto part = static_cast<size_t>(parts[i]);
            if (part < kMayChange) table[part] |= kComposed;
          }
        }
        std::vector<utf8proc_int32_t> codes(parts, parts + n);
        Compose(codes, form);
        if (codes.size() != 1 || codes[0] != static_cast<utf8proc_int32_t>(code))
          table[code] |= BitOf(form);
      }
    }
  });
  return table;
}

}  // namespace

std::string Normalize(NormalForm form, std::string_view text) {
  static const auto& kTable = MayChange();
  const auto stays = [&](char32_t code) {
    return code >= kMayChange || (kTable[code] & BitOf(form)) == 0;
  };
  std::string out;
  out.reserve(text.size());
  std::vector<utf8proc_int32_t> codes;  // decomposed
  size_t done = 0;                      // of `text`, what is in `out`
  size_t before = 0;                    // where the last character that stays begins
  for (size_t at = 0; at < text.size();) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const Character c = byte < 0x80 ? Character{byte, 1} : DecodeUtf8(text, at);
    if (stays(c.code)) {
      before = at;
      at += c.bytes;
      continue;
    }
    // From the character before it, with which it may combine, to the next that stays.
    const size_t begin = std::max(done, before);
    out += text.substr(done, begin - done);
    const auto flush = [&] {
      Compose(codes, form);
      for (const utf8proc_int32_t part : codes) AppendUtf8(static_cast<char32_t>(part), out);
      codes.clear();
    };
    size_t end = begin;
    while (end < text.size()) {
      const Character d = DecodeUtf8(text, end);
      if (end > at && stays(d.code)) break;
      if (d.code == kNotACharacter) {
        flush();
        out += text[end];
      } else {
        utf8proc_int32_t parts[kMostParts] = {static_cast<utf8proc_int32_t>(d.code)};
        const size_t n = IsSinceUnicode10(d.code) ? 1 : Decompose(d.code, form, parts);
        codes.insert(codes.end(), parts, parts + n);
      }
      end += d.bytes;
    }
    flush();
    done = before = at = end;
  }
  out += text.substr(done);
  return out;
}

std::string ComposeNfc(std::string_view text) { return Normalize(NormalForm::kNfc, text); }

}  // namespace plumb
