// AdamW over the flat buffers of the sets that are trained, with the guard that keeps non-finite
// numbers out of the weights.
//
//   set.flat        T[N]        what forward and backward read
//   master          float[N]    is set.flat itself when T is float
//   m, v, grad      float[N]
// A set that is not trained has none of them. optimizer.moments = "int8" keeps m and v in 8 bits
// (kernels/adamw_compact.h, learner/update/compact_moments.h), optimizer.masters = "none" no
// master; both round at random, by the seed. Thread safety: one thread. Ownership: owns master, m,
// v and grad; the weights are the caller's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "configs/config.h"
#include "kernels/adamw.h"
#include "learner/update/compact_moments.h"
#include "policy_model/memory/weights.h"

namespace plumb::learner {

struct UpdateResult {
  bool applied = false;
  double grad_norm = 0;     // before clipping; may be non-finite when not applied
  std::string why_skipped;  // empty when applied
};

class Optimizer {
 public:
  // `seed`: of the random roundings; another one for each model of a run. kUnsupported on a GPU for
  // options that are computed on the CPU only.
  Optimizer(policy_model::Weights& weights, const configs::OptimizerConfig& options,
            uint64_t seed = 1);

  // Of one trained set. Its memory is the optimizer's, the parameters the model's.
  struct SetState {
    std::shared_ptr<policy_model::ParameterSet> set;
    // Empty where the set's type is float, and where there are to be none.
    policy_model::FlatBuffer own_master = {};
    policy_model::FlatBuffer grad = {}, decay_mask = {};
    policy_model::FlatBuffer m = {}, v = {};  // empty where they are kept in 8 bits:
    CompactMoments m8 = {}, v8 = {};          // else empty
    bool has_own_master() const { return own_master.elements() > 0; }
    // Every buffer that holds moments.
    std::vector<policy_model::FlatBuffer*> moments();
    // Master of its own or none at all, and moments, are what AdamwUpdate takes.
    bool compact() const {
      return m.elements() == 0 || (!has_own_master() && set->flat.dtype() != DType::kFloat32);
    }
    policy_model::FlatBuffer& master() { return has_own_master() ? own_master : set->flat; }
  };
  std::span<SetState> sets() { return sets_; }

  // Where a backward of the model adds.
  const policy_model::Gradients& gradients() const { return gradients_; }
  void ZeroGrad();

  // Norm, guard, clip, update of weights in place. `loss` is checked too. A skipped update leaves
  // everything as it was and counts; max_skipped_in_a_row of them throw Error(kNonFinite).
  // `weight_decay`: of a phase that has one of its own; else that of the options.
  UpdateResult Update(double learning_rate, double loss,
                      std::optional<double> weight_decay = std::nullopt);

  int64_t updates() const { return updates_; }
  int64_t skipped() const { return skipped_; }

  // Of a model with one trained set.
  policy_model::FlatBuffer& grad() { return sets_.front().grad; }
  policy_model::FlatBuffer& m() { return sets_.front().m; }
  policy_model::FlatBuffer& v() { return sets_.front().v; }
  struct Counters {
    int64_t updates = 0, skipped = 0, skipped_in_a_row = 0;
    bool operator==(const Counters&) const = default;
  };
  Counters counters() const { return {updates_, skipped_, skipped_in_a_row_}; }
  void Restore(const Counters& counters);
  // Forgets the moments (a new phase starts).
  void ResetMoments();
  // After weights changed from outside (loaded): takes them as the masters.
  void AdoptWeights();

 private:
  double SumOfSquares();
  void UpdateCompact(size_t set, const kernels::AdamwOptions& adamw);
  configs::OptimizerConfig options_;
  uint64_t seed_;
  std::vector<SetState> sets_;
  std::vector<policy_model::FlatBuffer*> adapter_grads_;  // what gradients_ points to
  policy_model::Gradients gradients_;
  policy_model::FlatBuffer norm_scratch_;
  int64_t updates_ = 0, skipped_ = 0, skipped_in_a_row_ = 0, moment_steps_ = 0;
  std::optional<std::string> left_out_;

 public:
  int64_t moment_steps() const { return moment_steps_; }
  void set_moment_steps(int64_t steps) { moment_steps_ = steps; }
  // The digest of moments that a checkpoint had left out, until there are new ones.
  const std::optional<std::string>& left_out() const { return left_out_; }
  void set_left_out(std::string digest) { left_out_ = std::move(digest); }
};

}  // namespace plumb::learner
