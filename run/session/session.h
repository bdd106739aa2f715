// What every role of a run starts from: the resolved recipe, the run folder, the model's shape and
// its tokenizer.
//
// Purpose: made from the run folder in the same way in one process and in several, so that roles
// agree.
// Thread safety: const after Open; shared by the threads of a local run. Errors: kInvalidArgument,
// kNotFound with paths.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/dtype.h"
#include "common/record/trajectory.h"
#include "common/text/template/chat_template.h"
#include "common/text/tokenizer/tokenizer.h"
#include "configs/config.h"
#include "kernels/device/stream.h"
#include "policy_model/families/model_config.h"
#include "run/session/model_folder.h"
#include "run/session/run_folder.h"

namespace plumb::run {

class Session {
 public:
  // From a folder made by PrepareRun (run/session/run_folder.h). Sets the thread count of this
  // process. `device_of`: where this process computes, if that is not the learner's device.
  using DeviceOf = std::function<Device(const configs::Config&)>;
  static std::unique_ptr<Session> Open(const std::string& folder, const DeviceOf& device_of);
  static std::unique_ptr<Session> Open(const std::string& folder) { return Open(folder, {}); }
  // Model shape, tokenizer and template of a recipe that is looked at and not run: folder() and
  // run_id() are empty, the device is the CPU whatever the recipe says. `scalar_head`: the model
  // may be a reward model, of which only the text is looked at.
  static std::unique_ptr<Session> WithoutRun(const configs::Config& config,
                                             bool scalar_head = false);

  const configs::Config& config() const { return config_; }
  const RunFolder& folder() const { return folder_; }
  const std::string& run_id() const { return run_id_; }
  const policy_model::ModelShape& shape() const { return shape_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const ChatTemplate* chat_template() const { return template_.get(); }
  const std::string& tokenizer_source() const { return tokenizer_source_; }
  // Of the process: the learner's, and the actor's where it has a process of its own.
  const Stream& stream() const { return stream_; }
  DType dtype() const { return dtype_; }

  PromptEncoder encoder() const {
    return {*tokenizer_, template_.get(), shape_, add_bos_, config_.model.path};
  }
  // The one rule for prompts, pairs and demonstrations: the model's chat template, where it has
  // one, renders messages always and text unless data.chat_template = false.
  bool Renders(bool messages) const {
    return template_ != nullptr && (messages || config_.data.chat_template);
  }
  // A prompt as rollouts ask it, behind its task where the policy has tasks.
  std::vector<int32_t> Tokenize(const Prompt& prompt) const;
  // What stands in front of a row's tokens (common/record/task_tokens.h), by the column that
  // data.map.task names among the row's others; empty: the policy has no tasks. kInvalidArgument
  // names the row and the known tasks.
  std::vector<int32_t> TaskFront(std::string_view columns_json, const std::string& where) const;
  // The same in front of a row that is learned from: nothing of it is learned, nor what would
  // follow directly behind it, before which the base sees nothing.
  void PutTask(std::string_view columns_json, const std::string& where, Demonstration& row) const;
  // What becomes of text, said once at the start of a run; none where nothing could become of it.
  std::vector<std::string> TextNotes() const;

 private:
  Session() = default;
  // Asks the environment which tools it has, so that one that cannot answer is known before
  // anything is trained; `model`: whose template it is.
  void MeetEnvironment(const std::string& model);
  void ReadModel(bool scalar_head = false);
  configs::Config config_;
  RunFolder folder_;
  std::string run_id_;
  policy_model::ModelShape shape_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> template_;
  std::string tools_json_;  // of the environment
  bool add_bos_ = false;    // in front of text that no template renders
  std::string tokenizer_source_;
  OwnedStream stream_{Device::kCpu};
  DType dtype_ = DType::kFloat32;
};

// The prompts of a run, tokenized; `notes` are the row ledgers in words.
struct PromptData {
  std::vector<Prompt> train, eval;
  std::vector<std::string> notes;
  std::map<std::string, int64_t> rows;  // run/session/row_counts.h
};
// `rows`, where given, counts along.
PromptData LoadPrompts(const Session& session, std::atomic<int64_t>* rows = nullptr);

// Before anything is generated: kInvalidArgument where a reward part compares with a ground truth
// that no prompt to train on has, so that no answer would get a score; a note where some lack it,
// and where prompts lack what a Python function asks for (run/session/recipe/missing_truths.h).
void CheckTruths(const configs::Config& config, PromptData& data);

}  // namespace plumb::run
