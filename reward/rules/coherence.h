// How well the sentences of an answer hold on to each other and to the question, by the words they
// share.
//
// kind coherence. Value: links x variety.
//
// Content words are letters and digits (common/text/words.h), lower case, stems of English words;
// of at least four characters, or with a digit, or not ASCII: function words link nothing. The link
// of a sentence is min(1, share / full), share = those of its different n-grams of content words
// that also stand in the two sentences before it; the first sentence is compared with the prompt
// (the last user message of a chat) and left out if that has no content word. links is the mean
// over the sentences that have such an n-gram; an answer without any has 0. variety is different
// 3-grams / 3-grams of all its words, 1 with fewer than three.
//
// args: n=1 (to 3), full=0.2 (the share that counts as a whole link), prompt=1|0 (0: the first
// sentence links to nothing and is left out; one sentence alone then has links 1).
//
// It measures cohesion, not truth: an answer that repeats the question once scores high. Combine it
// with a part that knows what is right.
//
// Thread safety: pure functions. Cost: linear in the text.
#pragma once

#include <string_view>

#include "reward/rules/rule.h"

namespace plumb::reward {

struct CoherenceOptions {
  int n = 1;
  double full = 0.2;
  bool with_prompt = true;
};
double CoherenceScore(std::string_view answer, std::string_view prompt,
                      const CoherenceOptions& options);

RuleParts MakeCoherence(const configs::RewardPartConfig& part);

}  // namespace plumb::reward
