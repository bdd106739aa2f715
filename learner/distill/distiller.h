// What a run does with its teachers, whatever it trains by: asks them about a batch, leaves out
// what they are unsure of, measures the student, and says how it went.
//
// Purpose: shared by the algorithms with rollouts and by demonstrations.
//   distiller.Ask(views, datasets, ...) -> what was said of each
//   distiller.Compare(said, ...)        -> the measure that the next Accumulate is given
//   distiller.Count(...) for each token -> AddMetrics
// Confidence: the mean probability that a teacher gives an answer's tokens. Below
// distill.confidence an answer is left out, but for distill.unsure_share of them, drawn by (seed,
// step, place in the batch).
// Thread safety: one thread. Ownership: owns the teachers; borrows the reference.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "configs/config.h"
#include "learner/distill/student_measure.h"
#include "learner/distill/teacher_set.h"

namespace plumb::learner {

class Distiller {
 public:
  Distiller(const configs::Config& config, const policy_model::Weights& policy, Ranks* ranks,
            ReferencePolicy* self);

  const configs::DistillConfig& options() const { return options_; }
  // The token's advantage is coef (log p_teacher - log p_student).
  bool by_advantage() const { return options_.distance == configs::Distance::kReverseK1; }
  bool by_token_kl() const { return options_.distance == configs::Distance::kReverseK3; }

  // Begins a batch: its metrics are counted from here. What is left out is empty.
  std::vector<TeacherRows> Ask(std::span<const SequenceView> sequences,
                               std::span<const std::string> datasets, float temperature,
                               uint64_t step, bool hidden = false);
  // For the next Accumulate over these sequences. `features`: of hidden states.
  StudentMeasure* Compare(std::vector<const TeacherRows*> said, bool features = false);
  StudentMeasure& measure() { return measure_; }

  // A token that was taught, as the first pass of a batch found it: the teacher's log-prob of it,
  // the divergence, and what the measure said.
  void Count(float teacher_logprob, double divergence, const float* measured);
  void AddMetrics(std::map<std::string, double>& metrics) const;

 private:
  const configs::DistillConfig options_;
  const uint64_t seed_;
  TeacherSet teachers_;
  StudentMeasure measure_;
  struct Totals {
    double divergence = 0, teacher_logprob = 0, agreement = 0, boundary = 0, confidence = 0;
    int64_t tokens = 0, answers = 0, left_out = 0;
  } totals_;
};

}  // namespace plumb::learner
