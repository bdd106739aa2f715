#include "common/text/tokenizer/pre_tokenizer.h"

#include "common/base/error.h"
#include "common/text/unicode.h"

namespace plumb {
namespace {

using Json = nlohmann::ordered_json;

struct KnownPattern {
  std::string_view regex;
  PreTokenizer::Pattern pattern;
};
// What tokenizer.json of these families says, letter by letter.
constexpr KnownPattern kKnown[] = {
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
     PreTokenizer::Pattern::kGpt2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     PreTokenizer::Pattern::kQwen2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     PreTokenizer::Pattern::kLlama3},
};

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}
  bool AtEnd(size_t at) const { return at >= text_.size(); }
  Character At(size_t at) const { return DecodeUtf8(text_, at); }
  // Past the last character of class `c` in a row from `at`.
  size_t Run(size_t at, CharacterClass c) const {
    while (!AtEnd(at)) {
      const Character ch = At(at);
      if (ClassOf(ch.code) != c) break;
      at += ch.bytes;
    }
    return at;
  }
  // Length of 's 't 're 've 'm 'll 'd at `at`, where an apostrophe stands; 0 if none.
  size_t Contraction(size_t at, bool any_case) const {
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
  // End of the word of white space at `at`: all of it at the end of the text, else all but the last
  // character, which may belong to the next word; a single one is a word.
  size_t Spaces(size_t at, size_t end_of_run) const {
    if (AtEnd(end_of_run)) return end_of_run;
    size_t last = at;
    for (size_t i = at; i < end_of_run; i += At(i).bytes) last = i;
    return last == at ? end_of_run : last;
  }
  size_t NextGpt2(size_t at) const {
    const Character c = At(at);
    if (c.code == '\'') {
      if (const size_t n = Contraction(at, false)) return at + n;
    }
    CharacterClass kind = ClassOf(c.code);
    size_t from = at;
    if (c.code == ' ' && !AtEnd(at + 1)) {
      const CharacterClass next = ClassOf(At(at + 1).code);
      if (next != CharacterClass::kSpace) {
        kind = next;
        from = at + 1;
      }
    }
    const size_t end = Run(from, kind);
    return kind == CharacterClass::kSpace ? Spaces(at, end) : end;
  }
  size_t NextQwen(size_t at, int digits) const {
    const Character c = At(at);
    if (c.code == '\'') {
      if (const size_t n = Contraction(at, true)) return at + n;
    }
    const CharacterClass kind = ClassOf(c.code);
    if (kind == CharacterClass::kLetter) return Run(at, kind);
    if (kind == CharacterClass::kNumber) {
      size_t end = at;
      for (int n = 0; n < digits && !AtEnd(end) && ClassOf(At(end).code) == kind; ++n)
        end += At(end).bytes;
      return end;
    }
    const size_t second = at + c.bytes;
    const CharacterClass next = AtEnd(second) ? CharacterClass::kSpace : ClassOf(At(second).code);
    if (c.code != '\r' && c.code != '\n' && next == CharacterClass::kLetter)
      return Run(second, next);
    if (kind == CharacterClass::kOther || (c.code == ' ' && next == CharacterClass::kOther)) {
      size_t end = Run(kind == CharacterClass::kOther ? at : second, CharacterClass::kOther);
      while (!AtEnd(end) && (text_[end] == '\r' || text_[end] == '\n')) ++end;
      return end;
    }
    const size_t end = Run(at, CharacterClass::kSpace);
    const size_t newline = text_.substr(at, end - at).find_last_of("\r\n");
    return newline != std::string_view::npos ? at + newline + 1 : Spaces(at, end);
  }

 private:
  std::string_view text_;
};

std::string TypeOf(const Json& j) {
  return j.is_object() && j.contains("type") && j["type"].is_string() ? j["type"].get<std::string>()
                                                                      : "?";
}

bool Flag(const Json& j, const char* key, bool otherwise) {
  return j.contains(key) && j[key].is_boolean() ? j[key].get<bool>() : otherwise;
}

}  // namespace

PreTokenizer PreTokenizer::FromJson(const Json& j, const std::string& where) {
  PreTokenizer out;
  if (j.is_null()) return out;
  const auto unsupported = [&](const std::string& what) {
    throw Error(ErrorCode::kUnsupported, "pre_tokenizer: " + what + " is not known here", where);
  };
  std::vector<Json> steps;
  if (TypeOf(j) == "Sequence") {
    if (!j.contains("pretokenizers") || !j["pretokenizers"].is_array()) {
      throw Error(ErrorCode::kCorruption, "pre_tokenizer: a Sequence without pretokenizers", where);
    }
    for (const Json& step : j["pretokenizers"]) steps.push_back(step);
  } else {
    steps.push_back(j);
  }
  for (const Json& step : steps) {
    const std::string type = TypeOf(step);
    if (out.byte_level) unsupported("'" + type + "' after ByteLevel");
    if (type == "Digits") {
      if (!Flag(step, "individual_digits", false)) unsupported("Digits without individual_digits");
      if (out.pattern != Pattern::kNone) unsupported("Digits after Split");
      out.split_digits = true;
    } else if (type == "Split") {
      if (out.pattern != Pattern::kNone) unsupported("a second Split");
      if (!step.contains("pattern") || !step["pattern"].is_object() ||
          !step["pattern"].contains("Regex") || !step["pattern"]["Regex"].is_string()) {
        unsupported("Split without a regular expression");
      }
      if (step.value("behavior", Json("Isolated")) != "Isolated" || Flag(step, "invert", false)) {
        unsupported("Split with a behavior other than Isolated");
      }
      const auto regex = step["pattern"]["Regex"].get<std::string>();
      for (const KnownPattern& known : kKnown) {
        if (known.regex == regex) out.pattern = known.pattern;
      }
      if (out.pattern == Pattern::kNone) unsupported("the pattern " + regex.substr(0, 200));
    } else if (type == "ByteLevel") {
      if (Flag(step, "add_prefix_space", true)) unsupported("ByteLevel with add_prefix_space");
      if (Flag(step, "use_regex", true)) {
        if (out.pattern != Pattern::kNone) unsupported("ByteLevel with use_regex after Split");
        out.pattern = Pattern::kGpt2;
      }
      out.byte_level = true;
    } else {
      unsupported("'" + type + "'");
    }
  }
  if (!out.byte_level) unsupported("a list without ByteLevel");
  return out;
}

void PreTokenizer::Split(std::string_view text,
                         const std::function<void(std::string_view)>& word) const {
  const auto split = [&](std::string_view part) {
    const Scanner scanner(part);
    for (size_t at = 0; at < part.size();) {
      size_t end = part.size();
      if (pattern == Pattern::kGpt2) end = scanner.NextGpt2(at);
      if (pattern == Pattern::kQwen2) end = scanner.NextQwen(at, 1);
      if (pattern == Pattern::kLlama3) end = scanner.NextQwen(at, 3);
      word(part.substr(at, end - at));
      at = end;
    }
  };
  if (!split_digits) return split(text);
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const Character c = DecodeUtf8(text, at);
    if (ClassOf(c.code) == CharacterClass::kNumber) {
      if (begin < at) split(text.substr(begin, at - begin));
      split(text.substr(at, c.bytes));
      begin = at + c.bytes;
    }
    at += c.bytes;
  }
  if (begin < text.size()) split(text.substr(begin));
}

}  // namespace plumb
