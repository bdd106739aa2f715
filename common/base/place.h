// What lies at a path, by its name and the names of the files in it, for errors: whoever is given
// the wrong thing says what it is and what takes it.
//
// Purpose: a store is named to a verb on models, a run's folder to a verb on stores, a file to one
// that wants a folder. Nothing is opened.
// Thread safety: pure functions of the file system. Errors: none; what cannot be looked at is
// kUnknown.
#pragma once

#include <string>

namespace plumb {

enum class Place {
  kNothing,
  kModel,        // config.json
  kAdapter,      // adapter_config.json
  kRun,          // run.json
  kCheckpoint,   // a run's checkpoint: manifest.json
  kCheckpoints,  // the folder of those
  kStore,        // a store of replay/store
  kRecipe,       // .toml
  kRows,         // JSON, CSV, Parquet
  kWeights,      // .safetensors
  kGguf,
  kPython,  // .py
  kEmptyFolder,
  kFolder,
  kUnknown  // another file
};

Place PlaceOf(const std::string& path);

// Behind the path and a colon: "is a store, not a model: `plumb store inspect PATH` looks into it".
// `wanted` is what the caller takes, with its article.
std::string NotWhatIsWanted(const std::string& path, const std::string& wanted);

}  // namespace plumb
