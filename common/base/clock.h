// Time behind an interface, so that tests can move it by hand (tests/testing/fake_clock.h).
// Thread safety: all implementations.
#pragma once

#include <chrono>
#include <cstdint>

namespace plumb {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t MonotonicMs() = 0;  // never goes back; no meaning between processes or boots
  virtual int64_t WallMs() = 0;       // since 1970 UTC; may jump
};

class SystemClock final : public Clock {
 public:
  int64_t MonotonicMs() override { return Count(std::chrono::steady_clock::now()); }
  int64_t WallMs() override { return Count(std::chrono::system_clock::now()); }

 private:
  template <class TimePoint>
  static int64_t Count(TimePoint t) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(t.time_since_epoch()).count();
  }
};

inline Clock& RealClock() {
  static SystemClock clock;
  return clock;
}

}  // namespace plumb
