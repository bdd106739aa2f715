#include "run/report/busy_line.h"

#include <utility>

#include "run/report/progress.h"

namespace plumb::run {

using SteadyClock = std::chrono::steady_clock;

BusyLine::BusyLine(Say say, std::chrono::milliseconds first, std::chrono::milliseconds next)
    : say_(std::move(say)), first_(first), next_(next), thread_([this] { Run(); }) {}

BusyLine::~BusyLine() {
  {
    MutexLock lock(mu_);
    ended_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void BusyLine::Begin(const std::string& work, double expected) {
  {
    MutexLock lock(mu_);
    work_ = work;
    expected_ = expected;
    begun_ = SteadyClock::now();
    due_ = begun_ + first_;
  }
  changed_.notify_all();
}

// Words are said with the mutex held, so that none comes later.
void BusyLine::End() {
  MutexLock lock(mu_);
  work_.clear();
}

void BusyLine::Run() {
  MutexLock lock(mu_);
  while (!ended_) {
    if (work_.empty()) {
      changed_.wait(lock, [this]() PLUMB_REQUIRES(mu_) { return ended_ || !work_.empty(); });
      continue;
    }
    if (SteadyClock::now() < due_) {
      changed_.wait_until(lock, due_);
      continue;
    }
    const double so_far = std::chrono::duration<double>(SteadyClock::now() - begun_).count();
    // What took longer than expected was expected wrongly.
    const bool known = expected_ > so_far;
    say_(work_ + ", " + Duration(so_far) + " so far" +
         (known ? " of about " + Duration(expected_) : ""));
    due_ = SteadyClock::now() + next_;
  }
}

}  // namespace plumb::run
