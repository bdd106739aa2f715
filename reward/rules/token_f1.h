// F1 of the words of an answer against the ground truth, as question answering measures it
// (Rajpurkar et al., "SQuAD", 2016).
//
// kind f1. Both sides: lower case, ASCII punctuation removed, the words a, an and the removed, cut
// at white space. Value: 2 x common / (words of the answer + words of the truth), each word common
// as often as both have it; 1 if both sides are left without words, 0 if one is. Several
// references: the best.
//
// kind exact_words. Value: 1 if the answer equals a reference after the same preparation, else 0.
//
// args: reference=COLUMN. Thread safety: pure functions. Cost: linear in the texts.
#pragma once

#include <string>
#include <string_view>

#include "reward/rules/rule.h"

namespace plumb::reward {

// The words that are left, joined by one blank.
std::string SquadNormalized(std::string_view text);
double TokenF1(std::string_view answer, std::string_view truth);

RuleParts MakeTokenF1(const configs::RewardPartConfig& part);

}  // namespace plumb::reward
