// A clock that moves only when told. Thread safety: all methods.
#pragma once

#include <atomic>

#include "common/base/clock.h"

namespace plumb::testing {

class FakeClock final : public Clock {
 public:
  explicit FakeClock(int64_t now_ms = 1'700'000'000'000) : now_ms_(now_ms) {}
  int64_t MonotonicMs() override { return now_ms_; }
  int64_t WallMs() override { return now_ms_; }
  void Advance(int64_t ms) { now_ms_ += ms; }

 private:
  std::atomic<int64_t> now_ms_;
};

}  // namespace plumb::testing
