#include "run/session/run_folder.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>

#include "common/base/error.h"
#include "common/base/file.h"
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

void RemoveAllButLock(const std::string& folder) {
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename() != RunLock::kFile) entries.push_back(entry.path());
  }
  // What makes it a run goes last: a removal that is cut short can be done again.
  std::stable_partition(entries.begin(), entries.end(),
                        [](const fs::path& entry) { return entry.filename() != "run.json"; });
  for (const fs::path& entry : entries) RealFileSystem().RemoveAll(entry.string());
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

PreparedRun PrepareRun(configs::Config& config, const std::string& recipe_path, bool resume,
                       bool overwrite) {
  if (config.run.out.empty()) config.run.out = "runs/" + fs::path(recipe_path).stem().string();
  PreparedRun run;
  RunFolder& folder = run.folder_;
  folder.path = fs::absolute(config.run.out).lexically_normal().string();
  while (folder.path.size() > 1 && folder.path.back() == '/') folder.path.pop_back();
  FileSystem& files = RealFileSystem();

  const bool exists = fs::exists(folder.identity()), unbegun = NeverBegan(folder);
  if ((!exists || unbegun) && resume) {
    throw Error(ErrorCode::kNotFound,
                "there is no run in this folder to go on with: name its --out, or leave --resume "
                "out to begin one",
                folder.path);
  }
  if (exists && !unbegun && !resume && !overwrite) {
    throw Error(ErrorCode::kConflict,
                "there is a run in this folder already: go on with --resume, start anew with "
                "--overwrite, or choose another --out",
                folder.path);
  }
  if (!exists && HoldsSomething(folder.path)) {
    throw Error(ErrorCode::kConflict,
                "this folder is not empty and is not a run: choose another --out", folder.path);
  }
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
    const std::optional<int64_t> next = NewestCheckpoint(folder.checkpoints());
    run.next_step_ = next.value_or(0);
    if (!next && fs::exists(folder.model())) {
      throw Error(
          ErrorCode::kNotFound,
          "holds no checkpoint of this run, which has trained: bring it back to go on. What "
          "was trained is in " +
              folder.model() + "; --overwrite begins anew and removes it",
          folder.checkpoints());
    }
    const configs::RecipeDifference difference =
        configs::CompareForResume(run.earlier_config_, config, next.has_value());
    RefuseOtherOptions(difference.refused, folder.path);
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
    RemoveAllButLock(folder.path);  // an older run, or what a killed process left
    // Who made it, so that a page about it can say so years later.
    files.WriteFileAtomic(folder.identity(),
                          Json{{"run_id", NewRunId()},
                               {"format", 1},
                               {"recipe", recipe_path},
                               {"version", BuiltVersion()},
                               {"commit", BuiltCommit()},
                               {"began_s", static_cast<double>(RealClock().WallMs()) / 1000.0}}
                                  .dump(1, ' ', false, Json::error_handler_t::replace) +
                              "\n");
  }
  for (const std::string& path : {folder.logs(), folder.checkpoints(), folder.tensorboard()})
    files.CreateDirectories(path);
  files.WriteFileAtomic(folder.config(), configs::ToToml(config));
  return run;
}

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
    if (input && nothing) files.RemoveAll(folder_.path);
    return;
  }
  if (code == 0 || code == 7 || Progress() != earlier_progress_) return;
  files.WriteFileAtomic(folder_.config(), earlier_config_);
  if (!earlier_changes_.empty()) files.WriteFileAtomic(folder_.changes(), earlier_changes_);
  else files.RemoveAll(folder_.changes());
}

}  // namespace plumb::run
