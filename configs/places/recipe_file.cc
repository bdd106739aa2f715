// A recipe from its file, its paths found.
#include <algorithm>
#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/nearest.h"
#include "common/base/place.h"
#include "configs/config.h"
#include "configs/paths.h"
#include "configs/recipe_problems.h"

namespace plumb::configs {

Loaded LoadRecipe(const std::string& path, const std::vector<std::string>& overrides) {
  std::vector<std::string> problems;
  Loaded loaded = ReadRecipe(path, overrides, problems);
  ThrowProblems(problems);
  return loaded;
}

namespace {

constexpr size_t kMaxRecipeBytes = size_t{4} << 20;

// Of the recipes of its folder and of configs/ the one with the nearest name, by the path that
// leads to it from here; empty: none is near. ".toml" is no part of a name.
std::string RecipeMeant(const std::string& path) {
  namespace fs = std::filesystem;
  const std::string wanted = fs::path(path).stem().string();
  size_t most = std::max<size_t>(1, wanted.size() / 3);
  std::string meant;
  for (const fs::path& folder : {fs::path(path).parent_path(), fs::path("configs")}) {
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(folder.empty() ? "." : folder, none)) {
      if (entry.path().extension() != ".toml") continue;
      const size_t distance = EditDistance(wanted, entry.path().stem().string());
      if (distance > most || (!meant.empty() && distance == most)) continue;
      most = distance;
      meant = (folder / entry.path().filename()).string();
    }
  }
  return meant;
}

}  // namespace

Loaded ReadRecipe(const std::string& path, const std::vector<std::string>& overrides,
                  std::vector<std::string>& problems, std::vector<std::string>* notes) {
  if (path.empty())
    throw Error(ErrorCode::kInvalidArgument, "is empty: name a TOML file", "recipe");
  if (!std::filesystem::exists(path)) {
    const std::string meant = RecipeMeant(path);
    throw Error(ErrorCode::kNotFound,
                "there is no such recipe" + (meant.empty() ? "; the ones that ship are in configs/"
                                                           : ", did you mean '" + meant + "'?"),
                path);
  }
  const Place place = PlaceOf(path);
  if (std::filesystem::is_directory(path) || (place >= Place::kRows && place <= Place::kPython)) {
    throw Error(ErrorCode::kInvalidArgument,
                NotWhatIsWanted(path, "a recipe") +
                    (place == Place::kRun ? ", its recipe " + path + "/config.toml" : ""),
                path);
  }
  Loaded loaded = ParseRecipe(RealFileSystem().ReadFile(path, kMaxRecipeBytes), path, overrides,
                              problems, notes);
  std::vector<std::string> two = FindBesideRecipe(loaded.config, path, loaded.origins);
  if (notes) notes->insert(notes->end(), two.begin(), two.end());
  return loaded;
}

}  // namespace plumb::configs
