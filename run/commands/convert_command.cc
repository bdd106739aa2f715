// plumb convert FILE.gguf DIR: a GGUF file into a Hugging Face model folder.
#include <cstdio>
#include <memory>

#include "policy_model/families/model_config.h"
#include "policy_model/gguf/convert.h"
#include "run/commands/cli.h"

namespace plumb::run {

void AddConvertCommand(CLI::App& app, CliResult&) {
  struct Arguments {
    std::string file, folder, dtype = "bfloat16";
    bool overwrite = false;
  };
  auto a = std::make_shared<Arguments>();
  CLI::App* convert =
      app.add_subcommand("convert", "A GGUF file into a model folder that Plumb and others read");
  convert->add_option("file", a->file, "GGUF file; of a split model any")->required();
  convert->add_option("folder", a->folder, "where the model folder goes")->required();
  convert->add_option("--dtype", a->dtype, "of the weights: bfloat16 | float32")
      ->check(CLI::IsMember({"bfloat16", "float32"}));
  convert->add_flag("--overwrite", a->overwrite, "replace a model that is there");
  convert->callback([a] {
    policy_model::ConvertGguf(a->file, a->folder,
                              a->dtype == "float32" ? DType::kFloat32 : DType::kBFloat16,
                              a->overwrite);
    const policy_model::ModelShape shape = policy_model::ReadModelConfig(a->folder);
    std::printf("%s: %s, %lld layers, hidden %lld, vocabulary %lld, %s\n", a->folder.c_str(),
                shape.family.c_str(), static_cast<long long>(shape.layers),
                static_cast<long long>(shape.hidden), static_cast<long long>(shape.vocab),
                a->dtype.c_str());
  });
}

}  // namespace plumb::run
