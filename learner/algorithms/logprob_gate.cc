#include "learner/algorithms/logprob_gate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "common/base/error.h"

namespace plumb::learner {

void LogprobGate::Add(double actor, double learner) {
  const double diff = std::abs(learner - actor);
  ++tokens_;
  sum_ += diff;
  squares_ += diff * diff;
  max_ = std::max(max_, diff);
}

double LogprobGate::mean() const { return tokens_ ? sum_ / static_cast<double>(tokens_) : 0; }

double LogprobGate::standard_error() const {
  if (tokens_ < 2) return std::numeric_limits<double>::infinity();
  const auto n = static_cast<double>(tokens_);
  return std::sqrt(std::max(0.0, squares_ / n - mean() * mean()) / (n - 1));
}

void LogprobGate::Check(double limit, const char* who) const {
  if (limit <= 0 || tokens_ == 0) return;
  if (std::isfinite(sum_) && mean() - 3 * standard_error() <= limit) return;
  throw Error(
      ErrorCode::kConflict,
      "log-probs of actor and learner differ by " + std::to_string(mean()) + " +- " +
          std::to_string(standard_error()) + " nats on average over " + std::to_string(tokens_) +
          " tokens, more than algorithm.logprob_gate = " + std::to_string(limit) +
          ": they do not compute the same policy (other weights, dtype or sampling filters)",
      who);
}

}  // namespace plumb::learner
