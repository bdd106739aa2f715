#include "run/session/run_folder.h"
#include "run/session/recipe/cut_short.h"
#include "run/session/recipe/usual_folder.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <set>

#include "common/base/error.h"
#include "common/base/file.h"
#include "configs/paths.h"
#include "configs/places/run_start.h"
#include "run/session/built.h"
#include "run/session/interrupt.h"
#include "run/session/newest_checkpoint.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr size_t kMaxIdentityBytes = 1 << 16;
constexpr size_t kMaxTextBytes = size_t{16} << 20;

std::string NewRunId() {
  std::random_device random;
  char id[17];
  std::snprintf(id, sizeof id, "%08x%08x", random(), random());
  return id;
}

std::string ReadIfThere(const std::string& path) {
  return RealFileSystem().Exists(path) ? RealFileSystem().ReadFile(path, kMaxTextBytes)
                                       : std::string();
}

// What a process that was killed had not yet given its name (common/base/file.h).
bool IsUnfinished(const fs::path& entry) {
  return entry.filename().string().find(".tmp.") != std::string::npos;
}

bool HoldsSomething(const std::string& folder) {
  if (!fs::exists(folder)) return false;
  if (!fs::is_directory(folder)) return true;
  return std::any_of(fs::directory_iterator(folder), fs::directory_iterator(),
                     [](const fs::directory_entry& entry) {
                       return entry.path().filename() != RunLock::kFile &&
                              !IsUnfinished(entry.path());
                     });
}

// A run that was killed between its name and its recipe: nothing was begun that could be lost.
bool NeverBegan(const RunFolder& folder) {
  return fs::exists(folder.identity()) && !fs::exists(folder.config()) &&
         !fs::exists(folder.metrics()) && !fs::exists(folder.store()) &&
         (!fs::exists(folder.checkpoints()) || fs::is_empty(folder.checkpoints()));
}

// "2-rm": a stage of a run of stages.
bool IsStage(const fs::path& entry) {
  const std::string name = entry.filename().string();
  const size_t digits = name.find_first_not_of("0123456789");
  return digits != std::string::npos && digits > 0 && name[digits] == '-' &&
         fs::exists(RunFolder{entry.string()}.identity());
}

// What a run puts into its folder, but for the lock. The name that makes it a run is the last, so
// that what is cut short can be done again.
std::vector<fs::path> OwnEntries(const std::string& folder) {
  static const std::set<std::string> kOwn = {
      "config.toml", "changes.jsonl", "metrics.jsonl", "samples.jsonl", "summary.json",
      "report.html", "tensorboard",   "logs",          "checkpoints",   "store",
      "model",       "tokenizer",     "pids.json",     kStoppedMark,    "run.json"};
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (kOwn.contains(entry.path().filename().string()) || IsUnfinished(entry.path()) ||
        IsStage(entry.path()))
      entries.push_back(entry.path());
  }
  std::stable_partition(entries.begin(), entries.end(),
                        [](const fs::path& entry) { return entry.filename() != "run.json"; });
  return entries;
}

void RemoveOwnEntries(const std::string& folder) {
  for (const fs::path& entry : OwnEntries(folder)) RealFileSystem().RemoveAll(entry.string());
}

// Where a run is while it is set aside or put back: who finds one there puts it back.
std::string Moving(const RunFolder& folder) { return folder.path + "/.moving"; }

void PutBackMoving(const RunFolder& folder) {
  for (const fs::path& entry : OwnEntries(Moving(folder)))
    RealFileSystem().Rename(entry.string(), folder.path + "/" + entry.filename().string());
  RealFileSystem().RemoveAll(Moving(folder));
}

void SetAside(const RunFolder& folder) {
  // One that is there was not replaced yet: what stands in its place has trained nothing.
  if (fs::exists(folder.replaced())) return RemoveOwnEntries(folder.path);
  RealFileSystem().CreateDirectories(Moving(folder));
  for (const fs::path& entry : OwnEntries(folder.path))
    RealFileSystem().Rename(entry.string(), Moving(folder) + "/" + entry.filename().string());
  RealFileSystem().Rename(Moving(folder), folder.replaced());
}

void PutBack(const RunFolder& folder) {
  RemoveOwnEntries(folder.path);
  RealFileSystem().Rename(folder.replaced(), Moving(folder));
  PutBackMoving(folder);
}

// After a process that was killed while it moved a run.
void PutBackWhatWasMoving(const RunFolder& folder) {
  const bool moving = fs::exists(Moving(folder)),
             lost = fs::exists(folder.replaced()) && !fs::exists(folder.identity());
  if (!moving && !lost) return;
  const RunLock lock(folder.path);
  if (moving) PutBackMoving(folder);
  else PutBack(folder);
}

void RefuseOtherOptions(const std::vector<configs::OptionChange>& refused, const std::string& run) {
  if (refused.empty()) return;
  std::string text;
  for (const configs::OptionChange& change : refused) {
    text += "\n  " + change.key + ": the run has " + change.before + ", the recipe says " +
            change.now + "; " + change.why;
  }
  throw Error(
      ErrorCode::kConflict,
      "this run was started with other options that cannot change (`plumb train --resume --out " +
          run + "` has all of the run's own); give them back, or use another --out:" + text,
      run + "/config.toml");
}

}  // namespace

std::string ReadRunId(const RunFolder& folder) {
  const std::string identity = RealFileSystem().ReadFile(folder.identity(), kMaxIdentityBytes);
  try {
    return Json::parse(identity).at("run_id").get<std::string>();
  } catch (const Json::exception& e) {
    throw Error(ErrorCode::kCorruption, std::string("malformed: ") + e.what(), folder.identity());
  }
}

namespace {

// `stages`: of a run that holds runs.
void WriteIdentity(const RunFolder& folder, const std::string& recipe,
                   const std::vector<std::string>& stages) {
  // Who made it, so that a page about it can say so years later; and what its recipe's paths are
  // relative to.
  Json identity = {{"run_id", NewRunId()},
                   {"format", 1},
                   {"recipe", recipe},
                   {"version", BuiltVersion()},
                   {"commit", BuiltCommit()},
                   {"began_s", static_cast<double>(RealClock().WallMs()) / 1000.0},
                   {configs::kStartedIn, fs::current_path().string()},
                   {configs::kRunFolder, folder.path}};
  if (!stages.empty()) identity["stages"] = stages;
  else if (Json whole = StepsAndBar(recipe); whole.is_object()) identity["recipe_has"] = whole;
  RealFileSystem().WriteFileAtomic(
      folder.identity(), identity.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

// What stands in the way of beginning, or going on with, a run in the folder.
void RefuseFolder(const RunFolder& folder, bool there, bool exists, bool resume, bool overwrite) {
  if (!there && resume) {
    throw Error(ErrorCode::kNotFound,
                "there is no run in this folder to go on with: name its --out, or leave --resume "
                "out to begin one",
                folder.path);
  }
  if (there && !resume && !overwrite) {
    throw Error(ErrorCode::kConflict,
                "there is a run in this folder already: go on with --resume, start anew with "
                "--overwrite, or choose another --out",
                folder.path);
  }
  if (!exists && HoldsSomething(folder.path)) {
    throw Error(ErrorCode::kConflict,
                "this folder is not empty and is not a run: choose another --out", folder.path);
  }
}

}  // namespace

RunLock BeginStagedRun(const RunFolder& folder, const StagedRunRequest& request) {
  PutBackWhatWasMoving(folder);
  const bool exists = fs::exists(folder.identity()), unbegun = NeverBegan(folder);
  RefuseFolder(folder, exists && !unbegun, exists, request.resume, request.overwrite);
  RealFileSystem().CreateDirectories(folder.path);
  RunLock lock(folder.path);
  if (request.resume) return lock;
  if (exists && !unbegun) SetAside(folder);
  else RemoveOwnEntries(folder.path);  // what a killed process left
  WriteIdentity(folder, request.recipe, request.stages);
  return lock;
}

void PutBackReplacedRun(const RunFolder& folder) { PutBack(folder); }

PreparedRun PrepareRun(configs::Config& config, const std::string& recipe_path, bool resume,
                       bool overwrite, bool newest) {
  if (config.run.out.empty()) config.run.out = UsualRunFolder(recipe_path);
  PreparedRun run;
  RunFolder& folder = run.folder_;
  folder.path = fs::absolute(config.run.out).lexically_normal().string();
  while (folder.path.size() > 1 && folder.path.back() == '/') folder.path.pop_back();
  FileSystem& files = RealFileSystem();

  PutBackWhatWasMoving(folder);
  const bool exists = fs::exists(folder.identity()), unbegun = NeverBegan(folder);
  RefuseFolder(folder, exists && !unbegun, exists, resume, overwrite);
  files.CreateDirectories(folder.path);
  run.lock_ = RunLock(folder.path);
  if (fs::exists(folder.identity()) != exists) {
    throw Error(ErrorCode::kConflict,
                "another process has just begun or removed a run in this folder", folder.path);
  }

  if (resume) {
    run.resumed_ = true;
    run.earlier_config_ = files.ReadFile(folder.config(), kMaxTextBytes);
    run.earlier_changes_ = ReadIfThere(folder.changes());
    run.earlier_progress_ = run.Progress();
    const std::optional<int64_t> next =
        newest ? NewestCheckpoint(folder.checkpoints()) : ResumeStep(folder.checkpoints());
    run.next_step_ = next.value_or(0);
    if (!next && fs::exists(folder.model())) {
      throw Error(
          ErrorCode::kNotFound,
          "holds no checkpoint of this run, which has trained: bring it back to go on. What "
          "was trained is in " +
              folder.model() + "; --overwrite begins anew and removes it",
          folder.checkpoints());
    }
    configs::SayPathsAsRun(config, folder.path, run.earlier_config_);
    const configs::RecipeDifference difference =
        configs::CompareForResume(run.earlier_config_, config, next.has_value());
    RefuseOtherOptions(difference.refused, folder.path);
    if (config.run.steps < run.next_step_) {
      const std::string done = std::to_string(run.next_step_);
      throw Error(ErrorCode::kConflict,
                  "run.steps = " + std::to_string(config.run.steps) + ", but " + done +
                      " steps are done: steps are counted from the beginning of the run, so a "
                      "resume asks for more than " +
                      done + ", e.g. --steps " + std::to_string(2 * run.next_step_) +
                      "; another --out begins anew",
                  folder.path);
    }
    run.changes_ = difference.changed;
    files.RemoveAll(folder.path + "/" + kStoppedMark);  // of the life before
    std::string changes = run.earlier_changes_;
    for (const configs::OptionChange& c : run.changes_) {
      changes +=
          Json{{"step", run.next_step_}, {"option", c.key}, {"before", c.before}, {"now", c.now}}
              .dump() +
          "\n";
    }
    if (!run.changes_.empty()) files.WriteFileAtomic(folder.changes(), changes);
  } else {
    if (exists && !unbegun) SetAside(folder);
    else RemoveOwnEntries(folder.path);  // what a killed process left
    WriteIdentity(folder, recipe_path, {});
  }
  for (const std::string& path : {folder.logs(), folder.checkpoints(), folder.tensorboard()})
    files.CreateDirectories(path);
  files.WriteFileAtomic(folder.config(), configs::ToToml(config));
  return run;
}

bool PreparedRun::Finished(const configs::Config& config) const {
  if (!resumed_ || !changes_.empty() || next_step_ == 0 || next_step_ < config.run.steps)
    return false;
  if (!fs::exists(folder_.model()) || !fs::exists(folder_.report())) return false;
  const Json summary = Json::parse(ReadIfThere(folder_.summary()), nullptr,
                                   /*allow_exceptions=*/false);
  const auto said = [&](const char* path) {
    const Json::json_pointer at(path);
    return summary.is_object() && summary.contains(at) ? summary[at] : Json();
  };
  // A bar that was missed is said once more, by the evaluation.
  const double bar = config.eval.bar;
  const Json accuracy = said("/eval/after/accuracy"), perplexity = said("/eval/after/perplexity");
  const double reached = perplexity.is_number() ? 1 / perplexity.get<double>()
                         : accuracy.is_number() && said("/eval/after/aborted") == Json(0)
                             ? accuracy.get<double>()
                             : -1;
  if (bar > 0 && reached < bar && StepsBeforeTheCut(folder_.identity(), config) == 0) return false;
  // A life that goes on removes it: it is the last one's.
  return summary.is_object() && said("/steps") == Json(config.run.steps) &&
         said("/stopped_early") == Json(false);
}

void ReplacedRunGoes(const RunFolder& folder) { RealFileSystem().RemoveAll(folder.replaced()); }

std::string PreparedRun::Progress() const {
  std::string text;
  FileSystem& files = RealFileSystem();
  if (files.Exists(folder_.checkpoints())) {
    for (const std::string& name : files.List(folder_.checkpoints())) text += name + "\n";
  }
  std::error_code none;
  const auto written = fs::last_write_time(folder_.metrics(), none);
  return text + (none ? "no step" : std::to_string(written.time_since_epoch().count()));
}

void PreparedRun::UndoIfNothingTrained(int code) {
  if (!lock_.IsOf(folder_.path)) return;  // what lies there now is another's
  FileSystem& files = RealFileSystem();
  if (!resumed_) {
    const bool input = code == 2 || code == 3 || code == 4 || code == 9;
    // A step has its line before it has a checkpoint.
    const bool nothing = fs::exists(folder_.checkpoints()) && fs::is_empty(folder_.checkpoints()) &&
                         !fs::exists(folder_.metrics());
    if (!fs::exists(folder_.replaced())) {
      if (input && nothing) files.RemoveAll(folder_.path);
    } else if (code != 0 && code != 7 && nothing) {
      PutBack(folder_);
    } else if (code == 0) {
      ReplacedRunGoes(folder_);  // it was to train nothing
    }
    return;
  }
  if (code == 0 || code == 7 || Progress() != earlier_progress_) return;
  files.WriteFileAtomic(folder_.config(), earlier_config_);
  if (!earlier_changes_.empty()) files.WriteFileAtomic(folder_.changes(), earlier_changes_);
  else files.RemoveAll(folder_.changes());
}

}  // namespace plumb::run
