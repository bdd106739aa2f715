// Generated problems of the demo: sums of two numbers, worked out digit by digit with the carry.
//
//   prompt      47+85=
//   completion  <think>7+5=12,4+8+1=13</think><answer>132</answer><eos>
//   or, with a calculator (environment/calculator.h), which says what stands behind the "=":
//   completion  <think>47+85=132</think><answer>132</answer><eos>
//
// Purpose: a task that a small model can learn from nothing, whose answers a rule can check. A pair
// of operands belongs to exactly one of the three sets, in both orders; this is checked every time
// sets are made.
// Thread safety: pure functions; the same options give the same sets everywhere.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/record/trajectory.h"
#include "replay/datasets/rows/dataset_import.h"

namespace plumb::replay {

struct ArithmeticOptions {
  uint64_t seed = 1;
  int64_t digits = 2;  // of the larger operand at most; 1 .. 9
  int64_t sft_examples = 200;
  int64_t eval_prompts = 200;
  bool calls = false;         // completions call a calculator
  int64_t train_prompts = 0;  // 0: all pairs that are left, in both orders, at most kMaxTrain
};

struct ArithmeticSets {
  std::vector<TextDemonstration> sft;  // to learn from
  std::vector<Prompt> train;           // dataset "train", ground_truth = the sum
  std::vector<Prompt> eval;            // dataset "eval", held out
  // the held-out problems worked out, for the held-out loss; never trained on
  std::vector<TextDemonstration> sft_eval;
};

inline constexpr int64_t kMaxTrain = 20'000;

// Throws kInvalidArgument when there are not so many different problems.
ArithmeticSets GenerateArithmetic(const ArithmeticOptions& options);

std::string ArithmeticPrompt(uint64_t a, uint64_t b);
std::string ArithmeticCompletion(uint64_t a, uint64_t b);
// With a calculator; what it says is marked in the demonstration.
TextDemonstration ArithmeticCall(uint64_t a, uint64_t b);

}  // namespace plumb::replay
