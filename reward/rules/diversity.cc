#include "reward/rules/diversity.h"

#include <algorithm>
#include <cmath>

#include "common/text/words.h"

namespace plumb::reward {
namespace {

// The numbers of each answer's n-grams, and how often each number occurs in the group.
struct GroupGrams {
  std::vector<std::vector<int32_t>> answers;
  std::vector<double> counts;
  double total = 0;
};

GroupGrams Count(const std::vector<std::string_view>& texts, int n) {
  std::vector<std::string> lower;  // complete before views into it are made
  lower.reserve(texts.size());
  for (const std::string_view text : texts) lower.push_back(LowerUnicode(text));
  Vocabulary vocabulary;
  NgramTable table(n);
  GroupGrams out;
  for (const std::string& text : lower) {
    std::vector<int32_t> ids = vocabulary.Ids(LetterWords(text));
    // No word has number -1: a short answer is filled up and equals only the same short answer.
    if (!ids.empty()) ids.resize(std::max(ids.size(), static_cast<size_t>(n)), -1);
    out.answers.push_back(table.Add(ids));
    out.total += static_cast<double>(out.answers.back().size());
  }
  out.counts.assign(table.size(), 0);
  for (const auto& answer : out.answers) {
    for (const int32_t gram : answer) ++out.counts[static_cast<size_t>(gram)];
  }
  return out;
}

template <class PerGram>
Diversity Mean(const GroupGrams& grams, const PerGram& value) {
  Diversity out;
  double all = 0;
  for (const auto& answer : grams.answers) {
    double sum = 0;
    for (const int32_t gram : answer) sum += value(grams.counts[static_cast<size_t>(gram)]);
    all += sum;
    out.answers.push_back(
        answer.empty() ? 0 : std::clamp(sum / static_cast<double>(answer.size()), 0.0, 1.0));
  }
  if (grams.total > 0) out.group = std::clamp(all / grams.total, 0.0, 1.0);
  return out;
}

}  // namespace

Diversity DistinctScores(const std::vector<std::string_view>& texts, int n) {
  return Mean(Count(texts, n), [](double count) { return 1 / count; });
}

Diversity EntropyScores(const std::vector<std::string_view>& texts, int n) {
  const GroupGrams grams = Count(texts, n);
  const double total = grams.total;
  return Mean(grams, [total](double count) {
    return total > 1 ? std::log(total / count) / std::log(total) : 1.0;
  });
}

RuleParts MakeDiversity(const configs::RewardPartConfig& part) {
  const RuleOptions options(part, {"n", "scope"});
  const int n = static_cast<int>(options.Integer("n", 2, 1, 5));
  const bool whole = options.Choice("scope", {"answer", "group"}) == "group";
  const bool entropy = part.kind == "entropy";
  return [=](const std::vector<std::string_view>& texts, const TrajectoryGroup&) {
    const Diversity d = entropy ? EntropyScores(texts, n) : DistinctScores(texts, n);
    std::vector<PartScore> scores;
    for (const double value : d.answers) scores.push_back(PartScore::Of(whole ? d.group : value));
    return scores;
  };
}

}  // namespace plumb::reward
