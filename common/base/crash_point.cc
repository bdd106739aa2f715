#include "common/base/crash_point.h"

#include <unistd.h>
#include <csignal>

#include "common/base/mutex.h"

namespace plumb {
namespace internal {

std::atomic<bool> crash_point_armed{false};

namespace {
Mutex mu;
std::string armed_name PLUMB_GUARDED_BY(mu);
int remaining PLUMB_GUARDED_BY(mu) = 0;
}  // namespace

void ReachCrashPoint(const char* name) {
  MutexLock lock(mu);
  if (armed_name != name || --remaining > 0) return;
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();
}

}  // namespace internal

void ArmCrashPointForTest(const std::string& name, int nth) {
  MutexLock lock(internal::mu);
  internal::armed_name = name;
  internal::remaining = nth;
  internal::crash_point_armed.store(!name.empty(), std::memory_order_relaxed);
}

}  // namespace plumb
