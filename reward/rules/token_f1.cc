#include "reward/rules/token_f1.h"

#include <algorithm>
#include <unordered_map>

#include "common/text/unicode.h"
#include "common/text/words.h"
#include "reward/part/truth.h"

namespace plumb::reward {
namespace {

bool IsPunctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
         (c >= '{' && c <= '~');
}

bool IsWordCharacter(char32_t code) {
  const auto kind = ClassOf(code);
  return kind == CharacterClass::kLetter || kind == CharacterClass::kNumber;
}

// Articles that stand between characters that are no letters or numbers become a blank.
std::string WithoutArticles(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  size_t run = 0;  // of letters and numbers; it begins here
  const auto close = [&](size_t end) {
    const std::string_view word = std::string_view(text).substr(run, end - run);
    out.append(word == "a" || word == "an" || word == "the" ? std::string_view(" ") : word);
  };
  for (size_t i = 0; i < text.size();) {
    const Character c = DecodeUtf8(text, i);
    if (!IsWordCharacter(c.code)) {
      close(i);
      out.append(text, i, c.bytes);
      run = i + c.bytes;
    }
    i += c.bytes;
  }
  close(text.size());
  return out;
}

}  // namespace

std::string SquadNormalized(std::string_view text) {
  std::string plain = LowerUnicode(text);
  std::erase_if(plain, IsPunctuation);
  plain = WithoutArticles(plain);
  std::string out;
  out.reserve(plain.size());
  for (const std::string_view word : UnicodeSpacedWords(plain))
    out.append(out.empty() ? "" : " ").append(word);
  return out;
}

double TokenF1(std::string_view answer, std::string_view truth) {
  const std::string left = SquadNormalized(answer), right = SquadNormalized(truth);
  const auto a = SpacedWords(left), b = SpacedWords(right);
  if (a.empty() || b.empty()) return a.empty() && b.empty() ? 1 : 0;
  std::unordered_map<std::string_view, int64_t> open;
  for (const std::string_view word : b) ++open[word];
  int64_t common = 0;
  for (const std::string_view word : a) {
    const auto it = open.find(word);
    if (it == open.end() || it->second == 0) continue;
    --it->second;
    ++common;
  }
  return 2 * static_cast<double>(common) / static_cast<double>(a.size() + b.size());
}

RuleParts MakeTokenF1(const configs::RewardPartConfig& part) {
  const std::string column = RuleOptions(part, {"reference"}).Text("reference");
  const bool exact = part.kind == "exact_words";
  return [=](std::string_view text, const Trajectory&, const Prompt& prompt) {
    std::string why;
    const std::vector<std::string> references = References(prompt, column, &why);
    if (references.empty()) return PartScore::Failed(Failure::kReported, why);
    const std::string_view said = Compared(text, references);
    double best = 0;
    for (const std::string& reference : references) {
      const double value = exact ? (SquadNormalized(said) == SquadNormalized(reference) ? 1.0 : 0.0)
                                 : TokenF1(said, reference);
      best = std::max(best, value);
    }
    return PartScore::Of(best);
  };
}

}  // namespace plumb::reward
