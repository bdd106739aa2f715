#include "learner/distill/teacher_folder.h"

#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"
#include "configs/places/run_start.h"

namespace plumb::learner {

using policy_model::Weights;

std::string TeacherFolder::vocabulary() const {
  return !adapter.empty() && RealFileSystem().Exists(adapter + "/tokenizer.json") ? adapter : base;
}

TeacherFolder TeacherFolderOf(const std::string& folder) {
  const std::string config = folder + "/" + policy_model::kAdapterConfig;
  if (RealFileSystem().Exists(folder + "/config.json") || !RealFileSystem().Exists(config))
    return {.base = folder, .adapter = ""};
  const policy_model::AdapterConfig read = policy_model::ReadAdapterConfig(folder);
  if (!read.spec.tasks.empty()) {
    throw Error(ErrorCode::kUnsupported,
                "holds adapters that are weighed by the task, and a teacher has none: `plumb "
                "convert --task NAME` takes one out",
                folder);
  }
  const std::string base = configs::PlaceNamedInRun(read.base_model, folder);
  if (!RealFileSystem().Exists(base + "/config.json")) {
    throw Error(ErrorCode::kNotFound,
                "the teacher's base is \"" + read.base_model +
                    "\", and no model is there: write into base_model_name_or_path where it is now",
                config);
  }
  return {.base = base, .adapter = folder};
}

bool SharesBase(const TeacherFolder& teacher, const configs::Config& config,
                const Weights& policy) {
  std::error_code none;
  return !teacher.adapter.empty() && !policy.adapters().empty() && !policy.base().trained &&
         !config.model.path.empty() &&
         std::filesystem::equivalent(teacher.base, config.model.path, none);
}

Weights LoadTeacher(const TeacherFolder& teacher, const configs::Config& config,
                    const policy_model::ModelShape& shape, const Weights& policy) {
  const bool shares = SharesBase(teacher, config, policy);
  Weights weights =
      shares ? policy.WithoutAdapters() : Weights(shape, policy.stream(), policy.dtype());
  if (!shares) weights.Load(teacher.base);
  if (!teacher.adapter.empty()) {
    weights.AddAdapter(policy_model::ReadAdapterConfig(teacher.adapter).spec, 0);
    weights.LoadTrained(teacher.adapter);
  }
  return weights;
}

}  // namespace plumb::learner
