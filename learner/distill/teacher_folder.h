// What lies in a teacher's folder: a model, or an adapter in PEFT's form beside the model that it
// stands on.
//
// Purpose: a teacher that is an adapter over the student's own base shares that base's memory,
// where the student does not train it.
// Thread safety: functions of the file system. Errors: kNotFound for an adapter whose base is not
// where its adapter_config.json says; kUnsupported for adapters that are weighed by the task.
#pragma once

#include <string>

#include "configs/config.h"
#include "policy_model/memory/weights.h"

namespace plumb::learner {

struct TeacherFolder {
  std::string base;     // has config.json
  std::string adapter;  // has adapter_config.json; empty: there is none

  // Where its vocabulary is: beside the adapter, or else the base's.
  std::string vocabulary() const;
};

TeacherFolder TeacherFolderOf(const std::string& folder);

// The base is the policy's own, which stays as it is.
bool SharesBase(const TeacherFolder& teacher, const configs::Config& config,
                const policy_model::Weights& policy);

// With memory, loaded, in the policy's type and on its device. `shape`: TeacherShape.
policy_model::Weights LoadTeacher(const TeacherFolder& teacher, const configs::Config& config,
                                  const policy_model::ModelShape& shape,
                                  const policy_model::Weights& policy);

}  // namespace plumb::learner
