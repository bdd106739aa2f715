// Do actor and learner compute the same policy? Compares the log-prob a token was drawn with to the
// learner's own of the same weights: the metric of every step (DESIGN: one forward, two ways to see
// the past), and a gate that stops the run.
//
// In float32 on the CPU the two agree to rounding; in bfloat16 a token differs by some hundredths,
// sometimes by tenths, so the mean of a few tokens says little: the gate closes where the mean
// exceeds the limit by more than three standard errors, and at once where a difference is not
// finite. Tokens of one answer are not independent, which is why it is three and not two.
// Thread safety: one thread. Units: nats.
#pragma once

#include <cstdint>

#include "configs/choices.h"

namespace plumb::learner {

class LogprobGate {
 public:
  void Add(double actor, double learner);

  int64_t tokens() const { return tokens_; }
  double mean() const;  // of |learner - actor|; 0 without tokens
  double max() const { return max_; }
  double standard_error() const;  // of the mean; infinite below two tokens

  // Throws kConflict when the mean lies above `limit` for certain, kNonFinite when a difference is
  // not finite; `limit` 0: never. `who` names the algorithm; `kept`: rollout.kv_type, which the
  // error names where it is not the model's own; `products`: model.products, which it names where
  // they are in float16.
  void Check(double limit, const char* who, configs::KvType kept, configs::Products products) const;

 private:
  int64_t tokens_ = 0;
  double sum_ = 0, squares_ = 0, max_ = 0;
};

}  // namespace plumb::learner
