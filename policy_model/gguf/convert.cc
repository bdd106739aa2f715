#include "policy_model/gguf/convert.h"

#include <optional>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/text/template/chat_template.h"
#include "common/text/tokenizer/tokenizer.h"
#include "common/text/unicode.h"
#include "policy_model/families/model_config.h"
#include "policy_model/gguf/shape_keys.h"
#include "policy_model/gguf/tokenizer_files.h"
#include "policy_model/gguf/weight_tensors.h"

namespace plumb::policy_model {
namespace {

// What is in the way of a model, all that would be written but the chat template, which may be the
// user's.
constexpr const char* kModelFiles[] = {"/config.json", "/model.safetensors",
                                       "/model.safetensors.index.json", "/tokenizer.json"};

// A folder is of use to others where the tokenizer is of a form that is not read here.
void CheckTokenizer(const std::string& json, const std::string& gguf) {
  try {
    Tokenizer::Parse(json, gguf + ": its tokenizer");
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kUnsupported) throw;
    LogWarningOnce(
        std::string("Plumb itself cannot read the tokenizer that is written, others can: ") +
        e.what());
  }
}

std::optional<std::string> ChatOf(const GgufReader& in) {
  if (!in.Has("tokenizer.chat_template")) return std::nullopt;
  std::string chat = in.Text("tokenizer.chat_template");
  if (!IsUtf8(chat))
    throw Error(ErrorCode::kCorruption, "the chat template is not valid UTF-8", in.path());
  if (!chat.empty()) ChatTemplate::Parse(chat, "", "");
  return chat;
}

}  // namespace

void ConvertGguf(const std::string& gguf, const std::string& directory, DType dtype,
                 bool overwrite) {
  if (dtype != DType::kFloat32 && dtype != DType::kBFloat16) {
    throw Error(ErrorCode::kInvalidArgument, "weights are written as float32 or bfloat16", gguf);
  }
  // All of the input is read and checked before the first file is written or removed;
  // config.json, which makes the folder a model, comes last.
  const auto in = GgufReader::Open(gguf);
  const ModelShape shape = ShapeOf(*in);
  const std::vector<TensorToWrite> tensors = WeightTensors(*in, shape, ArchitectureOf(*in), dtype);
  const std::optional<std::string> chat = ChatOf(*in);
  std::string tokenizer = TokenizerJson(*in, shape);
  CheckTokenizer(tokenizer, gguf);
  FileSystem& files = RealFileSystem();
  for (const char* name : kModelFiles) {
    if (!files.Exists(directory + name)) continue;
    if (!overwrite)
      throw Error(ErrorCode::kConflict,
                  "there is a model already: choose another folder, or replace it with --overwrite",
                  directory);
  }
  for (const char* name : kModelFiles) {
    if (files.Exists(directory + name)) files.Remove(directory + name);
  }
  files.CreateDirectories(directory);
  files.WriteFileAtomic(directory + "/tokenizer.json", tokenizer);
  tokenizer = {};  // tens of MB that the weights need not stand beside
  files.WriteFileAtomic(directory + "/tokenizer_config.json", TokenizerConfigJson(*in, shape));
  if (chat) files.WriteFileAtomic(directory + "/chat_template.jinja", *chat);
  WriteSafetensors(directory + "/model.safetensors", tensors, {{"format", "pt"}});
  WriteModelConfig(shape, directory, dtype == DType::kFloat32 ? "float32" : "bfloat16");
}

}  // namespace plumb::policy_model
