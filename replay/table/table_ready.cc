// Schedule async: which of the finished groups a train step takes.
#include <algorithm>
#include <iterator>
#include <set>

#include "replay/table/table.h"

namespace plumb::replay {

bool ReplayTable::Choose(int64_t step) {
  if (step < undecided_step_) return true;
  const int64_t oldest = step + options_.version_base - options_.max_staleness;
  const auto answer_afresh = [&](const std::vector<uint64_t>& ids, const char* reason)
                                 PLUMB_REQUIRES(mu_) {
                                   if (ids.empty()) return;
                                   Reopen(Purpose::kTrain, ids, reason);
                                   for (const uint64_t id : ids) train_.Open(id, id + 1);
                                   changed_.notify_all();
                                 };
  answer_afresh(ready_.Where([&](const ReadyQueue::Group& group)
                                 PLUMB_REQUIRES(mu_) { return OtherWeights(group.policy); }),
                "other_weights");
  answer_afresh(
      ready_.Where([&](const ReadyQueue::Group& group) { return group.oldest_version < oldest; }),
      "stale");
  const auto wanted = static_cast<size_t>(batches_.Of(step));
  if (ready_.size() < wanted) return false;
  const std::vector<uint64_t> ids = ready_.First(wanted);
  planner_->Choose(step, ids);
  ready_.Take(ids);
  undecided_step_ = step + 1;
  return true;
}

void ReplayTable::NoteReady(const GroupHead& group) {
  const uint64_t id = group.lease.lease_id;
  const auto record = store_->ReadLease(Purpose::kTrain, id);
  if (!record || !record->complete)
    return;  // another thread has found it of other weights and forgotten it
  ready_.Add(id, {.arrival = record->sequence,
                  .oldest_version = group.oldest_version,
                  .policy = group.policy});
}

void ReplayTable::RebuildReady() {
  ready_ = {};
  const uint64_t trimmed = store_->TrimmedBefore(Purpose::kTrain);
  ready_.SetTakenBefore(trimmed);
  undecided_step_ = StepOf(trimmed);  // these were all taken
  for (const auto& [step, plan] : store_->Plans()) {
    if (plan.chosen.empty()) continue;
    ready_.Take(plan.chosen);
    undecided_step_ = std::max(undecided_step_, step + 1);
  }
  for (const uint64_t id : store_->Ids(Purpose::kTrain, trimmed, UINT64_MAX)) {
    if (ready_.IsTaken(id)) continue;
    if (const auto head = store_->ReadHead(Purpose::kTrain, id)) NoteReady(*head);
  }
}

// Under another Plumb each step took the leases that bear its number, and said so nowhere.
void ReplayTable::TakeByNumber(int64_t next_step) {
  bool any = false;
  for (int64_t step = StepOf(store_->TrimmedBefore(Purpose::kTrain)); step < next_step; ++step) {
    if (planner_->Chosen(step)) continue;
    planner_->Choose(step, planner_->OwnGroups(step));
    any = true;
  }
  if (any) RebuildReady();
}

void ReplayTable::ForgetAnswers(const std::vector<uint64_t>& ids) {
  for (const uint64_t id : ids) ready_.Forget(id);
  if (std::none_of(ids.begin(), ids.end(),
                   [&](uint64_t id) PLUMB_REQUIRES(mu_) { return ready_.IsTaken(id); }))
    return;
  const std::set<uint64_t> forgotten(ids.begin(), ids.end());
  for (const auto& [step, plan] : store_->Plans()) {
    if (std::none_of(plan.chosen.begin(), plan.chosen.end(),
                     [&](uint64_t id) { return forgotten.contains(id); }))
      continue;
    planner_->Forget(step);
    RebuildReady();
    return;
  }
}

uint64_t ReplayTable::TakenBelow(int64_t step) const {
  uint64_t below = FirstOf(step);
  for (int64_t later = step; later < undecided_step_; ++later) {
    for (const uint64_t id : planner_->OwnGroups(later)) below = std::min(below, id);
  }
  uint64_t id = store_->TrimmedBefore(Purpose::kTrain);
  while (id < below && ready_.IsTaken(id)) ++id;
  return id;
}

int64_t ReplayTable::PlansBelow(uint64_t lease_id) const {
  const int64_t end = StepOf(lease_id);
  for (const auto& [step, plan] : store_->Plans()) {
    const bool reaches = std::any_of(plan.chosen.begin(), plan.chosen.end(),
                                     [&](uint64_t id) { return id >= lease_id; });
    if (step >= end || reaches) return std::min(step, end);
  }
  return end;
}

}  // namespace plumb::replay
