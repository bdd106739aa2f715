// What actors and reward workers have done since the run began, and what of it belongs to a step of
// the learner.
//
// Purpose: time/generate, time/reward and perf/decode_tokens_per_s mean the same whether the roles
// are threads or processes. Roles in processes report their totals to the store
// (ReplayClient::Report), the learner reads them with the store's counters.
// Thread safety: plain values.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace plumb::run {

struct RoleTotals {
  double generate_s = 0;         // inside the engines of all actors
  double reward_s = 0;           // inside the scorers of all reward workers
  int64_t generated_tokens = 0;  // of unfinished answers too
};

// As counters that a store can keep, and out of them again: Take removes what it has read.
std::map<std::string, int64_t> ToCounters(const RoleTotals& totals);
RoleTotals TakeRoleTotals(std::map<std::string, int64_t>& counters);

// Differences between steps. A role that was killed may report less than before: such a step says
// 0, not a negative time.
class RoleTimes {
 public:
  explicit RoleTimes(const RoleTotals& at_start = {}) : before_(at_start) {}
  void AddStep(const RoleTotals& now, std::map<std::string, double>& metrics);

 private:
  RoleTotals before_;
};

}  // namespace plumb::run
