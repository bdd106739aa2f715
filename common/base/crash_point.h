// Named places where a test lets the process die.
//
// Purpose: CRASH_POINT("after_wal_before_ack") ends the process with SIGKILL there, once a test has
// armed that name; otherwise it costs one relaxed load. Names are listed where they stand; a test
// of each shows what survives.
// Thread safety: safe. Nothing outside tests arms one: there is no option and no environment
// variable for it.
#pragma once

#include <atomic>
#include <string>

namespace plumb {

// The process dies when the point `name` is reached for the `nth` time from now on (1: the next
// time). One point at a time; an empty name disarms.
void ArmCrashPointForTest(const std::string& name, int nth = 1);

namespace internal {
extern std::atomic<bool> crash_point_armed;
void ReachCrashPoint(const char* name);
}  // namespace internal

}  // namespace plumb

#define CRASH_POINT(name)                                                                  \
  do {                                                                                     \
    if (::plumb::internal::crash_point_armed.load(std::memory_order_relaxed)) [[unlikely]] \
      ::plumb::internal::ReachCrashPoint(name);                                            \
  } while (false)
