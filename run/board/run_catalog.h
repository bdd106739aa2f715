// The runs below some folders, by name.
//
// Purpose: a name that comes from outside is only ever looked up here; paths come from walking the
// folders. A folder is a run when it has run.json or metrics.jsonl; folders are looked into three
// deep, those of runs and hidden ones not. The name is the path below the folder given (the last
// part of it when that is a run itself); a second one of the same name gets a number.
// Thread safety: all methods. Ownership: the views; the numbers of those that nobody has asked for
// longest are let go once all of them take more than the bound. Errors: kNotFound for a folder that
// is not there, from the constructor.
#pragma once

#include <chrono>
#include <cstddef>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/mutex.h"
#include "run/board/run_view.h"

namespace plumb::run {

class RunCatalog {
 public:
  static constexpr size_t kMaxBytes = size_t{512} << 20;
  static constexpr size_t kMaxRuns = 2000;  // listed; more are left out and counted
  static constexpr std::chrono::milliseconds kRescan{2000};

  // `may_be_missing`: a folder that is not there yet has no runs.
  explicit RunCatalog(std::vector<std::string> roots, bool may_be_missing = false,
                      size_t max_bytes = kMaxBytes, std::chrono::milliseconds rescan = kRescan);

  std::vector<std::shared_ptr<RunView>> Runs();  // sorted by name
  size_t left_out() const;
  // To look at its numbers; nullptr: no run has this name.
  std::shared_ptr<RunView> Find(std::string_view name);

 private:
  void Rescan() PLUMB_REQUIRES(mu_);
  void LetGo() PLUMB_REQUIRES(mu_);

  const std::vector<std::string> roots_;
  const size_t max_bytes_;
  const std::chrono::milliseconds rescan_;
  mutable Mutex mu_;
  std::map<std::string, std::shared_ptr<RunView>, std::less<>> runs_ PLUMB_GUARDED_BY(mu_);
  std::list<std::shared_ptr<RunView>> asked_ PLUMB_GUARDED_BY(mu_);  // the last one first
  size_t left_out_ PLUMB_GUARDED_BY(mu_) = 0;
  std::chrono::steady_clock::time_point scanned_ PLUMB_GUARDED_BY(mu_){};
  bool scanned_once_ PLUMB_GUARDED_BY(mu_) = false;
};

// Whether a folder is one of a run.
bool IsRunFolder(const std::string& folder);

}  // namespace plumb::run
