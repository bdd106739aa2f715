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

void LogprobGate::Check(double limit, const char* who, configs::KvType kept,
                        configs::Products products) const {
  if (limit <= 0 || tokens_ == 0) return;
  if (!std::isfinite(sum_)) {
    throw Error(ErrorCode::kNonFinite,
                "the learner computed log-probs that are not finite where the actor's are; "
                "nothing of the update was applied: " +
                    std::string(products == configs::Products::kFp16
                                    ? "model.products = \"fp16\" holds no activation above 65504, "
                                      "which the model exceeds, or the run diverges: set "
                                      "model.products = \"dtype\", or lower the learning rate"
                                    : "the run diverges, or the model's numbers are too large for "
                                      "model.dtype: lower the learning rate and begin anew "
                                      "with --overwrite"),
                who);
  }
  if (mean() - 3 * standard_error() <= limit) return;
  const std::string causes =
      kept == configs::KvType::kModel
          ? "they do not compute the same policy (other weights, dtype or sampling filters)"
          : "rollout.kv_type = \"" + configs::NameOf(kept) +
                "\" rounds the keys and values that the actor sees: use a wider one or \"model\", "
                "or raise the gate. If they differ with \"model\", too, they do not compute the "
                "same policy (other weights, dtype or sampling filters)";
  throw Error(
      ErrorCode::kConflict,
      "log-probs of actor and learner differ by " + std::to_string(mean()) + " +- " +
          std::to_string(standard_error()) + " nats on average over " + std::to_string(tokens_) +
          " tokens, more than algorithm.logprob_gate = " + std::to_string(limit) + ": " + causes,
      who);
}

}  // namespace plumb::learner
