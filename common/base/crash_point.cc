#include "common/base/crash_point.h"

#include <unistd.h>
#include <csignal>
#include <utility>

#include "common/base/crash_action.h"
#include "common/base/mutex.h"

namespace plumb {
namespace internal {

std::atomic<bool> crash_point_armed{false};

namespace {
Mutex mu;
std::string armed_name PLUMB_GUARDED_BY(mu);
int remaining PLUMB_GUARDED_BY(mu) = 0;
std::function<void()> instead PLUMB_GUARDED_BY(mu);  // of dying

void Arm(const std::string& name, int nth, std::function<void()> action) {
  MutexLock lock(mu);
  armed_name = name;
  remaining = nth;
  instead = std::move(action);
  crash_point_armed.store(!name.empty(), std::memory_order_relaxed);
}
}  // namespace

void ReachCrashPoint(const char* name) {
  std::function<void()> action;
  {
    MutexLock lock(mu);
    if (armed_name != name || --remaining > 0) return;
    if (!instead) {
      ::kill(::getpid(), SIGKILL);
      for (;;) ::pause();
    }
    action = std::exchange(instead, nullptr);
    armed_name.clear();
    crash_point_armed.store(false, std::memory_order_relaxed);
  }
  action();  // it may come to other points
}

}  // namespace internal

void ArmCrashPointForTest(const std::string& name, int nth) { internal::Arm(name, nth, nullptr); }

void ActAtCrashPointForTest(const std::string& name, std::function<void()> action, int nth) {
  internal::Arm(name, nth, std::move(action));
}

}  // namespace plumb
