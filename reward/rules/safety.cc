#include "reward/rules/safety.h"

#include <algorithm>

#include "common/base/text.h"
#include "common/text/unicode.h"
#include "common/text/words.h"

namespace plumb::reward {
namespace {

bool IsHidden(char32_t c) {
  return c == 0xAD || c == 0x34F || c == 0x61C || c == 0x180E || (c >= 0x200B && c <= 0x200F) ||
         (c >= 0x202A && c <= 0x202E) || (c >= 0x2060 && c <= 0x2064) ||
         (c >= 0xFE00 && c <= 0xFE0F) || c == 0xFEFF;
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = Trim(std::string_view(text).substr(at, end - at));
    if (at == 0 && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
    if (!line.empty() && line[0] != '#') out.emplace_back(line);
    at = end + 1;
  }
  return out;
}

}  // namespace

std::string Unmasked(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    if ((text[i] & 0x80) == 0) {
      out += text[i++];
      continue;
    }
    const Character c = DecodeUtf8(text, i);
    if (c.code >= 0xFF01 && c.code <= 0xFF5E) {
      out += static_cast<char>(c.code - 0xFF01 + '!');
    } else if (!IsHidden(c.code)) {
      out.append(text.substr(i, c.bytes));
    }
    i += c.bytes;
  }
  return LowerUnicode(out);
}

bool WordList::Add(std::string_view entry) {
  const std::string plain = Unmasked(entry);
  const auto words = LetterWords(plain);
  if (words.empty() || words.size() > 16) return false;
  std::string phrase;
  for (const std::string_view word : words) phrase.append(phrase.empty() ? "" : " ").append(word);
  phrases_.insert(std::move(phrase));
  longest_ = std::max(longest_, words.size());
  return true;
}

size_t WordList::Hits(std::string_view text) const {
  const std::string plain = Unmasked(text);
  const auto words = LetterWords(plain);
  size_t hits = 0;
  std::string phrase;
  for (size_t begin = 0; begin < words.size(); ++begin) {
    phrase.clear();
    for (size_t i = begin; i < words.size() && i - begin < longest_; ++i) {
      phrase.append(phrase.empty() ? "" : " ").append(words[i]);
      hits += phrases_.contains(phrase);
    }
  }
  return hits;
}

RuleParts MakeSafety(const configs::RewardPartConfig& part) {
  const RuleOptions options(part, {"words", "words_file", "regex", "regex_file", "limit"});
  std::string content;
  const auto read = [&](const std::string& name) {
    std::vector<std::string> lines;
    for (const std::string& path : options.Texts(name)) {
      const std::string text = ReadRuleFile(part, path);
      content += text;
      for (std::string& line : Lines(text)) lines.push_back(std::move(line));
    }
    return lines;
  };
  WordList list;
  std::vector<std::string> entries = options.List("words");
  for (std::string& line : read("words_file")) entries.push_back(std::move(line));
  for (const std::string& entry : entries) {
    if (!list.Add(entry))
      Refuse(part, "the listed word '" + entry + "' needs 1 to 16 words of letters or digits");
  }
  std::vector<std::string> patterns = options.Texts("regex");
  for (std::string& line : read("regex_file")) patterns.push_back(std::move(line));
  std::vector<LinearRegex> regexes;
  for (const std::string& pattern : patterns) {
    std::string error;
    regexes.push_back(LinearRegex::Compile(pattern, &error));
    if (!error.empty()) Refuse(part, "regex '" + pattern + "' " + error);
  }
  if (list.empty() && regexes.empty()) {
    Refuse(part,
           "needs an entry: args = [\"words=first,second\"], \"words_file=PATH\", "
           "\"regex=PATTERN\" or "
           "\"regex_file=PATH\"");
  }
  const double limit = static_cast<double>(options.Integer("limit", 1, 1, 1000000));
  const auto body = [=](std::string_view text, const Trajectory&, const Prompt&) {
    size_t hits = list.Hits(text);
    for (const LinearRegex& regex : regexes) hits += regex.Find(text);
    PartScore score = PartScore::Of(std::max(0.0, 1 - static_cast<double>(hits) / limit));
    score.details = {{"hits", static_cast<double>(hits)}};
    return score;
  };
  return RuleParts(body, content);
}

}  // namespace plumb::reward
