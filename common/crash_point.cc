#include "common/crash_point.h"

#include <csignal>
#include <mutex>
#include <unistd.h>

namespace plumb {
namespace internal {

std::atomic<bool> crash_point_armed{false};

namespace {
std::mutex mu;
std::string armed_name;  // guarded by mu
int remaining = 0;       // guarded by mu
}  // namespace

void ReachCrashPoint(const char* name) {
  std::lock_guard lock(mu);
  if (armed_name != name || --remaining > 0) return;
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();
}

}  // namespace internal

void ArmCrashPointForTest(const std::string& name, int nth) {
  std::lock_guard lock(internal::mu);
  internal::armed_name = name;
  internal::remaining = nth;
  internal::crash_point_armed.store(!name.empty(), std::memory_order_relaxed);
}

}  // namespace plumb
