// What GET /metrics of a server says, in Prometheus' text format.
//
// Purpose: requests by endpoint and status, tokens, the batch, keys and values, the time to the
// first token. All names begin with plumb_serve_. Thread safety: all of ServedReplies; the function
// is pure. Errors: none.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "common/base/mutex.h"
#include "run/serve/batch_engine.h"

namespace plumb::run {

// Replies so far, by endpoint and HTTP status.
class ServedReplies {
 public:
  void Count(const std::string& endpoint, int status);
  std::map<std::pair<std::string, int>, uint64_t> Now() const;

 private:
  mutable Mutex mu_;
  std::map<std::pair<std::string, int>, uint64_t> replies_ PLUMB_GUARDED_BY(mu_);
};

std::string ServeMetricsText(const BatchCounters& counters,
                             const std::map<std::pair<std::string, int>, uint64_t>& replies);

}  // namespace plumb::run
