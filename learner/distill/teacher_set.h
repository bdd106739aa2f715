// The teachers of a run: one for all, or one for each dataset.
//
// Thread safety: one thread. Ownership: owns the teachers; borrows the reference that teaches
// itself. Errors: those of the teachers; kInvalidArgument for a sequence of a dataset that nobody
// teaches, with those that somebody does.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "configs/config.h"
#include "learner/distill/teacher.h"

namespace plumb::learner {

class TeacherSet {
 public:
  // `self`: nullptr where distill.teachers does not name it.
  TeacherSet(const configs::Config& config, const policy_model::Weights& policy, Ranks* ranks,
             ReferencePolicy* self);

  // datasets: of each sequence. Each teacher is asked once, of its sequences in their order.
  std::vector<TeacherRows> Say(std::span<const SequenceView> sequences,
                               std::span<const std::string> datasets,
                               const TeacherQuestion& question);

 private:
  struct Of {
    std::string dataset;
    std::shared_ptr<Teacher> teacher;
  };
  Teacher& For(const std::string& dataset) const;
  std::vector<Of> teachers_;
};

// What TeacherSet would refuse and can be known at once.
void CheckTeachers(const configs::Config& config, const policy_model::ModelShape& policy);

}  // namespace plumb::learner
