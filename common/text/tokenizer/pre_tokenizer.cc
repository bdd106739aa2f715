#include "common/text/tokenizer/pre_tokenizer.h"

#include <utility>

#include "common/base/error.h"
#include "common/text/character_table.h"
#include "common/text/unicode.h"

namespace plumb {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string TextOf(const Json& j, const char* key, const char* otherwise) {
  return j.is_object() && j.contains(key) && j[key].is_string() ? j[key].get<std::string>()
                                                                : otherwise;
}

bool Flag(const Json& j, const char* key, bool otherwise) {
  return j.contains(key) && j[key].is_boolean() ? j[key].get<bool>() : otherwise;
}

bool IsAsciiSign(char32_t c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
         (c >= '{' && c <= '~');
}

}  // namespace

// Reads steps one after the other.
struct PreTokenizer::Reader {
  PreTokenizer& out;
  const std::string& where;

  [[noreturn]] void Unsupported(const std::string& what) const {
    throw Error(ErrorCode::kUnsupported, "pre_tokenizer: " + what + " is not known here", where);
  }
  [[noreturn]] void Corrupt(const std::string& what) const {
    throw Error(ErrorCode::kCorruption, "pre_tokenizer: " + what, where);
  }
  Behavior BehaviorOf(const Json& j, const char* otherwise) const {
    const std::string name = TextOf(j, "behavior", otherwise);
    if (name == "Isolated") return Behavior::kIsolated;
    if (name == "Removed") return Behavior::kRemoved;
    if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
    if (name == "MergedWithNext") return Behavior::kMergedWithNext;
    if (name == "Contiguous") return Behavior::kContiguous;
    Unsupported("behavior '" + name + "'");
  }
  SplitPattern PatternOf(std::string_view regex) const {
    if (auto pattern = SplitPattern::FromRegex(regex)) return *std::move(pattern);
    Unsupported("the pattern " + std::string(regex.substr(0, 400)));
  }

  void Read(const Json& j) {
    const std::string type = TextOf(j, "type", "?");
    if (type == "Sequence") {
      if (!j.contains("pretokenizers") || !j["pretokenizers"].is_array())
        Corrupt("a Sequence without pretokenizers");
      for (const Json& inner : j["pretokenizers"]) Read(inner);
      return;
    }
    if (out.byte_level_) Unsupported("'" + type + "' after ByteLevel");
    Step step;
    if (type == "Split") {
      ReadSplit(j, step);
    } else if (type == "ByteLevel") {
      ReadByteLevel(j);
      return;
    } else if (type == "Metaspace") {
      ReadMetaspace(j, step);
    } else if (type == "Digits") {
      step.kind = Kind::kBits;
      step.bits = kNumberCharacter;
      if (!Flag(j, "individual_digits", false)) step.behavior = Behavior::kContiguous;
    } else if (type == "Punctuation") {
      step.kind = Kind::kBits;
      step.bits = kPunctuation;
      step.ascii_signs = true;
      step.behavior = BehaviorOf(j, "Isolated");
    } else if (type == "WhitespaceSplit") {
      step.kind = Kind::kBits;
      step.bits = kSpaceCharacter;
      step.behavior = Behavior::kRemoved;
    } else if (type == "Whitespace") {
      step.kind = Kind::kWord;
      step.behavior = Behavior::kRemoved;
      step.invert = true;
    } else if (type == "CharDelimiterSplit") {
      const std::string delimiter = TextOf(j, "delimiter", "");
      if (delimiter.empty()) Corrupt("CharDelimiterSplit without a delimiter");
      step.pattern = SplitPattern::Literal(delimiter);
      step.behavior = Behavior::kRemoved;
    } else {
      Unsupported("'" + type + "'");
    }
    out.steps_.push_back(std::move(step));
  }

  void ReadSplit(const Json& j, Step& step) const {
    if (!j.contains("pattern") || !j["pattern"].is_object()) Corrupt("Split without a pattern");
    const Json& pattern = j["pattern"];
    if (pattern.contains("Regex") && pattern["Regex"].is_string()) {
      step.pattern = PatternOf(pattern["Regex"].get<std::string>());
    } else {
      const std::string text = TextOf(pattern, "String", "");
      if (text.empty()) Corrupt("Split without a pattern");
      step.pattern = SplitPattern::Literal(text);
    }
    step.behavior = BehaviorOf(j, "Isolated");
    step.invert = Flag(j, "invert", false);
  }

  void ReadByteLevel(const Json& j) {
    if (Flag(j, "add_prefix_space", true)) {
      Step prefix;
      prefix.kind = Kind::kPrefixSpace;
      out.steps_.push_back(std::move(prefix));
    }
    if (Flag(j, "use_regex", true)) {
      Step words;
      words.pattern = PatternOf(kGpt2Regex);
      out.steps_.push_back(std::move(words));
    }
    out.byte_level_ = true;
  }

  void ReadMetaspace(const Json& j, Step& step) const {
    step.kind = Kind::kMetaspace;
    step.text = TextOf(j, "replacement", "\u2581");
    if (step.text.empty() || DecodeUtf8(step.text, 0).bytes != step.text.size())
      Corrupt("the replacement of Metaspace is not one character");
    step.split = Flag(j, "split", true);
    // Files of before 2023 say add_prefix_space alone.
    const std::string scheme = TextOf(j, "prepend_scheme", "always");
    if (scheme == "always") step.prepend = Prepend::kAlways;
    else if (scheme == "first") step.prepend = Prepend::kFirst;
    else if (scheme != "never") Unsupported("prepend_scheme '" + scheme + "'");
    if (!j.contains("prepend_scheme") && !Flag(j, "add_prefix_space", true))
      step.prepend = Prepend::kNever;
    step.pattern = SplitPattern::Literal(step.text);
    step.behavior = Behavior::kMergedWithNext;
  }
};

PreTokenizer PreTokenizer::FromJson(const Json& j, const std::string& where) {
  PreTokenizer out;
  if (!j.is_null()) Reader{out, where}.Read(j);
  return out;
}

// cutter(piece): piece(from, to, whether it is a match), ranges that make up the text.
template <class Cutter>
void PreTokenizer::Cut(size_t step, std::string_view text, bool first, const Word& word,
                       const Cutter& cutter) const {
  const Step& s = steps_[step];
  const auto give = [&](size_t from, size_t to) {
    const std::string_view part = text.substr(from, to - from);
    if (step + 1 == steps_.size()) word(part);
    else Run(step + 1, part, first && from == 0, word);
  };
  if (s.behavior == Behavior::kIsolated || s.behavior == Behavior::kRemoved) {
    const bool all = s.behavior == Behavior::kIsolated;
    cutter([&](size_t from, size_t to, bool match) {
      if (all || match == s.invert) give(from, to);
    });
    return;
  }
  size_t begin = 0, end = 0;  // what waits for its neighbour
  bool before = false;        // whether the range before was a match
  cutter([&](size_t from, size_t to, bool match) {
    match ^= s.invert;
    bool joins = false;
    if (begin < end) {
      if (s.behavior == Behavior::kMergedWithPrevious) joins = match && !before;
      else if (s.behavior == Behavior::kMergedWithNext) joins = before && !match;
      else joins = match == before;
    }
    if (!joins) {
      if (begin < end) give(begin, end);
      begin = from;
    }
    end = to;
    before = match;
  });
  if (begin < end) give(begin, end);
}

void PreTokenizer::Run(size_t step, std::string_view text, bool first, const Word& word) const {
  if (step == steps_.size()) return word(text);
  const Step& s = steps_[step];
  const auto by_pattern = [&](std::string_view all) {
    Cut(step, all, first, word, [&](const auto& piece) { s.pattern->Cut(all, piece); });
  };
  switch (s.kind) {
    case Kind::kPattern: return by_pattern(text);
    case Kind::kPrefixSpace:
      if (text.front() == ' ') return Run(step + 1, text, first, word);
      return Run(step + 1, " " + std::string(text), first, word);
    case Kind::kMetaspace: {
      std::string changed;
      changed.reserve(text.size() + text.size() / 2 + 4);
      const bool begins = text.front() == ' ' || text.starts_with(s.text);
      if (!begins && (s.prepend == Prepend::kAlways || (s.prepend == Prepend::kFirst && first)))
        changed = s.text;
      for (const char c : text) {
        if (c == ' ') changed += s.text;
        else changed += c;
      }
      if (s.split) return by_pattern(changed);
      return Run(step + 1, changed, first, word);
    }
    case Kind::kBits:
    case Kind::kWord: break;
  }
  const uint8_t* const table = CharacterTable();
  Cut(step, text, first, word, [&](const auto& piece) {
    // Runs of one kind: 0 for what is between matches.
    size_t begin = 0;
    int kind = 0;
    for (size_t at = 0; at < text.size();) {
      const Character c = DecodeUtf8(text, at);
      const uint8_t bits = BitsOf(table, c.code);
      int now = 0;
      if (s.kind == Kind::kWord) {
        if (IsWordCharacter(c.code)) now = 1;
        else if ((bits & kSpaceCharacter) == 0) now = 2;
      } else if ((bits & s.bits) || (s.ascii_signs && IsAsciiSign(c.code))) {
        now = 1;
      }
      if (at > begin && (now != kind || (s.kind == Kind::kBits && now == 1))) {
        piece(begin, at, kind != 0);
        begin = at;
      }
      kind = now;
      at += c.bytes;
    }
    piece(begin, text.size(), kind != 0);
  });
}

}  // namespace plumb
