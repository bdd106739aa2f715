// Built-in rewards: pure functions of the text, computed in process, each in [0, 1] by the formula
// written here. Options (args) and their defaults stand in brackets.
//
// math        1 if the maths answer found in the completion says the same as the ground truth
//             (reward/maths/math_answer.h), else 0. digits=N (0..15): a decimal of at least N
//             significant digits counts when it is the truth rounded.
//             [fallback=none|last_number|last_math, digits=0]
// multiple_choice
//             1 if the completion names the letter or text of the right option and no other
//             (reward/rules/multiple_choice.h), else 0. A ground truth that is no option is a
//             reported failure. [last=E, index_base=0|1]
// answer      1 if the answer found in the completion equals the ground truth
//             (reward/maths/answer.h), else 0. No answer found: 0. [fallback=none|last_number]
// format      1 if the whole completion is <think>..</think> <answer>..</answer> (white space
//             between and around allowed, each tag once, neither body blank), else 0.
//             prefilled=1: the prompt already ended with <think>, so the completion starts after
//             it. [prefilled=0|1]
// soft_format 1 if format is 1, else 0.1*stop + 0.1*distinct + 0.1*number + 0.1*tags + 0.2*order:
//             stop 1 if the model ended the answer itself; distinct = different words / words (0 if
//             none); number 1 if there is a digit; tags = how many of the four tags stand exactly
//             once (0..4); order 1 if all four do and stand in their order. At most 0.9.
//             [prefilled=0|1]
// length      n tokens: 1 up to target_tokens, 0 from max_tokens on, (max-n)/(max-target) between.
//             [the fields target_tokens, max_tokens]
// exact       1 if what the completion says behind its thinking (reward/part/truth.h), outer white
//             space removed, is the ground truth, else 0. [ignore_case=0|1]
// regex       1 if the pattern matches anywhere in the completion, else 0; RE2 matches it in linear
//             time (reward/rules/linear_regex.h), and what RE2 does not take, PCRE2 by
//             backtracking, where a pattern that hits the limit of steps is a reported failure, not
//             a 0. [pattern=...]
// repetition  different n-grams / n-grams of the completion's words; 1 with fewer than n words.
//             [n=3]
// contains    share of the words in `words` (comma-separated) that occur in the completion.
//             [words=a,b]
// absent      1 if none of the words in `words` occurs as a whole word, ASCII case ignored, else 0.
//             [words=a,b]
//
// Rules in files of their own, formula and options in their headers: coherence
// (reward/rules/coherence.h), distinct and entropy over the group (reward/rules/diversity.h),
// safety (reward/rules/safety.h), rouge1, rouge2, rougeL (reward/rules/rouge.h), bleu
// (reward/rules/bleu.h), f1 and exact_words (reward/rules/token_f1.h), json_schema
// (reward/rules/json_schema.h).
//
// math, multiple_choice and answer take prefilled=0|1 too: with 1 a completion without </think> has
// no answer. Every rule first removes trailing special tokens (StripEndTokens). Rules that compare
// with a ground truth look behind the model's thinking (reward/maths/answer.h) and take any of a
// list (reward/part/truth.h); a row without one is a reported failure.
// Thread safety: immutable after construction. Errors: Error(kInvalidArgument) for an unknown kind
// or option, a pattern that does not compile, or limits that make no sense, each naming the part.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "configs/config.h"
#include "reward/part/reward.h"

namespace plumb::reward {

// Kinds that MakeRule() knows, in the order of the table above.
std::vector<std::string> RuleKinds();
bool IsRuleKind(std::string_view kind);
// The part's kind compares with a row's ground truth, and its options name no other column: of a
// row without one it says nothing.
bool ComparesWithTruth(const configs::RewardPartConfig& part);
std::unique_ptr<RewardFunction> MakeRule(const configs::RewardPartConfig& part);

// The formulas themselves, for tests and other rules. `text` is without end tokens.
double FormatScore(std::string_view text, bool prefilled);
double SoftFormatScore(std::string_view text, bool prefilled, bool stopped);
double LengthScore(int64_t tokens, int64_t target_tokens, int64_t max_tokens);
double RepetitionScore(std::string_view text, int n);

}  // namespace plumb::reward
