// How different the answers of one group are from each other, by their n-grams of words.
//
// Let c(g) be how often the n-gram g occurs in the whole group, N the sum of all c. Words are
// lower-case letters and digits (common/text/words.h); an answer with fewer than n words counts as
// one n-gram, one without words has none and the value 0.
//
// kind distinct: an answer's value is the mean of 1 / c(g) over its n-grams. The mean over the
// group, weighted by n-grams, is exactly distinct-n: different n-grams / n-grams (Li et al., "A
// diversity-promoting objective function for neural conversation models", 2016).
//
// kind entropy: an answer's value is the mean of -log(c(g) / N) / log N over its n-grams. The
// weighted mean is exactly the entropy of the group's n-grams over its largest value, log N; with N
// = 1 it is 1.
//
// args: n=2 (1 to 5), scope=answer|group. answer: as above, so that within a group the answer that
// says something else has the higher value; group: every answer gets the weighted mean (of no
// effect where the group's mean is subtracted). A group of one is compared with itself alone.
//
// Thread safety: pure functions. Cost: linear in the texts.
#pragma once

#include <string_view>
#include <vector>

#include "reward/rules/rule.h"

namespace plumb::reward {

struct Diversity {
  std::vector<double> answers;  // [G] in [0, 1]
  double group = 0;             // the weighted mean
};
Diversity DistinctScores(const std::vector<std::string_view>& texts, int n);
Diversity EntropyScores(const std::vector<std::string_view>& texts, int n);

RuleParts MakeDiversity(const configs::RewardPartConfig& part);

}  // namespace plumb::reward
