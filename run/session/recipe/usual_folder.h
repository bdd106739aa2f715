// Where a run of a recipe lies that does not say it (run.out), and nobody says it by --out.
//
// Thread safety: a pure function. Errors: none.
#pragma once

#include <filesystem>
#include <string>

namespace plumb::run {

// Relative to the working folder: "runs/mine" of "recipes/mine.toml".
inline std::string UsualRunFolder(const std::string& recipe) {
  return "runs/" + std::filesystem::path(recipe).stem().string();
}

}  // namespace plumb::run
