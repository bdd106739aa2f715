// Scores brought to a common scale: running mean and standard deviation over the whole run, then a
// clip.
//
// Purpose: template over the scalar; its three numbers are part of a checkpoint. Thread safety: one
// thread.
// Source: pairwise update of mean and squared deviations: Chan, Golub, LeVeque, "Updating Formulae
// and a Pairwise Algorithm for Computing Sample Variances", 1979.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include "configs/choices.h"

namespace plumb::learner {

using configs::RewardNormalization;

template <class S>
class RewardScaling {
 public:
  // clip <= 0: off; else scores end in [-clip, clip].
  RewardScaling(RewardNormalization normalization, S clip)
      : normalization_(normalization), clip_(clip) {}

  struct State {
    int64_t count = 0;
    S mean = 0;
    S squares = 0;  // sum of squared deviations from the mean
  };
  const State& state() const { return state_; }
  void Restore(const State& state) { state_ = state; }

  S mean() const { return state_.mean; }
  // Unbiased; 1 until two different scores were seen, so that nothing is divided by 0.
  S std() const {
    if (state_.count < 2) return 1;
    const S value = std::sqrt(state_.squares / static_cast<S>(state_.count - 1));
    return value > S(1e-8) ? value : S(1);
  }

  // A batch of scores joins the running moments. REQUIRES: finite (the caller leaves out and counts
  // what is not).
  void Observe(std::span<const S> scores) {
    if (normalization_ == RewardNormalization::kOff || scores.empty()) return;
    const S n = static_cast<S>(scores.size());
    S mean = 0, squares = 0;
    for (const S x : scores) mean += x / n;
    for (const S x : scores) squares += (x - mean) * (x - mean);
    const S before = static_cast<S>(state_.count), total = before + n, delta = mean - state_.mean;
    state_.squares += squares + delta * delta * before * n / total;
    state_.mean += delta * n / total;
    state_.count += static_cast<int64_t>(scores.size());
  }

  S Apply(S score) const {
    switch (normalization_) {
      case RewardNormalization::kOff: break;
      case RewardNormalization::kScale: score /= std(); break;
      case RewardNormalization::kWhiten: score = (score - mean()) / std(); break;
    }
    return clip_ > 0 ? std::clamp(score, -clip_, clip_) : score;
  }

 private:
  RewardNormalization normalization_;  // constant after construction
  S clip_;
  State state_;
};

}  // namespace plumb::learner
