#include "replay/table/ready_queue.h"

#include <utility>

namespace plumb::replay {

void ReadyQueue::Add(uint64_t lease_id, Group group) {
  if (IsTaken(lease_id) || groups_.contains(lease_id)) return;
  arrivals_.emplace(group.arrival, lease_id);
  groups_.emplace(lease_id, std::move(group));
}

void ReadyQueue::Take(std::span<const uint64_t> lease_ids) {
  for (const uint64_t id : lease_ids) {
    Forget(id);
    if (id >= taken_before_) taken_.insert(id);
  }
  // Keep the set small: leases are mostly taken in order.
  for (; taken_.contains(taken_before_); ++taken_before_) taken_.erase(taken_before_);
}

void ReadyQueue::Forget(uint64_t lease_id) {
  const auto found = groups_.find(lease_id);
  if (found == groups_.end()) return;
  arrivals_.erase({found->second.arrival, lease_id});
  groups_.erase(found);
}

void ReadyQueue::SetTakenBefore(uint64_t lease_id) {
  if (lease_id <= taken_before_) return;
  taken_before_ = lease_id;
  taken_.erase(taken_.begin(), taken_.lower_bound(lease_id));
  while (!groups_.empty() && groups_.begin()->first < lease_id) Forget(groups_.begin()->first);
}

std::vector<uint64_t> ReadyQueue::First(size_t count) const {
  std::vector<uint64_t> ids;
  for (auto it = arrivals_.begin(); it != arrivals_.end() && ids.size() < count; ++it)
    ids.push_back(it->second);
  return ids;
}

std::vector<uint64_t> ReadyQueue::Where(const std::function<bool(const Group&)>& is) const {
  std::vector<uint64_t> ids;
  for (const auto& [id, group] : groups_) {
    if (is(group)) ids.push_back(id);
  }
  return ids;
}

}  // namespace plumb::replay
