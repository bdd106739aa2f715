// A run's metrics told to a tracker: Weights & Biases, trackio or MLflow (metrics.follow).
//
// Purpose: starts tools/follow_metrics.py, which is built into the program, as a child that reads
// metrics.jsonl. The run gives it nothing but the word to begin and the end of a pipe, waits for it
// at the start (is the package there?) and at the end (kPatience at most), and nowhere else: a
// tracker that hangs or dies neither stops nor slows a step, and a run that is killed ends it, for
// the pipe closes. What it prints is in logs/follow.log.
// Thread safety: one thread. Ownership: owns the child, which Finish ends; without it the
// destructor does, at once. Errors: the constructor throws kUnavailable where there is no
// interpreter or no package.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <string_view>

#include "configs/choices.h"
#include "run/session/run_folder.h"

namespace plumb::run {

// tools/follow_metrics.py as it was when the program was built.
std::string_view FollowMetricsScript();

class MetricsFollower {
 public:
  static constexpr std::chrono::seconds kReady{120};    // an interpreter with a large package
  static constexpr std::chrono::seconds kPatience{30};  // for what is to be told at the end

  // Waits until the child has the tracker's package. `to` is not kNone; `python` is looked up in
  // PATH.
  MetricsFollower(configs::Follow to, const RunFolder& folder,
                  const std::string& python = "python3");
  ~MetricsFollower();
  MetricsFollower(const MetricsFollower&) = delete;
  MetricsFollower& operator=(const MetricsFollower&) = delete;

  // metrics.jsonl holds from now on what this run says.
  void Begin();
  // Empty, or, once, that the child has ended before the run. Never waits.
  std::string Look();
  // No line comes any more: lets it tell what there is, and ends it. Empty, or what was not told.
  std::string Finish(std::chrono::milliseconds patience = kPatience);

 private:
  void Start(const std::string& python);
  void WaitUntilReady(const std::string& python);
  bool Ended();  // reaped, now or earlier; `status_` says how
  void Kill();
  std::string Rest() const;       // what to do about it
  std::string LastWords() const;  // of its log

  const std::string to_, run_, log_;
  pid_t pid_ = -1;
  int input_ = -1, ready_ = -1;
  int status_ = 0;
  bool said_ = false;
};

}  // namespace plumb::run
