#include "run/board/run_catalog.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "common/base/error.h"
#include "common/text/unicode.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;

constexpr int kDepth = 3;
constexpr size_t kMaxEntries = 20'000;  // of one folder

struct Found {
  std::string name, folder;
};

void Walk(const fs::path& folder, const std::string& prefix, int depth, std::vector<Found>& found,
          size_t& left_out) {
  std::error_code error;
  std::vector<fs::path> folders;
  fs::directory_iterator entries(folder, error);
  for (size_t n = 0; !error && entries != fs::directory_iterator() && n < kMaxEntries; ++n) {
    std::error_code none;
    if (entries->is_directory(none)) folders.push_back(entries->path());
    entries.increment(error);
  }
  std::sort(folders.begin(), folders.end());
  for (const fs::path& path : folders) {
    const std::string last = path.filename().string();
    if (last.starts_with('.')) continue;
    if (IsRunFolder(path.string())) {
      if (found.size() < RunCatalog::kMaxRuns) found.push_back({prefix + last, path.string()});
      else ++left_out;
    } else if (depth > 1) {
      Walk(path, prefix + last + "/", depth - 1, found, left_out);
    }
  }
}

}  // namespace

bool IsRunFolder(const std::string& folder) {
  std::error_code none;
  return fs::is_regular_file(folder + "/run.json", none) ||
         fs::is_regular_file(folder + "/metrics.jsonl", none);
}

RunCatalog::RunCatalog(std::vector<std::string> roots, bool may_be_missing, size_t max_bytes,
                       std::chrono::milliseconds rescan)
    : roots_(std::move(roots)), max_bytes_(max_bytes), rescan_(rescan) {
  for (const std::string& root : roots_) {
    std::error_code none;
    if (!may_be_missing && !fs::is_directory(root, none))
      throw Error(ErrorCode::kNotFound,
                  "there is no such folder: give a run's folder, or one that runs lie in", root);
  }
}

void RunCatalog::Rescan() {
  const auto now = std::chrono::steady_clock::now();
  if (scanned_once_ && now - scanned_ < rescan_) return;
  std::vector<Found> found;
  left_out_ = 0;
  for (const std::string& root : roots_) {
    std::error_code none;
    fs::path path = fs::absolute(root, none).lexically_normal();
    if (!path.has_filename()) path = path.parent_path();
    if (IsRunFolder(path.string())) found.push_back({path.filename().string(), path.string()});
    else Walk(path, "", kDepth, found, left_out_);
  }
  std::map<std::string, std::shared_ptr<RunView>, std::less<>> runs;
  for (Found& run : found) {
    RepairUtf8(run.name);
    std::string name = run.name;
    for (int n = 2; runs.contains(name); ++n) name = run.name + " (" + std::to_string(n) + ")";
    const auto before = runs_.find(name);
    if (before != runs_.end() && before->second->folder() == run.folder)
      runs.emplace(name, before->second);
    else runs.emplace(name, std::make_shared<RunView>(name, run.folder));
  }
  runs_ = std::move(runs);
  for (auto at = asked_.begin(); at != asked_.end();) {
    const auto still = runs_.find((*at)->name());
    if (still != runs_.end() && still->second == *at) ++at;
    else at = asked_.erase(at);
  }
  scanned_ = std::chrono::steady_clock::now();
  scanned_once_ = true;
}

std::vector<std::shared_ptr<RunView>> RunCatalog::Runs() {
  const MutexLock lock(mu_);
  Rescan();
  std::vector<std::shared_ptr<RunView>> out;
  for (const auto& [name, run] : runs_) out.push_back(run);
  return out;
}

size_t RunCatalog::left_out() const {
  const MutexLock lock(mu_);
  return left_out_;
}

std::shared_ptr<RunView> RunCatalog::Find(std::string_view name) {
  const MutexLock lock(mu_);
  Rescan();
  const auto found = runs_.find(name);
  if (found == runs_.end()) return nullptr;
  const std::shared_ptr<RunView> run = found->second;
  asked_.remove(run);
  asked_.push_front(run);
  LetGo();
  return run;
}

// The one asked for now stays, whatever it takes: it has a bound of its own.
void RunCatalog::LetGo() {
  size_t bytes = 0;
  for (auto at = asked_.begin(); at != asked_.end();) {
    bytes += (*at)->bytes();
    if (bytes > max_bytes_ && at != asked_.begin()) {
      (*at)->Unload();
      at = asked_.erase(at);
    } else {
      ++at;
    }
  }
}

}  // namespace plumb::run
