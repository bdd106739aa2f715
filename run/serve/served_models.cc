#include "run/serve/served_models.h"

#include <filesystem>

#include "common/base/error.h"

namespace plumb::run {

ServedModels::ServedModels(const std::string& path, const ModelOptions& options,
                           const std::string& name)
    : folder_(LoadModel(path, options)) {
  std::string own = std::filesystem::path(path).lexically_normal().filename().string();
  if (own.empty())
    own = std::filesystem::path(path).lexically_normal().parent_path().filename().string();
  models_.push_back({name.empty() ? own : name, path, folder_.weights.get()});
}

void ServedModels::AddAdapter(const std::string& name, const std::string& path) {
  if (name.empty() || Find(name) >= 0)
    throw Error(ErrorCode::kInvalidArgument,
                "the name \"" + name + "\" is " + (name.empty() ? "empty" : "taken"), "--adapter");
  const ModelPlace place = FindModel(path);
  if (!place.is_adapter())
    throw Error(ErrorCode::kInvalidArgument,
                "is no adapter but a model: serve it by itself, on another --port", path);
  if (folder_.weights->sets().size() > 1) {
    throw Error(ErrorCode::kInvalidArgument,
                "--adapter needs the base as the model, and this is an adapter itself: name " +
                    folder_.base + " and give both by --adapter",
                folder_.path);
  }
  std::error_code none;
  if (!std::filesystem::equivalent(place.base, folder_.base, none)) {
    throw Error(ErrorCode::kConflict,
                "stands on " + place.base + ", not on the model that is served, " + folder_.base,
                path);
  }
  const policy_model::AdapterSpec spec = policy_model::ReadAdapterConfig(place.model).spec;
  if (!spec.tasks.empty()) {
    throw Error(ErrorCode::kUnsupported,
                "holds adapters that are weighed by the task: `plumb convert --task NAME` takes "
                "one out",
                path);
  }
  policy_model::Weights& weights = adapted_.emplace_back(folder_.weights->WithoutAdapters());
  weights.AddAdapter(spec, 0);
  weights.LoadTrained(place.model);
  models_.push_back({name, path, &weights});
}

int ServedModels::Find(const std::string& name) const {
  if (name.empty()) return 0;
  for (size_t i = 0; i < models_.size(); ++i) {
    if (models_[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

std::pair<std::string, std::string> ReadAdapterOption(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
    throw Error(ErrorCode::kInvalidArgument, "is \"" + text + "\": write NAME=FOLDER", "--adapter");
  return {text.substr(0, equals), text.substr(equals + 1)};
}

}  // namespace plumb::run
