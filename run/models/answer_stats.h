// What a set of answers is worth in numbers, with how certain they are.
//
// Purpose: the formulas of `plumb eval`. Several answers to one prompt are not independent, so
// that every mean is over prompts (of each prompt's own mean), and n is the number of prompts.
// Thread safety: pure functions. Errors: none; what a single value cannot say is NaN.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace plumb::run {

struct Estimate {
  double mean = 0;
  double error = 0;  // standard error; NaN of less than two values
  int64_t n = 0;
  // mean +- 1.96 errors
  double low() const { return mean - 1.959964 * error; }
  double high() const { return mean + 1.959964 * error; }
};
Estimate EstimateOf(std::span<const double> values);  // of none: mean NaN

// Of a mean over things that come in clusters (tokens of texts): sum of `sums` / sum of `sizes`,
// with the error of a ratio of sums over clusters; n is the number of clusters.
Estimate RatioOf(std::span<const double> sums, std::span<const double> sizes);

// The chance that at least one of k answers is right, from n answers of which c are: 1 - C(n-c, k)
// / C(n, k), which is unbiased (Chen et al., "Evaluating Large Language Models Trained on Code",
// 2021, eq. 1). REQUIRES: 0 <= c <= n, 1 <= k <= n.
double PassAtK(int64_t n, int64_t c, int64_t k);

// Self-consistency (Wang et al., 2022): the index of the answer that most others say the same as,
// of equals the earliest; -1 where nobody answered. Empty texts are no answers. `same` is asked
// only for pairs of answers.
int64_t MajorityOf(std::span<const std::string> answers,
                   const std::function<bool(const std::string&, const std::string&)>& same);

}  // namespace plumb::run
