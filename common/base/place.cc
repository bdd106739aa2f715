#include "common/base/place.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <vector>

namespace plumb {
namespace {

namespace fs = std::filesystem;

bool Has(const fs::path& folder, const char* name) {
  std::error_code none;
  return fs::exists(folder / name, none);
}

// The newest checkpoint among a run's, by name; "" where there is none.
std::string NewestOf(const fs::path& checkpoints) {
  std::error_code none;
  std::string newest;
  for (const auto& entry : fs::directory_iterator(checkpoints, none)) {
    if (entry.path().filename().string().starts_with("step-") && Has(entry.path(), "manifest.json"))
      newest = std::max(newest, entry.path().string());
  }
  return newest;
}

// RocksDB's names: CURRENT names the manifest.
bool IsStore(const fs::path& folder) { return Has(folder, "CURRENT") && Has(folder, "IDENTITY"); }

std::string Joined(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / name).string();
}

}  // namespace

Place PlaceOf(const std::string& path) {
  std::error_code none;
  const fs::file_status status = fs::status(path, none);
  if (!fs::exists(status)) return Place::kNothing;
  if (fs::is_directory(status)) {
    if (Has(path, "run.json")) return Place::kRun;
    if (Has(path, "adapter_config.json")) return Place::kAdapter;
    if (Has(path, "config.json")) return Place::kModel;
    if (IsStore(path)) return Place::kStore;
    if (Has(path, "manifest.json")) return Place::kCheckpoint;
    if (!NewestOf(path).empty()) return Place::kCheckpoints;
    return fs::is_empty(path, none) && !none ? Place::kEmptyFolder : Place::kFolder;
  }
  std::string name = fs::path(path).filename().string();
  if (name.ends_with(".gz")) name.resize(name.size() - 3);
  const auto ends = [&](std::initializer_list<const char*> endings) {
    return std::any_of(endings.begin(), endings.end(),
                       [&](const char* ending) { return name.ends_with(ending); });
  };
  if (ends({".toml"})) return Place::kRecipe;
  if (ends({".jsonl", ".json", ".csv", ".tsv", ".parquet"})) return Place::kRows;
  if (ends({".safetensors"})) return Place::kWeights;
  if (ends({".gguf"})) return Place::kGguf;
  if (ends({".py"})) return Place::kPython;
  return Place::kUnknown;
}

std::string NotWhatIsWanted(const std::string& path, const std::string& wanted) {
  const std::string no = ", not " + wanted;
  const auto shows = [](const std::string& command, const std::string& what) {
    return ": `plumb " + command + "` " + what;
  };
  switch (PlaceOf(path)) {
    case Place::kNothing: return path.empty() ? "is an empty name" : "there is nothing here";
    case Place::kModel:
      return "is a model folder" + no + shows("model info " + path, "says what is in it");
    case Place::kAdapter:
      return "is an adapter's folder" + no + shows("model info " + path, "says what is in it") +
             "; `plumb convert " + path + " DIR` makes one model of it and its base";
    case Place::kRun: {
      std::string of;
      for (const char* part : {"model", "store"}) {
        if (Has(path, part))
          of += (of.empty() ? "its " : ", its ") + std::string(part) + " is " + Joined(path, part);
      }
      return "is a run's folder" + no +
             (of.empty() ? shows("report " + path, "shows what it did") : ": " + of);
    }
    case Place::kCheckpoint:
      return "is a checkpoint" + no + ": its model is " + Joined(path, "model");
    case Place::kCheckpoints:
      return "holds a run's checkpoints" + no + ": the newest model is " +
             Joined(NewestOf(path), "model");
    case Place::kStore: return "is a store" + no + shows("store inspect " + path, "looks into it");
    case Place::kRecipe: return "is a recipe" + no + shows("train " + path, "runs it");
    case Place::kRows:
      return "is a file of rows" + no + shows("data import " + path + " --store DIR", "reads it");
    case Place::kWeights:
      return "is a file of weights" + no + ": a model is its folder with config.json and tokenizer";
    case Place::kGguf:
      return "is a GGUF file" + no +
             shows("convert " + path + " DIR", "makes a model folder of it");
    case Place::kPython:
      return "is a Python program" + no +
             ": a recipe names one as the path of a reward part with kind = \"python\"";
    case Place::kEmptyFolder:
      return "is an empty folder: no run here, no model and no store; look at the path";
    case Place::kFolder: return "is a folder, and not " + wanted;
    case Place::kUnknown: break;
  }
  return "is a file, and not " + wanted;
}

}  // namespace plumb
