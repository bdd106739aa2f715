// plumb convert FILE.gguf DIR: a GGUF file into a Hugging Face model folder. plumb convert ADAPTER
// DIR: a LoRA adapter and the base that it names into one; of adapters with tasks, the model of one
// task, or its adapter alone as PEFT reads it.
#include <cstdio>
#include <filesystem>
#include <memory>

#include "common/base/error.h"
#include "common/base/file.h"
#include "policy_model/families/model_config.h"
#include "policy_model/gguf/convert.h"
#include "run/commands/checked_numbers.h"
#include "run/commands/cli.h"
#include "run/session/model_folder.h"

namespace plumb::run {
namespace {

constexpr size_t kMaxConfigBytes = size_t{1} << 20;

// The base keeps its dtype unless another is asked for.
struct ConvertArguments {
  std::string from, folder, dtype, task;
  bool overwrite = false, adapter = false;
};

void PrintModel(const std::string& folder, DType dtype) {
  const policy_model::ModelShape shape = policy_model::ReadModelConfig(folder);
  std::printf("%s: %s, %lld layers, hidden %lld, vocabulary %lld, %s\n", folder.c_str(),
              shape.family.c_str(), static_cast<long long>(shape.layers),
              static_cast<long long>(shape.hidden), static_cast<long long>(shape.vocab),
              dtype == DType::kFloat32 ? "float32" : "bfloat16");
}

// The adapter of one task, its weights in B: a folder that PEFT reads.
void ExportTask(const ConvertArguments& a) {
  const ModelPlace place = FindModel(a.from);
  if (a.task.empty() || !place.is_adapter()) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "--adapter writes one task's adapter: name a folder of adapters with tasks, and the "
        "task with --task",
        a.from);
  }
  FileSystem& files = RealFileSystem();
  const std::string there = a.folder + "/" + policy_model::kAdapterConfig;
  std::error_code ignored;
  if (std::filesystem::equivalent(place.model, a.folder, ignored))
    throw Error(ErrorCode::kInvalidArgument, "is where the adapters come from", a.folder);
  if (files.Exists(there) && !a.overwrite) {
    throw Error(
        ErrorCode::kConflict,
        "there is an adapter already: choose another folder, or replace it with --overwrite",
        a.folder);
  }
  const ModelFolder model =
      LoadModel(a.from, {.dtype = a.dtype.empty() ? "float32" : a.dtype, .task = a.task});
  if (!model.front.empty()) {
    throw Error(
        ErrorCode::kUnsupported,
        "has learned tokens in front of a task's prompts (policy.task_tokens), which are no "
        "part of an adapter that PEFT reads",
        model.path);
  }
  policy_model::SaveModelDirectory(*model.weights, a.folder, "", place.base);
  std::printf("%s: adapter of task %s, %s, base %s\n", a.folder.c_str(), a.task.c_str(),
              model.weights->adapters().front()->adapter->spec().Text().c_str(),
              place.base.c_str());
}

DType MergeAdapter(const ConvertArguments& a) {
  const std::string &adapter = a.from, &folder = a.folder, &dtype = a.dtype;
  const bool overwrite = a.overwrite;
  const ModelPlace place = FindModel(adapter);
  if (!place.is_adapter()) {
    throw Error(ErrorCode::kInvalidArgument,
                "is a model folder as it is: convert takes a GGUF file or an adapter's folder",
                place.model);
  }
  FileSystem& files = RealFileSystem();
  for (const std::string& theirs : {place.model, place.base}) {
    std::error_code ignored;
    if (std::filesystem::equivalent(theirs, folder, ignored))
      throw Error(ErrorCode::kInvalidArgument, "is where the model comes from", folder);
  }
  // All of it is read before the first file is written.
  const ModelFolder model =
      LoadModel(adapter, {.dtype = dtype.empty() ? "auto" : dtype, .merge = true, .task = a.task});
  for (const char* name : {"/config.json", "/model.safetensors", "/model.safetensors.index.json"}) {
    if (!files.Exists(folder + name)) continue;
    if (!overwrite) {
      throw Error(ErrorCode::kConflict,
                  "there is a model already: choose another folder, or replace it with --overwrite",
                  folder);
    }
    files.Remove(folder + name);
  }
  policy_model::SaveModelDirectory(*model.weights, folder, place.base);
  const std::string generation = "/generation_config.json";
  if (files.Exists(place.base + generation))
    files.WriteFileAtomic(folder + generation,
                          files.ReadFile(place.base + generation, kMaxConfigBytes));
  return model.dtype;
}

}  // namespace

void AddConvertCommand(CLI::App& app, CliResult&) {
  auto a = std::make_shared<ConvertArguments>();
  CLI::App* convert = app.add_subcommand(
      "convert", "A GGUF file, or an adapter and its base, into a model folder that others read");
  convert
      ->add_option("from", a->from,
                   "GGUF file (of a split model any), or the folder of a LoRA adapter or of a run "
                   "that trained one")
      ->required();
  convert->add_option("folder", a->folder, "where the model folder goes")->required();
  convert
      ->add_option("--dtype", a->dtype,
                   "of the weights: bfloat16 | float32; a GGUF file's become bfloat16, a base's "
                   "stay what they are")
      ->check(OneOf({"bfloat16", "float32"}));
  convert->add_flag("--overwrite", a->overwrite, "replace a model that is there");
  convert->add_option("--task", a->task, "of adapters that are weighed by the task: which");
  convert->add_flag("--adapter", a->adapter,
                    "with --task: its adapter alone, as PEFT reads it, in the place of a model");
  convert->callback([a] {
    if (a->adapter) return ExportTask(*a);
    DType dtype = a->dtype == "float32" ? DType::kFloat32 : DType::kBFloat16;
    if (std::filesystem::is_directory(a->from)) {
      dtype = MergeAdapter(*a);
    } else {
      if (!a->task.empty())
        throw Error(ErrorCode::kInvalidArgument, "a GGUF file has no tasks", "--task");
      policy_model::ConvertGguf(a->from, a->folder, dtype, a->overwrite);
    }
    PrintModel(a->folder, dtype);
  });
}

}  // namespace plumb::run
