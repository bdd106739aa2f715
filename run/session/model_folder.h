// A model folder opened for the verbs that use a model without a run: generate, chat, score, eval.
//
// Purpose: shape, tokenizer, chat template and weights of a Hugging Face model folder (also of a
// checkpoint's model/), or of a PEFT adapter's folder together with the base that it names. Thread
// safety: const after LoadModel. Ownership: owns everything; Weights do not move. Errors: those of
// the files, with paths; kInvalidArgument for options, kUnsupported for a device this build has
// not.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/record/trajectory.h"
#include "common/text/template/chat_template.h"
#include "common/text/tokenizer/tokenizer.h"
#include "policy_model/families/model_config.h"
#include "policy_model/memory/weights.h"

namespace plumb::run {

// What messages meet in a model without a chat template, and what to do; `model`: its folder, "" of
// a new model, which never gets one.
std::string NoTemplate(const std::string& model);

struct ModelOptions {
  // auto (float32 where config.json says so, else bfloat16) | float32 | bfloat16
  std::string dtype = "auto";
  std::string device = "cpu";  // cpu | cuda | cuda:N
  // auto | yes | no: a begin token in front of text that no chat template renders
  std::string bos = "auto";
  int64_t threads = 0;  // 0: one a core
  // an adapter's folder: its numbers become a part of the base's, which is faster to use
  bool merge = false;
  // Of adapters with tasks: which task's model it is. An adapter of one task has none.
  std::string task;
  // a reward model or critic is taken, too; else refused, for it has no words to say
  bool scalar_head = false;
};

// Where a model's files are: a model folder, an adapter's, or a run's that has ended.
struct ModelPlace {
  std::string model;  // the model folder, or the adapter's
  std::string base;   // holds config.json and the tokenizer: of an adapter what it stands on
  bool is_adapter() const { return model != base; }
};
// kNotFound where there is none, with what to do: names of the hub are not read, nor GGUF files.
ModelPlace FindModel(const std::string& path);

// The one way from texts to tokens, for runs and verbs alike. Borrows what it points to.
struct PromptEncoder {
  const Tokenizer& tokenizer;
  const ChatTemplate* chat_template;  // nullptr: none
  const policy_model::ModelShape& shape;
  bool add_bos;              // in front of text that no template renders
  const std::string& model;  // for messages
  // learned tokens of a task, in front of prompts (common/record/task_tokens.h)
  std::span<const int32_t> front = {};

  // Text as it stands, with the begin token where the model wants one.
  std::vector<int32_t> Text(const std::string& text) const;
  // Messages and, unless `raw`, plain text as a user's message go through the chat template; a base
  // model continues the text.
  std::vector<int32_t> Encode(const Prompt& prompt, bool raw) const;
  // An answer as text: ended by the end token, once.
  std::vector<int32_t> Answer(const std::string& text) const;
};

struct ModelFolder {
  std::string path;
  std::string base;  // ModelPlace::base
  policy_model::ModelShape shape;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;  // nullptr: none
  OwnedStream stream{Device::kCpu};  // for the one who uses the model; the weights are on it
  std::unique_ptr<policy_model::Weights> weights;
  DType dtype = DType::kFloat32;
  bool add_bos = false;
  std::vector<int32_t> front;  // PromptEncoder::front

  PromptEncoder encoder() const {
    return {*tokenizer, chat_template.get(), shape, add_bos, path, front};
  }
  std::vector<int32_t> EncodeText(const std::string& text) const { return encoder().Text(text); }
  std::vector<int32_t> EncodePrompt(const Prompt& prompt, bool raw) const {
    return encoder().Encode(prompt, raw);
  }
};

// The same without weights, for what only reads and writes text: shape, tokenizer, chat template,
// begin token.
ModelFolder LoadVocabulary(const std::string& path, const std::string& bos);

// What scores texts as they stand does not know of a task's learned tokens: kUnsupported for a
// model that has them.
void RefuseTaskTokens(const ModelFolder& model);

// `path`: as FindModel takes it. kInvalidArgument: adapters with tasks and no options.task, or one
// that they do not know.
ModelFolder LoadModel(const std::string& path, const ModelOptions& options);

// Begin and end token that config.json does not name, from the tokenizer's files.
void FillSpecialTokens(const std::string& path, const Tokenizer& tokenizer,
                       policy_model::ModelShape& shape);

// What config.json calls its dtype; empty where it says nothing.
std::string StoredDtype(const std::string& folder);

// auto: what tokenizer.json's post-processor says; the built-in vocabulary of the from-scratch
// model begins with one.
bool WantsBos(const std::string& path, const policy_model::ModelShape& shape,
              const Tokenizer& tokenizer, const std::string& option);

}  // namespace plumb::run
