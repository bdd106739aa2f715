// Counters of a run over its lives.
//
// Purpose: what actors and reward workers count begins at 0 in each life of a run; what the store
// counts does not. In the metrics of a resumed run, and in its summary, a total goes on from the
// last step that the run kept: it neither falls to 0 nor counts steps twice that are done again.
// Within a life it never falls either, as when a store that was restarted has not yet heard of all
// roles again.
// Thread safety: none.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace plumb::run {

// The metric of a counter: "inserts" is "replay/inserts".
std::string CounterMetric(const std::string& name);
// Held, waiting and queue are how things are now: they rise and fall.
bool IsTotal(const std::string& counter);

class CarriedCounters {
 public:
  // `last`: the metrics of the last step that was kept; `now`: the counters as they are before the
  // first step of this life.
  void Begin(const std::map<std::string, double>& last, const std::map<std::string, int64_t>& now);
  void Apply(std::map<std::string, int64_t>& counters);

 private:
  std::map<std::string, int64_t> before_;   // added to what this life counts
  std::map<std::string, int64_t> highest_;  // that was said
};

}  // namespace plumb::run
