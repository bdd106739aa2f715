// What every role of a run starts from: the resolved recipe, the run folder, the model's shape and its tokenizer.
//
// Purpose: made from the run folder in the same way in one process and in several, so that roles agree.
//   run folder   config.toml (resolved)  run.json (run id)  metrics.jsonl  samples.jsonl  summary.json  report.html
//                tensorboard/  logs/  checkpoints/  store/  tokenizer/ (of a from-scratch model)
// Thread safety: const after Open; shared by the threads of a local run. Errors: kInvalidArgument, kNotFound with paths.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/dtype.h"
#include "common/trajectory.h"
#include "configs/config.h"
#include "kernels/launch.h"
#include "policy_model/files/chat_template.h"
#include "policy_model/files/model_config.h"
#include "policy_model/files/tokenizer.h"
#include "run/model_folder.h"

namespace plumb::run {

struct RunFolder {
  std::string path;
  std::string config() const { return path + "/config.toml"; }
  std::string identity() const { return path + "/run.json"; }
  std::string metrics() const { return path + "/metrics.jsonl"; }
  std::string samples() const { return path + "/samples.jsonl"; }
  std::string summary() const { return path + "/summary.json"; }
  std::string report() const { return path + "/report.html"; }
  std::string tensorboard() const { return path + "/tensorboard"; }
  std::string logs() const { return path + "/logs"; }
  std::string checkpoints() const { return path + "/checkpoints"; }
  std::string store() const { return path + "/store"; }
  std::string tokenizer() const { return path + "/tokenizer"; }
};

// Makes the folder of a new run, or checks that `loaded` is the recipe a resumed one was started with (steps, roles and
// the like may differ). `overwrite` removes an older run first. Returns the folder.
RunFolder PrepareRunFolder(configs::Config& config, const std::string& recipe_path, bool resume, bool overwrite);

class Session {
 public:
  // From a folder made by PrepareRunFolder. Sets the thread count of this process.
  static std::unique_ptr<Session> Open(const std::string& folder);
  // Model shape, tokenizer and template of a recipe that is looked at and not run: folder() and run_id() are empty, the
  // device is the CPU whatever the recipe says.
  static std::unique_ptr<Session> WithoutRun(const configs::Config& config);

  const configs::Config& config() const { return config_; }
  const RunFolder& folder() const { return folder_; }
  const std::string& run_id() const { return run_id_; }
  const policy_model::ModelShape& shape() const { return shape_; }
  const policy_model::Tokenizer& tokenizer() const { return *tokenizer_; }
  const policy_model::ChatTemplate* chat_template() const { return template_.get(); }
  const std::string& tokenizer_source() const { return tokenizer_source_; }
  Device device() const { return device_; }
  DType dtype() const { return dtype_; }

  PromptEncoder encoder() const { return {*tokenizer_, template_.get(), shape_, add_bos_, config_.model.path}; }
  // A prompt as rollouts ask it: through the chat template where the model has one.
  std::vector<int32_t> Tokenize(const Prompt& prompt) const { return encoder().Encode(prompt, /*raw=*/false); }

 private:
  Session() = default;
  void ReadModel();
  configs::Config config_;
  RunFolder folder_;
  std::string run_id_;
  policy_model::ModelShape shape_;
  std::unique_ptr<policy_model::Tokenizer> tokenizer_;
  std::unique_ptr<policy_model::ChatTemplate> template_;
  bool add_bos_ = false;  // in front of text that no template renders
  std::string tokenizer_source_;
  Device device_ = Device::kCpu;
  DType dtype_ = DType::kFloat32;
};

// The prompts of a run, tokenized; `notes` are the row ledgers in words.
struct PromptData {
  std::vector<Prompt> train, eval;
  std::vector<std::string> notes;
};
// `rows`, where given, counts along.
PromptData LoadPrompts(const Session& session, std::atomic<int64_t>* rows = nullptr);

struct DemonstrationData {
  std::vector<Demonstration> train, heldout;
  std::vector<std::string> notes;
};
// Empty when the recipe has no warm start.
DemonstrationData LoadDemonstrations(const Session& session);

}  // namespace plumb::run
