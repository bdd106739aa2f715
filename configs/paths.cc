#include "configs/paths.h"

#include <concepts>
#include <filesystem>
#include <string_view>

#include "configs/fields.h"

namespace plumb::configs {
namespace {

namespace fs = std::filesystem;

bool Exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::string Full(const fs::path& path) {
  std::error_code error;
  const fs::path full = fs::weakly_canonical(fs::absolute(path), error);
  return error ? path.string() : full.string();
}

// Visits every option.
struct Finder {
  fs::path folder;
  template <class Field>
  void operator()(const FieldInfo& info, Field& field) {
    const std::string_view unit = info.unit;
    if constexpr (std::same_as<Field, std::string>) {
      if ((unit != "file" && unit != "folder") || field.empty()) return;
      const fs::path path = field;
      if (path.is_relative() && !Exists(path) && Exists(folder / path)) field = Full(folder / path);
    } else if constexpr (std::same_as<Field, std::vector<RewardPartConfig>>) {
      for (RewardPartConfig& part : field) part.Visit(*this);
    }
  }
  template <class Table>
  void Section(const char*, Table& table) {
    table.Visit(*this);
  }
};

}  // namespace

void FindBesideRecipe(Config& config, const std::string& recipe) {
  Finder finder{fs::path(recipe).parent_path()};
  config.Visit(finder);
}

std::vector<std::string> MissingFiles(const Config& config, const std::string& recipe) {
  std::vector<std::string> missing;
  const auto look = [&](const char* option, const std::string& value, const char* advice) {
    if (value.empty() || value == "arithmetic" || Exists(value)) return;
    const std::string here = Full(value), beside = Full(fs::path(recipe).parent_path() / value);
    missing.push_back(std::string(option) + " = \"" + value + "\" is not there: looked for " +
                      here + (beside == here ? "" : " and " + beside) + advice);
  };
  const char model[] =
      "; a model is a folder with config.json (for a .gguf file: plumb convert; names on a hub are "
      "not fetched)";
  look("model.path", config.model.path, model);
  look("data.train", config.data.train, "");
  look("data.eval", config.data.eval, "");
  look("sft.data", config.sft.data, "");
  look("critic.path", config.critic.path, model);
  return missing;
}

}  // namespace plumb::configs
