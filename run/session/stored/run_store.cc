#include "run/session/stored/run_store.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "learner/loop/run_state.h"
#include "learner/update/checkpoint_manifest.h"
#include "replay/table/table.h"
#include "run/session/run_folder.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxManifestBytes = 16 << 20;

bool Exists(const std::string& path) {
  std::error_code none;
  return fs::exists(path, none);
}

}  // namespace

std::string StoreFolderOf(const std::string& path) {
  const RunFolder run{path};
  return Exists(run.identity()) && !Exists(path + "/CURRENT") ? run.store() : path;
}

std::optional<KnownInserts> KnownInsertsOf(const std::string& store) {
  fs::path folder = fs::absolute(store).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();  // "RUN/store/"
  const RunFolder run{folder.parent_path().string()};
  if (folder != fs::path(run.store()) || !Exists(run.identity()) || !Exists(run.checkpoints()))
    return std::nullopt;
  std::vector<std::pair<long long, std::string>> steps;
  for (const std::string& name : RealFileSystem().List(run.checkpoints())) {
    long long step = 0;
    if (std::sscanf(name.c_str(), "step-%lld", &step) == 1) steps.emplace_back(step, name);
  }
  std::sort(steps.begin(), steps.end(), std::greater<>());
  for (const auto& [step, name] : steps) {
    const std::string checkpoint = run.checkpoints() + "/" + name;
    const std::string manifest = checkpoint + "/manifest.json";
    if (!Exists(manifest)) continue;
    try {
      const auto read =
          learner::ReadManifest(RealFileSystem().ReadFile(manifest, kMaxManifestBytes), manifest);
      if (!read.state) continue;
      const std::string cursor = learner::ReadRunState(read.state->state_json, manifest).store;
      if (cursor.empty()) continue;
      return KnownInserts{checkpoint, replay::ReplayTable::ParseCursor(cursor).sequence};
    } catch (const Error&) {
      continue;
    }
  }
  return std::nullopt;
}

std::string MissingInserts(const std::optional<KnownInserts>& known, uint64_t have) {
  if (!known || have >= known->inserts) return "";
  return "the store has made " + std::to_string(have) + " inserts, " + known->checkpoint +
         " was written after " + std::to_string(known->inserts) + ": " +
         std::to_string(known->inserts - have) +
         " that were acknowledged are missing (a log that was cut, or an older copy of the "
         "folder); "
         "bring the right store back or start from an older checkpoint";
}

}  // namespace plumb::run
