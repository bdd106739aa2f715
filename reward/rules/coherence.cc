#include "reward/rules/coherence.h"

#include <algorithm>
#include <deque>

#include "common/text/words.h"
#include "reward/rules/porter_stemmer.h"

namespace plumb::reward {
namespace {

bool IsAscii(std::string_view word) {
  return std::all_of(word.begin(), word.end(), [](char c) { return (c & 0x80) == 0; });
}

// The different n-grams of a sentence's content words, as sorted numbers.
class Grams {
 public:
  explicit Grams(int n) : table_(n) {}
  std::vector<int32_t> Of(std::string_view sentence) {
    std::vector<int32_t> ids;
    for (const std::string_view word : LetterWords(sentence)) {
      std::string form = LowerUnicode(word);
      const bool ascii = IsAscii(form);
      const bool digit =
          std::any_of(form.begin(), form.end(), [](char c) { return c >= '0' && c <= '9'; });
      if (ascii && form.size() < 4 && !digit) continue;
      if (ascii) {
        if (const size_t apostrophe = form.find('\''); apostrophe != std::string::npos)
          form.resize(apostrophe);
        form = PorterStem(form);
      }
      words_.push_back(std::move(form));  // a deque: views into it stay
      ids.push_back(vocabulary_.Id(words_.back()));
    }
    std::vector<int32_t> grams = table_.Add(ids);
    std::sort(grams.begin(), grams.end());
    grams.erase(std::unique(grams.begin(), grams.end()), grams.end());
    return grams;
  }

 private:
  std::deque<std::string> words_;
  Vocabulary vocabulary_;
  NgramTable table_;
};

double Variety(std::string_view answer) {
  const std::string lower = LowerUnicode(answer);
  Vocabulary vocabulary;
  NgramTable table(3);
  const size_t total = table.Add(vocabulary.Ids(LetterWords(lower))).size();
  return total == 0 ? 1 : static_cast<double>(table.size()) / static_cast<double>(total);
}

// What the model was asked: the text, or the last message of the user.
std::string_view Question(const Prompt& prompt) {
  if (prompt.messages.empty()) return prompt.text;
  for (auto it = prompt.messages.rbegin(); it != prompt.messages.rend(); ++it) {
    if (it->role == "user") return it->content;
  }
  return prompt.messages.back().content;
}

}  // namespace

double CoherenceScore(std::string_view answer, std::string_view prompt,
                      const CoherenceOptions& options) {
  Grams grams(options.n);
  std::vector<int32_t> before = options.with_prompt ? grams.Of(prompt) : std::vector<int32_t>();
  std::vector<int32_t> two_before;
  bool has_before = !before.empty();
  double sum = 0;
  size_t sentences = 0, links = 0;
  for (const std::string_view sentence : Sentences(answer)) {
    std::vector<int32_t> own = grams.Of(sentence);
    if (own.empty()) continue;
    ++sentences;
    if (has_before) {
      const auto stands = [&](int32_t gram) {
        return std::binary_search(before.begin(), before.end(), gram) ||
               std::binary_search(two_before.begin(), two_before.end(), gram);
      };
      const auto shared = std::count_if(own.begin(), own.end(), stands);
      sum += std::min(1.0,
                      static_cast<double>(shared) / static_cast<double>(own.size()) / options.full);
      ++links;
    }
    has_before = true;
    two_before = std::move(before);
    before = std::move(own);
  }
  if (sentences == 0) return 0;
  return (links == 0 ? 1 : sum / static_cast<double>(links)) * Variety(answer);
}

RuleParts MakeCoherence(const configs::RewardPartConfig& part) {
  const RuleOptions args(part, {"n", "full", "prompt"});
  const CoherenceOptions options{.n = static_cast<int>(args.Integer("n", 1, 1, 3)),
                                 .full = args.Number("full", 0.2, 0.01, 1),
                                 .with_prompt = args.Flag("prompt", true)};
  return [options](std::string_view text, const Trajectory&, const Prompt& prompt) {
    return PartScore::Of(CoherenceScore(text, Question(prompt), options));
  };
}

}  // namespace plumb::reward
