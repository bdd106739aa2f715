// How much may be drawn for what was inserted, and how old it may be.
//
// Purpose: the ratio between drawing and inserting bounds how often a group is trained on; the
// staleness bound how far its policy is behind. A pure function of counts, so that a resumed run is
// limited as the unbroken one was. It never blocks: a step that may draw less than it wants trains
// on less, which is counted. With I inserts and S draws so far: S + granted <= samples_per_insert *
// (I - min_groups + 1), and nothing before I = min_groups.
// Thread safety: const. Errors: construction throws kInvalidArgument.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

#include "common/base/error.h"

namespace plumb::replay {

struct RateLimiterOptions {
  double samples_per_insert = 1;  // > 0
  int64_t min_groups = 1;         // inserts before the first draw; >= 1
  // versions that a group's oldest token may be behind; 0: no bound
  int64_t max_staleness = 0;
};

class RateLimiter {
 public:
  explicit RateLimiter(const RateLimiterOptions& options) : options_(options) {
    const auto refuse = [](const char* why) {
      throw Error(ErrorCode::kInvalidArgument, std::string("rate limiter: ") + why);
    };
    if (!(options_.samples_per_insert > 0) || !std::isfinite(options_.samples_per_insert))
      refuse("samples_per_insert has to be positive");
    if (options_.min_groups < 1) refuse("min_groups has to be at least 1");
    if (options_.max_staleness < 0) refuse("max_staleness must not be negative");
  }

  // How many of `wanted` draws are granted now.
  int64_t Grant(int64_t inserts, int64_t samples, int64_t wanted) const {
    if (inserts < options_.min_groups || wanted <= 0) return 0;
    const double allowed = std::floor(options_.samples_per_insert *
                                      static_cast<double>(inserts - options_.min_groups + 1));
    const double left = allowed - static_cast<double>(samples);
    return left <= 0 ? 0 : static_cast<int64_t>(std::min(left, static_cast<double>(wanted)));
  }
  // Whether tokens of `version` may be trained on when the learner has `now`.
  bool Fresh(int64_t version, int64_t now) const {
    return options_.max_staleness == 0 || now - version <= options_.max_staleness;
  }

 private:
  const RateLimiterOptions options_;
};

}  // namespace plumb::replay
