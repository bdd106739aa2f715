// AdamW over the flat buffers, with the guard that keeps non-finite numbers out of the weights.
//
//   weights.flat()  T[N]        what forward and backward read
//   master          float[N]    is weights.flat() itself when T is float
//   m, v, grad      float[N]
// Thread safety: one thread. Ownership: owns master, m, v and grad; the weights are the caller's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "configs/config.h"
#include "policy_model/weights.h"

namespace plumb::learner {

struct UpdateResult {
  bool applied = false;
  double grad_norm = 0;    // before clipping; may be non-finite when not applied
  std::string why_skipped; // empty when applied
};

class Optimizer {
 public:
  Optimizer(policy_model::Weights& weights, const configs::OptimizerConfig& options);

  policy_model::FlatBuffer& grad() { return grad_; }
  void ZeroGrad() { grad_.Zero(); }

  // Norm, guard, clip, update of weights in place. `loss` is checked too. A skipped update leaves everything as it was and
  // counts; max_skipped_in_a_row of them throw Error(kNonFinite). `weight_decay`: of a phase that has one of its own; else
  // that of the options.
  UpdateResult Update(double learning_rate, double loss, std::optional<double> weight_decay = std::nullopt);

  int64_t updates() const { return updates_; }
  int64_t skipped() const { return skipped_; }

  // For checkpoints. With a float model master() is the weights' buffer.
  policy_model::FlatBuffer& master() { return own_master_ ? *own_master_ : weights_.flat(); }
  bool has_own_master() const { return own_master_ != nullptr; }
  policy_model::FlatBuffer& m() { return m_; }
  policy_model::FlatBuffer& v() { return v_; }
  struct Counters {
    int64_t updates = 0, skipped = 0, skipped_in_a_row = 0;
    bool operator==(const Counters&) const = default;
  };
  Counters counters() const { return {updates_, skipped_, skipped_in_a_row_}; }
  void Restore(const Counters& counters);
  // Forgets the moments (a new phase starts).
  void ResetMoments();
  // After weights changed from outside (loaded): takes them as the master.
  void AdoptWeights();

 private:
  policy_model::Weights& weights_;
  configs::OptimizerConfig options_;
  std::unique_ptr<policy_model::FlatBuffer> own_master_;
  policy_model::FlatBuffer grad_, m_, v_, decay_mask_, norm_scratch_;
  int64_t updates_ = 0, skipped_ = 0, skipped_in_a_row_ = 0, moment_steps_ = 0;

 public:
  int64_t moment_steps() const { return moment_steps_; }
  void set_moment_steps(int64_t steps) { moment_steps_ = steps; }
};

}  // namespace plumb::learner
