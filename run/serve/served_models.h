// The models of a server by name: one, and adapters that stand on it.
//
// Purpose: a model folder (or an adapter's, or a run's) is the first; adapters that are added share
// its base's memory. Thread safety: const after construction. Ownership: owns the weights; models
// do not move. Errors: those of the files; kInvalidArgument for a name that is given twice, or for
// an adapter that is none, kConflict for one on another base, kUnsupported for one with tasks.
#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "policy_model/memory/weights.h"
#include "run/session/model_folder.h"

namespace plumb::run {

struct ServedModel {
  std::string name;
  std::string path;
  const policy_model::Weights* weights = nullptr;
};

class ServedModels {
 public:
  // `name` of the first; "": its folder's.
  ServedModels(const std::string& path, const ModelOptions& options, const std::string& name = "");

  void AddAdapter(const std::string& name, const std::string& folder);

  // What all share: shape, tokenizer, chat template, stream.
  const ModelFolder& folder() const { return folder_; }
  const std::vector<ServedModel>& models() const { return models_; }
  // Index of the name; "": the first; -1: none.
  int Find(const std::string& name) const;

 private:
  ModelFolder folder_;
  std::deque<policy_model::Weights> adapted_;  // stay where they are
  std::vector<ServedModel> models_;
};

// "NAME=FOLDER"
std::pair<std::string, std::string> ReadAdapterOption(const std::string& text);

}  // namespace plumb::run
