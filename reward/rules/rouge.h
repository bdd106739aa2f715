// ROUGE-1, ROUGE-2 and ROUGE-L between an answer and a reference: C.-Y. Lin, "ROUGE: a package for
// automatic evaluation of summaries", 2004, with the tokens and the clipping of the rouge-score
// package, whose numbers it reproduces.
//
// kinds rouge1, rouge2, rougeL. Value: 2PR / (P + R), 0 when P + R is 0; P and R are the matched
// part of the answer's and of the reference's n-grams (each matched as often as both have it), for
// rougeL the longest common subsequence of words. Several references: the best.
//
// args: stemmer=0|1 (reward/rules/porter_stemmer.h on words of more than three letters),
// measure=f|precision|recall, reference=COLUMN of the row instead of the ground truth.
//
// Thread safety: pure functions. Cost: linear; rougeL answer x reference / 64 word steps, memory
// linear.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "reward/rules/rule.h"

namespace plumb::reward {

// Lower-case runs of a-z and 0-9; everything else separates.
std::vector<std::string> RougeTokens(std::string_view text, bool stem);

struct RougeValue {
  double precision = 0;
  double recall = 0;
  double f = 0;
};
RougeValue RougeN(const std::vector<std::string>& reference, const std::vector<std::string>& answer,
                  int n);
RougeValue RougeL(const std::vector<std::string>& reference,
                  const std::vector<std::string>& answer);

// Length of the longest common subsequence: bit-parallel (Hyyro, "Bit-parallel LCS-length
// computation revisited", 2004), a block of 64 places of `a` at a time.
size_t CommonSubsequence(const std::vector<int32_t>& a, const std::vector<int32_t>& b);

RuleParts MakeRouge(const configs::RewardPartConfig& part);

}  // namespace plumb::reward
