#include "common/text/tokenizer/split_pattern.h"

#include <utility>

#include "common/text/character_table.h"
#include "common/text/unicode.h"

namespace plumb {
namespace {

constexpr uint8_t kLetterOrNumber = kAnyLetter | kNumberCharacter;
// Letters that begin a capitalised word and letters that go on with it; both: those without case.
constexpr uint8_t kOpens = kUpperLetter | kOtherLetter | kMarkCharacter;
constexpr uint8_t kGoesOn = kLowerLetter | kOtherLetter | kMarkCharacter;
constexpr int kAnyNumber = 1 << 30;

class Scanner {
 public:
  Scanner(const uint8_t* table, std::string_view text) : table_(table), text_(text) {}

  bool AtEnd(size_t at) const { return at >= text_.size(); }
  Character At(size_t at) const {
    const auto byte = static_cast<unsigned char>(text_[at]);
    return byte < 0x80 ? Character{byte, 1} : DecodeUtf8(text_, at);
  }
  uint8_t Bits(char32_t code) const { return BitsOf(table_, code); }
  uint8_t BitsAt(size_t at) const { return Bits(At(at).code); }
  bool Is(size_t at, char c) const { return !AtEnd(at) && text_[at] == c; }
  bool LineEnd(size_t at) const { return Is(at, '\r') || Is(at, '\n'); }

  // Past the characters in a row from `at` that have one of `bits`.
  size_t Run(size_t at, uint8_t bits) const {
    while (!AtEnd(at)) {
      const Character c = At(at);
      if ((Bits(c.code) & bits) == 0) break;
      at += c.bytes;
    }
    return at;
  }
  // ... that have none of them.
  size_t RunWithout(size_t at, uint8_t bits) const {
    while (!AtEnd(at)) {
      const Character c = At(at);
      if ((Bits(c.code) & bits) != 0) break;
      at += c.bytes;
    }
    return at;
  }
  size_t RunOfCodes(size_t at, bool (*has)(char32_t)) const {
    while (!AtEnd(at)) {
      const Character c = At(at);
      if (!has(c.code)) break;
      at += c.bytes;
    }
    return at;
  }
  size_t Numbers(size_t at, int most) const {
    for (int n = 0; n < most && !AtEnd(at); ++n) {
      const Character c = At(at);
      if ((Bits(c.code) & kNumberCharacter) == 0) break;
      at += c.bytes;
    }
    return at;
  }
  size_t LineEnds(size_t at, bool slash = false) const {
    while (LineEnd(at) || (slash && Is(at, '/'))) ++at;
    return at;
  }
  // Length of 's 't 're 've 'm 'll 'd at `at`; 0 if none.
  size_t Contraction(size_t at, bool any_case) const {
    if (!Is(at, '\'')) return 0;
    const auto letter = [&](size_t i) -> char {
      if (AtEnd(i)) return 0;
      const char c = text_[i];
      return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    };
    const char first = letter(at + 1), second = first ? letter(at + 2) : 0;
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
    if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
        (first == 'l' && second == 'l'))
      return 3;
    if (any_case && text_.substr(at + 1).starts_with("\u017F")) return 3;  // the long s folds to s
    return 0;
  }
  // \s+(?!\S)|\s+: all of the white space at the end of the text, else all but the last character,
  // which may belong to the next word; a single one is a word.
  size_t Spaces(size_t at) const {
    const size_t end = Run(at, kSpaceCharacter);
    if (AtEnd(end)) return end;
    size_t last = at;
    for (size_t i = at; i < end; i += At(i).bytes) last = i;
    return last == at ? end : last;
  }
  // \s*[\r\n]+|\s+(?!\S)|\s+
  size_t SpacesOrLines(size_t at) const {
    const size_t end = Run(at, kSpaceCharacter);
    const size_t newline = text_.substr(at, end - at).find_last_of("\r\n");
    return newline != std::string_view::npos ? at + newline + 1 : Spaces(at);
  }

 private:
  const uint8_t* table_;
  std::string_view text_;
};

size_t Gpt2(const uint8_t* table, std::string_view text, size_t at) {
  const Scanner s(table, text);
  if (const size_t n = s.Contraction(at, false)) return at + n;
  uint8_t bits = s.BitsAt(at);
  size_t from = at;
  if (text[at] == ' ' && !s.AtEnd(at + 1)) {
    const uint8_t next = s.BitsAt(at + 1);
    if ((next & kSpaceCharacter) == 0) {
      bits = next;
      from = at + 1;
    }
  }
  if (bits & kAnyLetter) return s.Run(from, kAnyLetter);
  if (bits & kNumberCharacter) return s.Run(from, kNumberCharacter);
  if (bits & kSpaceCharacter) return s.Spaces(at);
  return s.RunWithout(from, kLetterOrNumber | kSpaceCharacter);
}

// GPT-4, Llama 3, Qwen: `kLetters` are what words are made of.
template <int kDigits, uint8_t kLetters>
size_t Gpt4(const uint8_t* table, std::string_view text, size_t at) {
  const Scanner s(table, text);
  if (const size_t n = s.Contraction(at, true)) return at + n;
  const Character c = s.At(at);
  const uint8_t bits = s.Bits(c.code);
  if (bits & kLetters) return s.Run(at, kLetters);
  if (bits & kNumberCharacter) return s.Numbers(at, kDigits);
  const size_t second = at + c.bytes;
  const uint8_t next = s.AtEnd(second) ? uint8_t{kSpaceCharacter} : s.BitsAt(second);
  if (c.code != '\r' && c.code != '\n' && (next & kLetters)) return s.Run(second, kLetters);
  constexpr uint8_t kNotOther = kLetters | kNumberCharacter | kSpaceCharacter;
  if ((bits & kSpaceCharacter) == 0) return s.LineEnds(s.RunWithout(at, kNotOther));
  if (c.code == ' ' && (next & kNotOther) == 0) return s.LineEnds(s.RunWithout(second, kNotOther));
  return s.SpacesOrLines(at);
}

// The end of [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+ at `at`, 0 where it does
// not match; `capitals`: the end of what the first class alone takes.
size_t CasedWord(const Scanner& s, size_t at, size_t* capitals) {
  size_t without_case = 0;  // behind the last character of both classes
  size_t end = at;
  while (!s.AtEnd(end)) {
    const Character c = s.At(end);
    const uint8_t bits = s.Bits(c.code);
    if ((bits & kOpens) == 0) {
      if (bits & kGoesOn) return s.Run(end, kGoesOn);
      break;
    }
    end += c.bytes;
    if (bits & kGoesOn) without_case = end;
  }
  *capitals = end;
  return without_case;
}

// GPT-4o, gpt-oss, Llama 4; without contractions Mistral's Tekken.
template <int kDigits, bool kContractions>
size_t Gpt4o(const uint8_t* table, std::string_view text, size_t at) {
  const Scanner s(table, text);
  const auto word = [&](size_t end) {
    return kContractions ? end + s.Contraction(end, true) : end;
  };
  const Character c = s.At(at);
  const uint8_t bits = s.Bits(c.code);
  const size_t second = at + c.bytes;
  const bool before = (bits & kLetterOrNumber) == 0 && c.code != '\r' && c.code != '\n';
  size_t capitals = at, own = at;
  if (before) {
    if (const size_t end = CasedWord(s, second, &capitals)) return word(end);
  }
  if (const size_t end = CasedWord(s, at, &own)) return word(end);
  if (before && capitals > second) return word(capitals);
  if (own > at) return word(own);
  if (bits & kNumberCharacter) return s.Numbers(at, kDigits);
  constexpr uint8_t kNotOther = kLetterOrNumber | kSpaceCharacter;
  if ((bits & kSpaceCharacter) == 0) return s.LineEnds(s.RunWithout(at, kNotOther), true);
  if (c.code == ' ' && !s.AtEnd(second) && (s.BitsAt(second) & kNotOther) == 0)
    return s.LineEnds(s.RunWithout(second, kNotOther), true);
  return s.SpacesOrLines(at);
}

// DeepSeek V3's third, behind numbers and ideographs.
size_t DeepSeek3(const uint8_t* table, std::string_view text, size_t at) {
  const Scanner s(table, text);
  constexpr uint8_t kWord = kAnyLetter | kMarkCharacter, kSign = kPunctuation | kSymbol;
  const auto ascii_letter = [](char32_t code) {
    return (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z');
  };
  const Character c = s.At(at);
  const uint8_t bits = s.Bits(c.code);
  const size_t second = at + c.bytes;
  if (c.code < 0x80 && (bits & kSign) && !s.AtEnd(second) && ascii_letter(s.At(second).code))
    return s.RunOfCodes(second, ascii_letter);
  const uint8_t next = s.AtEnd(second) ? uint8_t{0} : s.BitsAt(second);
  if ((bits & (kAnyLetter | kSign)) == 0 && c.code != '\r' && c.code != '\n' && (next & kWord))
    return s.Run(second, kWord);
  if (bits & kWord) return s.Run(at, kWord);
  if (bits & kSign) return s.LineEnds(s.Run(at, kSign));
  if (c.code == ' ' && (next & kSign)) return s.LineEnds(s.Run(second, kSign));
  return bits & kSpaceCharacter ? s.SpacesOrLines(at) : at;
}

// Runs of a class.
template <uint8_t kBits, int kMost>
size_t Row(const uint8_t* table, std::string_view text, size_t at) {
  const Scanner s(table, text);
  for (int n = 0; n < kMost && !s.AtEnd(at); ++n) {
    const Character c = s.At(at);
    if ((s.Bits(c.code) & kBits) == 0) break;
    at += c.bytes;
  }
  return at;
}

// \s?\p{L}+ and the like
template <uint8_t kBits>
size_t RowBehindSpace(const uint8_t* table, std::string_view text, size_t at) {
  const Scanner s(table, text);
  const Character c = s.At(at);
  size_t from = at;
  if (s.Bits(c.code) & kSpaceCharacter) from += c.bytes;
  const size_t end = s.Run(from, kBits);
  return end > from ? end : at;
}

size_t LineEnd(const uint8_t* table, std::string_view text, size_t at) {
  return Scanner(table, text).LineEnd(at) ? at + 1 : at;
}

size_t Line(const uint8_t*, std::string_view text, size_t at) {
  const size_t end = text[at] == '\n' ? text.find_first_not_of('\n', at) : text.find('\n', at);
  return end == std::string_view::npos ? text.size() : end;
}

size_t TwoSpaces(const uint8_t*, std::string_view text, size_t at) {
  size_t end = at;
  while (end < text.size() && text[end] == ' ') ++end;
  return end - at >= 2 ? end : at;
}

size_t TwoBlanksOrControl(const uint8_t* table, std::string_view text, size_t at) {
  const Scanner s(table, text);
  const Character c = s.At(at);
  if ((s.Bits(c.code) & kSpaceCharacter) == 0) return at;
  const size_t end = s.Run(at, kSpaceCharacter);
  if (end > at + c.bytes) return end;
  return c.code == '\n' || c.code == '\r' || c.code == '\t' ? at + 1 : at;
}

size_t Control(const uint8_t*, std::string_view text, size_t at) {
  return text[at] == '\n' || text[at] == '\r' || text[at] == '\t' ? at + 1 : at;
}

template <bool kOld>
size_t Ideographs(const uint8_t* table, std::string_view text, size_t at) {
  return Scanner(table, text).RunOfCodes(at, [](char32_t c) {
    if (c >= 0x4E00 && c <= 0x9FA5) return true;
    return kOld ? (c >= 0x0800 && c <= 0x4E00) || (c >= 0xAC00 && c <= 0xD7FF)
                : (c >= 0x3040 && c <= 0x30FF && (c <= 0x309F || c >= 0x30A0));
  });
}

// What tokenizer.json of these families says, letter by letter.
#define PLUMB_CONTRACTION R"((?i:'s|'t|'re|'ve|'m|'ll|'d))"
#define PLUMB_LINES R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define PLUMB_TAIL R"(| ?[^\s\p{L}\p{N}]+[\r\n]*)" PLUMB_LINES
#define PLUMB_SLASH_TAIL R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*)" PLUMB_LINES
#define PLUMB_CL100K_TAIL R"(| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)"
#define PLUMB_WORD PLUMB_CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|)"
#define PLUMB_CL100K_WORD R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|)"
#define PLUMB_LOWER \
  R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
#define PLUMB_UPPER \
  R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
#define PLUMB_CASED PLUMB_LOWER PLUMB_CONTRACTION "?|" PLUMB_UPPER PLUMB_CONTRACTION "?|"

struct Known {
  std::string_view regex;
  size_t (*scan)(const uint8_t*, std::string_view, size_t);
};
constexpr uint8_t kLettersAndMarks = kAnyLetter | kMarkCharacter;
constexpr Known kKnown[] = {
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", Gpt2},
    // Qwen 2 and 3
    {PLUMB_WORD R"(\p{N})" PLUMB_TAIL, Gpt4<1, kAnyLetter>},
    {PLUMB_WORD R"(\p{N}{1})" PLUMB_TAIL, Gpt4<1, kAnyLetter>},
    // Llama 3, GPT-4, GLM 4, OLMo 2, Phi 4
    {PLUMB_WORD R"(\p{N}{1,3})" PLUMB_TAIL, Gpt4<3, kAnyLetter>},
    {PLUMB_WORD R"(\p{N}+)" PLUMB_TAIL, Gpt4<kAnyNumber, kAnyLetter>},
    {PLUMB_CL100K_WORD R"(\p{N}{1,3})" PLUMB_CL100K_TAIL, Gpt4<3, kAnyLetter>},
    {PLUMB_CL100K_WORD R"(\p{N})" PLUMB_CL100K_TAIL, Gpt4<1, kAnyLetter>},
    // Qwen 3.5
    {PLUMB_CONTRACTION
     R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" PLUMB_LINES,
     Gpt4<1, kLettersAndMarks>},
    // GPT-4o, gpt-oss, Llama 4
    {PLUMB_CASED R"(\p{N}{1,3})" PLUMB_SLASH_TAIL, Gpt4o<3, true>},
    {PLUMB_CASED R"(\p{N})" PLUMB_SLASH_TAIL, Gpt4o<1, true>},
    // Mistral's Tekken
    {PLUMB_LOWER "|" PLUMB_UPPER R"(|\p{N})" PLUMB_SLASH_TAIL, Gpt4o<1, false>},
    // DeepSeek V3 and R1
    {R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
     R"( ?[\p{P}\p{S}]+[\r\n]*)" PLUMB_LINES,
     DeepSeek3},
    {"[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+", Ideographs<false>},
    // DeepSeek Coder
    {"[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+", Ideographs<true>},
    {R"(\s?\p{L}+)", RowBehindSpace<kAnyLetter>},
    {R"(\s?\p{P}+)", RowBehindSpace<kPunctuation>},
    {R"([\r\n])", LineEnd},
    // Steps of several
    {R"(\p{N})", Row<kNumberCharacter, 1>},
    {R"(\p{N}{1,3})", Row<kNumberCharacter, 3>},
    {R"(\p{N}+)", Row<kNumberCharacter, kAnyNumber>},
    {R"(\s+)", Row<kSpaceCharacter, kAnyNumber>},
    {R"([^\n]+|[\n]+)", Line},
    {R"( {2,})", TwoSpaces},
    {R"(\s{2,}|[\n\r\t])", TwoBlanksOrControl},
    {R"([\n\r\t])", Control},
    {R"(\n)", [](const uint8_t*, std::string_view text,
                 size_t at) { return text[at] == '\n' ? at + 1 : at; }},
};

}  // namespace

std::optional<SplitPattern> SplitPattern::FromRegex(std::string_view regex) {
  std::string spelled;
  for (const char c : regex) {
    if (c == '\r') spelled += "\\r";
    else if (c == '\n') spelled += "\\n";
    else spelled += c;
  }
  for (const Known& known : kKnown) {
    if (known.regex != spelled) continue;
    SplitPattern out;
    out.scan_ = known.scan;
    out.table_ = CharacterTable();
    return out;
  }
  return std::nullopt;
}

SplitPattern SplitPattern::Literal(std::string text) {
  SplitPattern out;
  out.literal_ = std::move(text);
  return out;
}

}  // namespace plumb
