// What the updates of one step sum up, and the metrics that come of it under every algorithm with
// rollouts.
//
// Thread safety: one thread. Ownership: none. Units: nats; names are those of docs/metrics.md.
#pragma once

#include <map>
#include <string>

#include "learner/algorithms/logprob_gate.h"
#include "learner/update/optimizer.h"
#include "learner/update/train_step.h"

namespace plumb::learner {

struct StepTotals {
  double kl = 0, entropy = 0, ratio = 0, clipped = 0, approx_kl = 0, importance = 0;  // over tokens
  int64_t tokens = 0;                                                                 // scored
  int64_t updates = 0, forward_tokens = 0;
  LogprobGate gate;

  // `reweighed`: tokens have off-policy weights. Takes the count of shared tokens.
  void AddMetrics(const Optimizer& optimizer, TrainStep& train, double learning_rate,
                  bool reweighed, std::map<std::string, double>& metrics) const {
    if (tokens > 0) {  // else nothing was measured, and a 0 would read as a measurement
      const auto n = static_cast<double>(tokens);
      metrics["policy/entropy"] = entropy / n;
      metrics["policy/ratio"] = ratio / n;
      metrics["policy/clip_fraction"] = clipped / n;
      metrics["policy/approx_kl"] = approx_kl / n;
      if (reweighed) metrics["sampling/importance_ratio"] = importance / n;
    }
    if (gate.tokens() > 0) {
      metrics["sampling/logprob_diff_mean"] = gate.mean();
      metrics["sampling/logprob_diff_max"] = gate.max();
    }
    metrics["optim/lr"] = learning_rate;
    metrics["optim/skipped"] = static_cast<double>(optimizer.skipped());
    metrics["policy/updates"] = static_cast<double>(updates);
    metrics["perf/train_tokens"] = static_cast<double>(forward_tokens);
    metrics["perf/shared_tokens"] = static_cast<double>(train.TakeSharedTokens());
  }
};

}  // namespace plumb::learner
