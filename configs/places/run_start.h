// Where a run was started: what the relative paths of its recipe are relative to, from whatever
// folder it is looked at.
//
// Purpose: run.json of a run's folder holds the working folder of its start and the place of the
// run's own folder then, both in full. A run that was moved together with a folder above it finds
// its files there, also those that its recipe names in full, as what lay beside the first recipe.
// Thread safety: pure functions of the file system. Errors: none; a run that does not say where it
// was started leads nowhere.
#pragma once

#include <string>
#include <vector>

namespace plumb::configs {

// Keys of run.json.
inline constexpr char kStartedIn[] = "started_in";
inline constexpr char kRunFolder[] = "folder";

class RunStart {
 public:
  RunStart() = default;  // leads nowhere
  static RunStart Of(const std::string& run_folder);

  // The place that a relative path of the run's recipe leads to, and of a path in full that leads
  // nowhere the place that it was moved to with the run; in full, "" where nothing is.
  std::string Find(const std::string& path) const;

 private:
  std::string FindMoved(const std::string& path) const;

  std::vector<std::string> folders_;  // where it was started, and where that would be now
  // The topmost folder that has another name or place since: then and now; "": none has.
  std::string moved_from_, moved_to_;
};

// `named` as a file below a run's folder names it, e.g. an adapter in RUN/model its base: as it
// stands where that leads somewhere from here, or nowhere at all; else its place from the start of
// the run that holds `file`.
std::string PlaceNamedInRun(const std::string& named, const std::string& file);

}  // namespace plumb::configs
