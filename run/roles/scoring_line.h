// The reward role: groups in, scored side by side, and stored as soon as each is scored.
//
//   Push ──► queue ──► scorers (threads) ──► scored ──► inserter (one thread, one sync) ──► done
//
// A group goes in as it was made (in one process) or as its actor sealed it (from another one), and
// out as a sealed body with its scores: a body that came sealed is passed on as it stands. Purpose:
// what a local run and a reward process share. A slow group holds up nobody but itself; an insert
// carries at most insert_groups groups and insert_bytes bytes (a single larger group goes alone),
// whatever the groups' size. Failures: kUnavailable and kDeadline of the insert and of a score
// (whose prompt may have to be asked for) are tried again until the line is closed, with a line in
// the log; kNoSpace of the insert likewise for `full_disk_patience`, so that a run outlives a disk
// that is made room on. Any other error ends the line: Rethrow says it.
// Thread safety: all methods. Ownership: owns its threads and the groups in it. Close, and the
// destructor, wait for the calls that run; groups without a score are then let go of without
// `done`, those that have one are still inserted once.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "common/record/group_body.h"
#include "common/record/ports.h"
#include "replay/store/prompt_cache.h"
#include "replay/store/store.h"

namespace plumb::run {

struct ScoringOptions {
  int64_t side_by_side = 1;  // groups that are scored at the same time
  // groups in the line at most; 0: whoever pushes has a bound of his own
  size_t capacity = 0;
  size_t insert_groups = 64;
  size_t insert_bytes = size_t{64} << 20;
  std::chrono::milliseconds full_disk_patience{300'000};
  std::chrono::milliseconds retry{500};  // between two tries of an insert
};

// One of the two.
struct FinishedGroup {
  TrajectoryGroup group;
  std::optional<GroupBody> body;
};

// Scores a group that came sealed: what its parts need of it is read, its prompt is looked up, its
// body passes through.
replay::ScoredBody ScoreSealed(FinishedGroup& sealed, Scorer& scorer, replay::PromptCache& prompts);

class ScoringLine {
 public:
  // Leaves the group as it is when it throws.
  using Score = std::function<replay::ScoredBody(FinishedGroup&)>;
  using Insert = std::function<void(std::span<const replay::ScoredBody>)>;
  ScoringLine(Score score, Insert insert, ScoringOptions options);
  ~ScoringLine();

  // Takes the group. False, and the group stays, when there was no room before the deadline, or the
  // line is closed or has failed. `done` is called from a thread of the line once the group is
  // stored; it must not throw.
  bool Push(FinishedGroup& group, Deadline deadline, std::function<void()> done = {});
  void Close();
  bool failed() const { return failed_.load(); }
  void Rethrow() const;
  // While at least one group was being scored.
  double score_seconds() const;

 private:
  struct Item {
    FinishedGroup group;
    std::function<void()> done;
  };
  struct Scored {
    replay::ScoredBody group;
    std::function<void()> done;
  };
  void RunScorer();
  void RunInserter();
  std::optional<replay::ScoredBody> ScoreOne(FinishedGroup& group);
  bool Store(std::span<const replay::ScoredBody> groups);
  void Fail(std::exception_ptr error);

  const Score score_;
  const Insert insert_;
  const ScoringOptions options_;
  mutable Mutex mu_;
  CondVar changed_;
  std::deque<Item> queue_ PLUMB_GUARDED_BY(mu_);
  std::deque<Scored> scored_ PLUMB_GUARDED_BY(mu_);
  size_t inside_ PLUMB_GUARDED_BY(mu_) = 0;  // pushed and not stored
  int64_t busy_ PLUMB_GUARDED_BY(mu_) = 0;   // scorers at work
  std::chrono::steady_clock::time_point busy_since_ PLUMB_GUARDED_BY(mu_){};
  double busy_seconds_ PLUMB_GUARDED_BY(mu_) = 0;
  int64_t scorers_left_ PLUMB_GUARDED_BY(mu_) = 0;
  bool closed_ PLUMB_GUARDED_BY(mu_) = false;
  std::exception_ptr error_ PLUMB_GUARDED_BY(mu_);
  std::atomic<bool> failed_{false};
  std::vector<std::thread> threads_;
};

}  // namespace plumb::run
