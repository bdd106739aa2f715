// plumb convert FILE.gguf DIR: a GGUF file into a Hugging Face model folder. plumb convert ADAPTER
// DIR: a LoRA adapter and the base that it names into one.
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
DType MergeAdapter(const std::string& adapter, const std::string& folder, const std::string& dtype,
                   bool overwrite) {
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
      LoadModel(adapter, {.dtype = dtype.empty() ? "auto" : dtype, .merge = true});
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
  struct Arguments {
    std::string from, folder, dtype;
    bool overwrite = false;
  };
  auto a = std::make_shared<Arguments>();
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
  convert->callback([a] {
    DType dtype = a->dtype == "float32" ? DType::kFloat32 : DType::kBFloat16;
    if (std::filesystem::is_directory(a->from))
      dtype = MergeAdapter(a->from, a->folder, a->dtype, a->overwrite);
    else policy_model::ConvertGguf(a->from, a->folder, dtype, a->overwrite);
    const policy_model::ModelShape shape = policy_model::ReadModelConfig(a->folder);
    std::printf("%s: %s, %lld layers, hidden %lld, vocabulary %lld, %s\n", a->folder.c_str(),
                shape.family.c_str(), static_cast<long long>(shape.layers),
                static_cast<long long>(shape.hidden), static_cast<long long>(shape.vocab),
                dtype == DType::kFloat32 ? "float32" : "bfloat16");
  });
}

}  // namespace plumb::run
