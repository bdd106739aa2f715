#include "configs/paths.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <concepts>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string_view>
#include <utility>

#include "common/base/error.h"
#include "configs/checks/distill_check.h"
#include "configs/fields.h"
#include "configs/places/run_start.h"
#include "configs/recipe_problems.h"

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

// In full, with the last name as it is.
fs::path FullPlace(const std::string& path) {
  fs::path place = fs::absolute(path);
  if (!place.has_filename()) place = place.parent_path();  // "model/"
  if (place.filename() == "." || place.filename() == "..") return Full(place);
  return fs::path(Full(place.parent_path())) / place.filename();
}

bool OnOneFileSystem(const fs::path& a, const fs::path& b) {
  struct stat of_a {
  }, of_b{};
  return ::stat(a.c_str(), &of_a) == 0 && ::stat(b.c_str(), &of_b) == 0 &&
         of_a.st_dev == of_b.st_dev;
}

// A program that a shell finds by its name alone.
bool IsInPath(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "/usr/bin:/bin" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (access((folder + "/" + name).c_str(), X_OK) == 0) return true;
  }
  return false;
}

// "; a comment of the recipe says how it is made: RECIPE:3: COMMAND" where one of the recipe has a
// command (set in) with `path`, with those in front of it, which are set in; else "".
std::string CommentOn(const std::string& path, const std::string& recipe) {
  if (path.empty()) return "";
  std::ifstream in(recipe);
  int64_t number = 0;
  std::string before;
  for (std::string line; std::getline(in, line);) {
    ++number;
    const size_t begin = line.find_first_not_of(" \t");
    if (begin == std::string::npos || line[begin] != '#') {
      before.clear();
      continue;
    }
    const size_t words = line.find_first_not_of("# \t", begin);
    const bool command = words != std::string::npos && words >= begin + 3;
    const std::string said = words == std::string::npos ? ""
                                                        : recipe + ":" + std::to_string(number) +
                                                              ": " + line.substr(words);
    const size_t at = line.find(path);
    const size_t end = at == std::string::npos ? at : at + path.size();
    const bool names =
        at != std::string::npos &&  // not "runs/pairs2"
        (end >= line.size() || std::isalnum(static_cast<unsigned char>(line[end])) == 0);
    if (names && command) return "; a comment of the recipe says how it is made: " + before + said;
    if (command) before += said + "; then ";
    else before.clear();
  }
  return "";
}

// Of "rewards.py:score", as other systems name a function in a file; else "".
std::string FunctionApart(const std::string& path) {
  const size_t colon = path.rfind(".py:");
  if (colon == std::string::npos) return "";
  return "; the function stands apart from its file: path = \"" + path.substr(0, colon + 3) +
         "\", args = [\"function=" + path.substr(colon + 4) + "\"]";
}

// Visits every option: `work` gets the key and the text of each that is a path.
template <class Work>
struct PathVisitor {
  Work& work;
  std::string prefix;
  template <class Field>
  void operator()(const FieldInfo& info, Field& field) {
    const std::string_view unit = info.unit;
    const std::string key = prefix + info.name;
    if constexpr (std::same_as<Field, std::string>) {
      if ((unit == "file" || unit == "folder") && !field.empty()) work(key, field);
    } else if constexpr (std::same_as<Field, std::vector<std::string>>) {
      for (size_t i = 0; i < field.size() && unit == "recipes"; ++i)
        work(key + "." + std::to_string(i), field[i]);
      for (size_t i = 0; i < field.size() && unit == "models"; ++i) {  // "dataset=folder"
        std::string& text = field[i];
        const size_t equals = text.find('='),
                     at = equals < text.find('/') && equals != std::string::npos ? equals + 1 : 0;
        std::string model = text.substr(at);
        work(key + "." + std::to_string(i), model);
        text = text.substr(0, at) + model;
      }
    } else if constexpr (std::same_as<Field, std::vector<RewardPartConfig>>) {
      for (size_t i = 0; i < field.size(); ++i) {
        PathVisitor inner{work, key + "." + std::to_string(i) + "."};
        field[i].Visit(inner);
      }
    }
  }
  template <class Table>
  void Section(const char* name, Table& table) {
    PathVisitor inner{work, std::string(name) + "."};
    table.Visit(inner);
  }
};

template <class Work>
void ForEachPath(Config& config, Work work) {
  PathVisitor<Work> visitor{work, ""};
  config.Visit(visitor);
}

bool IsPath(const std::string& file) { return !file.empty() && !IsGenerated(file); }

// Whose place hangs on the folder that they are looked at from.
bool MayBeElsewhere(const std::string& file) {
  return IsPath(file) && fs::path(file).is_relative();
}

bool AreOne(const fs::path& a, const fs::path& b) {
  std::error_code ignored;
  return fs::equivalent(a, b, ignored);
}

// Keys of paths that name a program, which is looked for in PATH by its name alone.
std::set<std::string> ProgramKeys(const Config& config) {
  std::set<std::string> keys;
  const EnvironmentKind kind = config.environment.kind;
  if (kind == EnvironmentKind::kProgram || kind == EnvironmentKind::kAgent)
    keys.insert("environment.path");
  for (size_t i = 0; i < config.reward.parts.size(); ++i) {
    if (config.reward.parts[i].kind == "program")
      keys.insert("reward.parts." + std::to_string(i) + ".path");
  }
  return keys;
}

// A bare name of a program that is a file of the working folder, where that is the recipe's or PATH
// has no such program: with its folder, or nobody would look there.
void SayFolderOfProgram(std::string& file, const fs::path& beside) {
  std::error_code ignored;
  if (file.find('/') != std::string::npos || !fs::is_regular_file(file, ignored)) return;
  if (AreOne(file, beside) || !IsInPath(file)) file = FullPlace(file).string();
}

constexpr char kOut[] = "run.out";  // made where the run is asked for, never looked for

}  // namespace

bool IsGenerated(std::string_view data) { return data == "arithmetic" || data == "tiny_texts"; }

std::vector<std::string> FindBesideRecipe(Config& config, const std::string& recipe,
                                          const Origins& origins) {
  std::vector<std::string> notes;
  const fs::path folder = fs::path(recipe).parent_path();
  // Its folder's names are the run's, and no data.
  const bool of_run = fs::path(recipe).filename() == "config.toml" && Exists(folder / "run.json");
  const RunStart start = of_run ? RunStart::Of(folder.string()) : RunStart();
  const auto find = [&](const std::string& key, std::string& file) {
    if (of_run && key != kOut && IsPath(file) && fs::path(file).is_absolute()) {
      if (const std::string moved = start.Find(file); !moved.empty()) file = moved;
      return;
    }
    if (!MayBeElsewhere(file)) return;
    const fs::path path = file;
    const bool here = Exists(path);
    auto origin = origins.find(key);
    if (origin == origins.end()) origin = origins.find(key.substr(0, key.rfind('.')));  // of a list
    const bool typed = origin != origins.end() && origin->second.starts_with("--set");
    const auto say_two = [&](const std::string& taken, const char* why, const std::string& other) {
      notes.push_back(key + " = \"" + file + "\" is " + taken + ", " + why + "; " + other +
                      " is another");
    };
    if (of_run && key != kOut && !(typed && here)) {
      if (const std::string then = start.Find(file); !then.empty()) {
        if (here && AreOne(path, then)) return;
        if (here)
          say_two(then, "of the folder that the run was started in", FullPlace(file).string());
        file = then;
        return;
      }
    }
    if (!Exists(folder / path) || (here && AreOne(path, folder / path))) return;
    const std::string beside = FullPlace((folder / path).string()).string();
    const bool stays = here && (typed || of_run);
    if (here && !of_run) {
      const std::string from_here = FullPlace(file).string();
      if (stays) say_two(from_here, "of the current folder, where --set looks first", beside);
      else say_two(beside, "beside the recipe, where its paths lead first", from_here);
    }
    if (!stays) file = beside;
  };
  const std::set<std::string> programs = ProgramKeys(config);
  ForEachPath(config, [&](const std::string& key, std::string& file) {
    find(key, file);
    if (programs.contains(key)) SayFolderOfProgram(file, folder / file);
  });
  return notes;
}

void FindWhereRunBegan(Config& config, const std::string& run_folder) {
  const RunStart start = RunStart::Of(run_folder);
  ForEachPath(config, [&](const std::string& key, std::string& file) {
    if (key == kOut || !IsPath(file) || Exists(file)) return;
    if (const std::string then = start.Find(file); !then.empty()) file = then;
  });
}

void SayPathsAsRun(Config& config, const std::string& run_folder, const std::string& stored) {
  std::vector<std::string> ignored;
  const std::string recipe = run_folder + "/config.toml";
  Config said = ParseRecipe(stored, recipe, {}, ignored).config, placed = said;
  FindBesideRecipe(placed, recipe);
  std::map<std::string, std::string> text, place;
  const auto into = [](std::map<std::string, std::string>& all) {
    return [&all](const std::string& key, const std::string& file) { all[key] = file; };
  };
  ForEachPath(said, into(text));
  ForEachPath(placed, into(place));
  ForEachPath(config, [&](const std::string& key, std::string& file) {
    const auto then = place.find(key);
    if (then == place.end() || file.empty() || IsGenerated(file)) return;
    if (FullPlace(file) == FullPlace(then->second)) file = text[key];
  });
}

std::string PathInRecipe(const std::string& path, const std::string& recipe) {
  if (path.empty() || IsGenerated(path)) return path;
  const fs::path place = FullPlace(path);
  if (recipe.empty()) return place.string();
  const fs::path folder = FullPlace(recipe).parent_path();
  const fs::path below = place.relative_path(), beside = folder.relative_path();
  const bool near = !below.empty() && !beside.empty() && *below.begin() == *beside.begin();
  return (near && OnOneFileSystem(place, folder) ? place.lexically_relative(folder) : place)
      .string();
}

std::vector<std::string> MissingFiles(const Config& config, const std::string& recipe) {
  std::vector<std::string> missing;
  const auto look = [&](const std::string& option, const std::string& value,
                        const std::string& advice) {
    if (value.empty() || IsGenerated(value) || Exists(value)) return;
    if (value.starts_with(kOfStage)) {
      missing.push_back(option + " = \"" + value +
                        "\" is the model of a stage: it is there where a recipe with run.stages "
                        "runs this one; by itself it needs a folder");
      return;
    }
    const std::string here = Full(value), beside = Full(fs::path(recipe).parent_path() / value);
    missing.push_back(option + " = \"" + value + "\" is not there: looked for " + here +
                      (beside == here ? "" : " and " + beside) + advice);
  };
  if (!config.run.stages.empty()) {  // they name the files
    for (const std::string& stage : config.run.stages) look("run.stages", stage, "");
    return missing;
  }
  const char model[] =
      "; a model is a folder with config.json (for a .gguf file: plumb convert; names on a hub are "
      "not fetched)";
  look("model.path", config.model.path, model);
  for (const auto& [option, value] :
       {std::pair("data.train", &config.data.train), std::pair("data.eval", &config.data.eval),
        std::pair("sft.data", &config.sft.data)})
    look(option, *value, CommentOn(*value, recipe));
  look("critic.path", config.critic.path, model);
  for (const TeacherName& name : ReadTeachers(config.distill.teachers)) {
    if (!name.self() && !name.remote()) look("distill.teachers", name.where, model);
  }
  const EnvironmentConfig& environment = config.environment;
  const bool program =
      environment.kind == EnvironmentKind::kProgram || environment.kind == EnvironmentKind::kAgent;
  const bool by_name = program && environment.path.find('/') == std::string::npos;
  if (!by_name || !IsInPath(environment.path)) {
    look("environment.path", environment.path, CommentOn(environment.path, recipe));
  }
  look("environment.corpus", environment.corpus, "");
  if (IsOffline(config)) return missing;  // nothing is scored
  for (const RewardPartConfig& part : config.reward.parts) {
    const std::string option =
        "reward part '" + (part.name.empty() ? part.kind : part.name) + "': path";
    if (part.kind == "program" && part.path.find('/') == std::string::npos) {
      if (part.path.empty() || IsInPath(part.path)) continue;
      missing.push_back(option + " = \"" + part.path + "\" is no program of PATH" +
                        (Exists(part.path) ? ": call it ./" + part.path
                                           : "; one that lies elsewhere is named with its folder"));
      continue;
    }
    const bool loads = part.kind == "reward_model" || part.kind == "perplexity";
    look(option, part.path, loads ? model : FunctionApart(part.path));
  }
  return missing;
}

void RefuseMissingFiles(const Config& config, const std::string& recipe) {
  std::string all;
  for (const std::string& one : MissingFiles(config, recipe))
    all += (all.empty() ? "" : "\n  ") + one;
  if (!all.empty()) throw Error(ErrorCode::kNotFound, all, recipe);
}

}  // namespace plumb::configs
