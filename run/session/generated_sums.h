// The sums that data.train or data.eval = "arithmetic" stand for: prompts, held-out prompts and
// demonstrations of one recipe, which share no problem.
//
// Thread safety: a pure function. Errors: those of replay/datasets/rows/arithmetic.h.
#pragma once

#include "configs/config.h"
#include "replay/datasets/rows/arithmetic.h"

namespace plumb::run {

inline constexpr char kArithmetic[] = "arithmetic";

inline replay::ArithmeticSets GeneratedSums(const configs::Config& config) {
  return replay::GenerateArithmetic(
      {.seed = config.run.seed,
       .digits = config.data.arithmetic_digits,
       .sft_examples = config.data.arithmetic_sft_examples,
       .eval_prompts = config.data.eval_prompts,
       .calls = config.environment.kind == configs::EnvironmentKind::kCalculator,
       .train_prompts = config.data.limit});
}

}  // namespace plumb::run
