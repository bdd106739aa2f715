// The folder of a run: what lies where in it, and who may begin, resume or replace a run there.
//
//   config.toml (resolved)  run.json (run id; recipe, Plumb's version, time and folder of the
//   start, where the run lay)  lock
//   changes.jsonl  metrics.jsonl  samples.jsonl  summary.json  report.html  tensorboard/  logs/
//   checkpoints/  store/
//   model/ (once the run has ended)  tokenizer/ (of a from-scratch model)
//   changes.jsonl: one line for each option that a resume changed: {"step", "option", "before",
//   "now"}, values as TOML
// Thread safety: one thread. Ownership: a PreparedRun holds the folder's lock.
// Errors: kConflict for a folder that is in use, that is no run's, or whose run was started with
// other options; kNotFound for a resume where no run is. A run that is refused leaves the folder as
// it was.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/config.h"
#include "configs/resume.h"
#include "run/session/run_lock.h"

namespace plumb::run {

struct RunFolder {
  std::string path;
  std::string config() const { return path + "/config.toml"; }
  std::string identity() const { return path + "/run.json"; }
  std::string changes() const { return path + "/changes.jsonl"; }
  std::string metrics() const { return path + "/metrics.jsonl"; }
  std::string samples() const { return path + "/samples.jsonl"; }
  std::string summary() const { return path + "/summary.json"; }
  std::string report() const { return path + "/report.html"; }
  std::string tensorboard() const { return path + "/tensorboard"; }
  std::string logs() const { return path + "/logs"; }
  std::string checkpoints() const { return path + "/checkpoints"; }
  std::string model() const { return path + "/model"; }  // what was trained, once it is
  std::string best() const { return path + "/best"; }    // that of the best evaluation, if kept
  std::string store() const { return path + "/store"; }
  std::string tokenizer() const { return path + "/tokenizer"; }
  // The run that --overwrite replaces, until the new one has trained (ReplacedRunGoes).
  std::string replaced() const { return path + "/.replaced"; }
};

// The run id in run.json; kCorruption for another text.
std::string ReadRunId(const RunFolder& folder);

// The new run has trained: the one that it replaces is removed.
void ReplacedRunGoes(const RunFolder& folder);

// A run that holds runs, its stages (run/session/stages/stage_plan.h).
struct StagedRunRequest {
  std::string recipe;
  std::vector<std::string> stages;  // their folders' names
  bool resume = false, overwrite = false;
};
// Makes its folder, or takes it up when `resume`. `overwrite` sets an older run aside until
// ReplacedRunGoes or PutBackReplacedRun.
RunLock BeginStagedRun(const RunFolder& folder, const StagedRunRequest& request);
// The new run has trained nothing: what it was to replace is back.
void PutBackReplacedRun(const RunFolder& folder);

class PreparedRun {
 public:
  const RunFolder& folder() const { return folder_; }
  bool resumed() const { return resumed_; }
  // Of a resumed run: what its recipe says otherwise than the run was started with, and the step
  // that goes on from there.
  const std::vector<configs::OptionChange>& changes() const { return changes_; }
  int64_t next_step() const { return next_step_; }

  // All its steps are done, summed up and above the recipe's bar, and this resume changes nothing:
  // there is nothing to do.
  bool Finished(const configs::Config& config) const;

  // The run ended with `code` and has trained nothing since it was prepared: a new one whose recipe
  // cannot start is removed, so that it does not stand in the way of the corrected one, and a run
  // that it was to replace is back; of a resumed one the recipe goes back to what it was.
  void UndoIfNothingTrained(int code);

 private:
  friend PreparedRun PrepareRun(configs::Config& config, const std::string& recipe_path,
                                bool resume, bool overwrite, bool newest);
  std::string Progress() const;  // changes with every step and checkpoint

  RunFolder folder_;
  RunLock lock_;
  bool resumed_ = false;
  std::vector<configs::OptionChange> changes_;
  int64_t next_step_ = 0;
  std::string earlier_config_, earlier_changes_, earlier_progress_;
};

// Makes the folder of a new run, or takes up the run in it when `resume`. `overwrite` sets an
// older run aside, until the new one has trained; files that are no run's stay. Fills
// config.run.out, when it is empty, from the recipe's name; of a run that is taken up, paths of
// `config` are then as the run's own recipe says them (configs/paths.h). `newest`: it goes on from
// the newest checkpoint, also where that holds no optimizer.
PreparedRun PrepareRun(configs::Config& config, const std::string& recipe_path, bool resume,
                       bool overwrite, bool newest = false);

}  // namespace plumb::run
