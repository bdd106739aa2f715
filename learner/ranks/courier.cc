#include "learner/ranks/courier.h"

#include <chrono>
#include <utility>

namespace plumb::learner {
namespace {

using SteadyClock = std::chrono::steady_clock;

double SecondsSince(SteadyClock::time_point begin) {
  return std::chrono::duration<double>(SteadyClock::now() - begin).count();
}

}  // namespace

Courier::Courier() : thread_([this] { Run(); }) {}

Courier::~Courier() {
  {
    MutexLock lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Courier::Ticket Courier::Post(std::function<void()> job) {
  {
    MutexLock lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  changed_.notify_all();
  return ++posted_;
}

void Courier::Wait(Ticket ticket) {
  const auto begin = SteadyClock::now();
  MutexLock lock(mutex_);
  changed_.wait(lock, [&]() PLUMB_REQUIRES(mutex_) { return done_ >= ticket || failed_; });
  waited_ += SecondsSince(begin);
  if (failed_) std::rethrow_exception(failed_);
}

Courier::Times Courier::times() const {
  MutexLock lock(mutex_);
  return {.busy = busy_, .waited = waited_};
}

void Courier::Run() {
  MutexLock lock(mutex_);
  for (;;) {
    changed_.wait(lock,
                  [&]() PLUMB_REQUIRES(mutex_) { return ending_ || (!jobs_.empty() && !failed_); });
    if (ending_) return;
    const std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    const auto begin = SteadyClock::now();
    std::exception_ptr failed;
    try {
      job();
    } catch (...) {
      failed = std::current_exception();
    }
    lock.lock();
    busy_ += SecondsSince(begin);
    failed_ = failed;
    ++done_;
    changed_.notify_all();
  }
}

}  // namespace plumb::learner
