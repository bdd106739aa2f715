#include "run/session/recipe/cut_short.h"

#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "configs/recipe_problems.h"

namespace plumb::run {

using Json = nlohmann::json;

Json StepsAndBar(const std::string& recipe) {
  try {
    std::vector<std::string> ignored;
    const configs::Config whole = configs::ReadRecipe(recipe, {}, ignored).config;
    return {{"steps", whole.run.steps}, {"bar", whole.eval.bar}};
  } catch (const Error&) {
    return nullptr;
  }
}

int64_t StepsBeforeTheCut(const std::string& identity, const configs::Config& config) {
  constexpr size_t kMaxBytes = size_t{1} << 20;
  if (config.eval.bar <= 0 || !RealFileSystem().Exists(identity)) return 0;
  const Json run = Json::parse(RealFileSystem().ReadFile(identity, kMaxBytes), nullptr,
                               /*allow_exceptions=*/false);
  const Json whole = run.is_object() ? run.value("recipe_has", Json()) : Json();
  if (!whole.is_object() || !whole.value("steps", Json()).is_number_integer() ||
      !whole.value("bar", Json()).is_number())
    return 0;
  const auto steps = whole["steps"].get<int64_t>();
  return config.run.steps < steps && config.eval.bar == whole["bar"].get<double>() ? steps : 0;
}

}  // namespace plumb::run
