// BLEU of an answer against references: Papineni et al., "BLEU: a method for automatic evaluation
// of machine translation", 2002, with the 13a tokens and the smoothing of sacrebleu, whose numbers
// it reproduces.
//
// kind bleu. Value: BP x exp(mean over n = 1..N of log p_n). p_n = the answer's n-grams that a
// reference has (each at most as often as the reference that has it most) / the answer's n-grams;
// BP = min(1, exp(1 - r / c)), c the answer's length in tokens, r that of the reference nearest in
// length, the shorter one if two are. No common word: 0. With effective=1 N is the highest n <= 4
// that the answer is long enough for, else 4 (and p_n without n-grams is 0). Smoothing where
// nothing of length n is common:
//   exp (default)  1 / (2^k x n-grams), k = 1 for the first such n, 2 for the second, ...
//   floor          value / n-grams, value 0.1
//   add-k          for n > 1 value (1) is added to both sides of p_n, always
//   none           p_n = 0, and so the score
// args: smooth=exp|floor|add-k|none, smooth_value=X, effective=1|0, reference=COLUMN.
// Thread safety: pure functions. Cost: linear in the texts.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "reward/rules/rule.h"

namespace plumb::reward {

inline constexpr size_t kBleuOrder = 4;

// Tokens of mteval-v13a: ASCII punctuation apart, full stops and commas apart unless between
// digits, a dash apart behind a digit; four HTML entities undone.
std::vector<std::string> BleuTokens(std::string_view text);

enum class Smoothing : uint8_t { kExp = 0, kFloor = 1, kAddK = 2, kNone = 3 };
struct BleuOptions {
  Smoothing smoothing = Smoothing::kExp;
  double value = 0;              // of kFloor and kAddK; 0: 0.1 and 1
  bool effective_order = false;  // sentences want true, corpora false
};

// What BLEU is computed from. The BLEU of a corpus is that of the sum over its sentences, not a
// mean.
struct BleuCounts {
  int64_t answer_length = 0;
  int64_t reference_length = 0;
  std::array<int64_t, kBleuOrder> matched{};
  std::array<int64_t, kBleuOrder> total{};
  BleuCounts& operator+=(const BleuCounts& other);
};
// REQUIRES: at least one reference.
BleuCounts CountBleu(std::string_view answer, const std::vector<std::string>& references);
// In [0, 1]; sacrebleu prints 100 times this.
double BleuScore(const BleuCounts& counts, const BleuOptions& options);

RuleParts MakeBleu(const configs::RewardPartConfig& part);

}  // namespace plumb::reward
