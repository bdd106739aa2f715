// Finished groups that no train step has taken yet, in order of arrival: what schedule async
// chooses from.
//
// Purpose: plain state beside a ReplayTable's lease books, so that a step takes what is there
// instead of waiting for leases of its own number. Arrival is the number of the store's insert, so
// a table that is opened again has the same order; of equal numbers the lower lease goes first.
// Thread safety: none, its owner (ReplayTable) locks. Durability: what a step took is in its plan
// (replay/table/step_planner.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "common/record/trajectory.h"

namespace plumb::replay {

class ReadyQueue {
 public:
  struct Group {
    uint64_t arrival = 0;        // number of its insert
    int64_t oldest_version = 0;  // that sampled any token of it
    PolicyVersion policy;
  };

  // Nothing happens for a lease that is there, or that a step has taken.
  void Add(uint64_t lease_id, Group group);
  // These are a step's from now on, whether they were here or not.
  void Take(std::span<const uint64_t> lease_ids);
  // Its answer was forgotten: it may come again.
  void Forget(uint64_t lease_id);
  // All leases below were taken, and are trimmed.
  void SetTakenBefore(uint64_t lease_id);

  // The first `count` that came, or all where there are fewer.
  std::vector<uint64_t> First(size_t count) const;
  // Ascending.
  std::vector<uint64_t> Where(const std::function<bool(const Group&)>& is) const;
  bool IsTaken(uint64_t lease_id) const {
    return lease_id < taken_before_ || taken_.contains(lease_id);
  }
  size_t size() const { return groups_.size(); }

 private:
  std::map<uint64_t, Group> groups_;                  // by lease
  std::set<std::pair<uint64_t, uint64_t>> arrivals_;  // (arrival, lease) of the same
  uint64_t taken_before_ = 0;                         // all ids below are taken
  std::set<uint64_t> taken_;                          // taken ids >= taken_before_
};

}  // namespace plumb::replay
