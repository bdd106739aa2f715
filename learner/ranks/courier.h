// A thread that talks to the other ranks while the rank's own thread computes.
//
// Purpose: sums and gathers of ZeRO-2 and 3 go on beside the passes. Jobs run one at a time in the
// order in which they were posted; every rank posts the same ones. While a job may be running,
// nobody else uses what it uses: whoever turns to the Ranks directly calls WaitAll before.
// Thread safety: Post, Wait and times belong to one thread. Ownership: owns its thread; jobs
// borrow. Deadline: that of the jobs, which are calls of Ranks and end by the patience of those.
// Errors: what a job throws comes out of the next Wait or WaitAll, and no later job runs.
// Units: seconds.
#pragma once

#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <thread>

#include "common/base/mutex.h"

namespace plumb::learner {

class Courier {
 public:
  using Ticket = uint64_t;

  Courier();
  // Waits for the job that runs; those behind it are not begun.
  ~Courier();

  Ticket Post(std::function<void()> job);
  // Until that job and all before it are done.
  void Wait(Ticket ticket);
  void WaitAll() { Wait(posted_); }

  // What jobs have taken so far, and how long Wait waited for them.
  struct Times {
    double busy = 0, waited = 0;
  };
  Times times() const;

 private:
  void Run();

  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<std::function<void()>> jobs_ PLUMB_GUARDED_BY(mutex_);
  uint64_t done_ PLUMB_GUARDED_BY(mutex_) = 0;
  std::exception_ptr failed_ PLUMB_GUARDED_BY(mutex_);
  bool ending_ PLUMB_GUARDED_BY(mutex_) = false;
  double busy_ PLUMB_GUARDED_BY(mutex_) = 0;
  uint64_t posted_ = 0;
  double waited_ = 0;
  std::thread thread_;
};

}  // namespace plumb::learner
