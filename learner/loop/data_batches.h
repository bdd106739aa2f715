// Batches with the data's answers between those with the student's own: distill.student_share.
//
// Purpose: on-policy distillation of which a share learns from demonstrations, as GKD's lambda says
// (Agarwal et al., 2024, algorithm 1). A step has one batch of the student's; of the data's so many
// follow that, over the steps so far, the student's are that share: floor((k + 1) r) - floor(k r)
// behind step k, r = (1 - share) / share. How many, and which rows of which batch, follow from
// (seed, step), so that a resume goes on as if it had not been broken off.
// Thread safety: one thread. Ownership: owns the student's algorithm; borrows the rest.
// Errors: those of DistillObjective.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "configs/config.h"
#include "learner/algorithms/algorithm.h"
#include "learner/offline/distill_objective.h"

namespace plumb::learner {

class DataBatches : public Algorithm {
 public:
  // `student`: trains on the student's batches. `data`: not empty. The share of `config` is above
  // 0.
  DataBatches(std::unique_ptr<Algorithm> student, const configs::Config& config, TrainStep& train,
              policy_model::Weights& weights, Optimizer& optimizer, Distiller& distiller,
              std::span<const Demonstration> data);

  // Of all steps before this one.
  static int64_t Before(double student_share, int64_t step);

  // The student's batch of `step`, then those of the data: an update each, with metrics of their
  // own beside the student's.
  std::map<std::string, double> Train(std::span<const TrajectoryGroup> groups, double learning_rate,
                                      int64_t step) override;
  std::vector<NamedModel> Models() override { return student_->Models(); }
  std::string StateJson() const override { return student_->StateJson(); }
  void RestoreState(const std::string& json) override { student_->RestoreState(json); }

 private:
  const std::unique_ptr<Algorithm> student_;
  const double share_;
  const int64_t batch_;
  const uint64_t seed_;
  const std::vector<std::string> datasets_;
  DistillObjective objective_;
};

}  // namespace plumb::learner
