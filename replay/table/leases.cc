#include "replay/table/leases.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "common/base/error.h"
#include "common/base/rng.h"

namespace plumb::replay {
namespace {

// Streams of the shuffles lie apart from the initialisers' small stream numbers.
constexpr uint64_t kShuffleStream = uint64_t{0x5EED} << 48;

}  // namespace

PromptOrder::PromptOrder(uint64_t seed, uint64_t rows, bool shuffle)
    : seed_(seed), rows_(rows), shuffle_(shuffle) {
  PLUMB_CHECK(rows > 0 && rows < (uint64_t{1} << 32), "rows = " + std::to_string(rows));
}

uint64_t PromptOrder::RowOf(uint64_t lease_id) const {
  const uint64_t pass = lease_id / rows_;
  const uint64_t at = lease_id % rows_;
  if (!shuffle_) return at;
  MutexLock lock(mu_);
  auto found = passes_.find(pass);
  if (found == passes_.end()) {
    std::vector<uint32_t> rows(static_cast<size_t>(rows_));
    std::iota(rows.begin(), rows.end(), 0u);
    RandomStream random(seed_, kShuffleStream + pass);
    for (size_t i = rows.size(); i > 1; --i)
      std::swap(rows[i - 1], rows[random.NextBelow(static_cast<uint32_t>(i))]);
    // Leases move forward: the lowest passes are the ones not needed again soon.
    while (passes_.size() >= 3) passes_.erase(passes_.begin());
    found = passes_.emplace(pass, std::move(rows)).first;
  }
  return found->second[static_cast<size_t>(at)];
}

uint64_t EvalLeaseBase(int64_t version, int32_t samples) {
  if (version < 0 || version >= (int64_t{1} << 31)) {
    throw Error(ErrorCode::kInvalidArgument, "cannot evaluate policy version " +
                                                 std::to_string(version) +
                                                 ": versions are 0 .. 2^31 - 1");
  }
  if (samples < 1 || samples > kMaxEvalSamples) {
    throw Error(ErrorCode::kInvalidArgument,
                "cannot evaluate with " + std::to_string(samples) +
                    " samples a prompt: eval.samples must lie in 1 .. " +
                    std::to_string(kMaxEvalSamples));
  }
  return (static_cast<uint64_t>(version) << 32) | (static_cast<uint64_t>(samples) << 20);
}

EvalLease ParseEvalLease(uint64_t lease_id) {
  return {static_cast<int64_t>(lease_id >> 32), static_cast<int32_t>((lease_id >> 20) & 0xFFF),
          lease_id & (kMaxEvalPrompts - 1)};
}

void LeaseBook::Restore(uint64_t lease_id, bool complete, uint32_t attempt, uint32_t requeues) {
  if (complete) {
    Complete(lease_id);
  } else {
    history_[lease_id] = {attempt + 1, requeues};
  }
}

void LeaseBook::SetDoneBefore(uint64_t lease_id) {
  trimmed_before_ = std::max(trimmed_before_, lease_id);
  if (lease_id <= done_before_) return;
  done_before_ = lease_id;
  done_.erase(done_.begin(), done_.lower_bound(lease_id));
  free_.erase(free_.begin(), free_.lower_bound(lease_id));
  held_.erase(held_.begin(), held_.lower_bound(lease_id));
  history_.erase(history_.begin(), history_.lower_bound(lease_id));
}

void LeaseBook::Open(uint64_t begin, uint64_t end) {
  for (uint64_t id = std::max(begin, done_before_); id < end; ++id) {
    if (!done_.contains(id) && !held_.contains(id)) free_.insert(id);
  }
}

std::vector<LeaseBook::Held> LeaseBook::HandOut(int max, uint64_t limit, const std::string& holder,
                                                int64_t now_ms) {
  std::vector<Held> taken;
  while (static_cast<int>(taken.size()) < max && HasFree(limit)) {
    const uint64_t id = *free_.begin();
    free_.erase(free_.begin());
    History& history = history_[id];
    Held held{id, history.next_attempt, history.requeues, holder, now_ms, now_ms + timeout_ms_};
    ++history.next_attempt;
    held_[id] = held;
    taken.push_back(std::move(held));
  }
  return taken;
}

bool LeaseBook::Release(uint64_t lease_id, uint32_t attempt) {
  const auto found = held_.find(lease_id);
  if (found == held_.end() || found->second.attempt != attempt) return false;
  held_.erase(found);
  free_.insert(lease_id);
  return true;
}

int LeaseBook::ReleaseHolder(const std::string& holder) {
  int released = 0;
  for (auto it = held_.begin(); it != held_.end();) {
    if (it->second.holder != holder) {
      ++it;
      continue;
    }
    free_.insert(it->first);
    it = held_.erase(it);
    ++released;
  }
  return released;
}

int LeaseBook::RenewHolder(const std::string& holder, int64_t now_ms) {
  int renewed = 0;
  for (auto& [id, held] : held_) {
    if (held.holder != holder) continue;
    held.deadline_ms = now_ms + timeout_ms_;
    ++renewed;
  }
  return renewed;
}

int LeaseBook::HeldBy(const std::string& holder) const {
  return static_cast<int>(std::count_if(held_.begin(), held_.end(),
                                        [&](const auto& h) { return h.second.holder == holder; }));
}

size_t LeaseBook::Unanswered(uint64_t limit) const {
  const bool all = free_.empty() || *free_.rbegin() < limit;
  const auto end = free_.lower_bound(limit);
  return held_.size() +
         (all ? free_.size() : static_cast<size_t>(std::distance(free_.begin(), end)));
}

std::vector<LeaseBook::Held> LeaseBook::Expire(int64_t now_ms) {
  std::vector<Held> expired;
  for (auto it = held_.begin(); it != held_.end();) {
    if (it->second.deadline_ms > now_ms) {
      ++it;
      continue;
    }
    free_.insert(it->first);
    expired.push_back(std::move(it->second));
    it = held_.erase(it);
  }
  return expired;
}

uint32_t LeaseBook::Requeue(uint64_t lease_id) {
  held_.erase(lease_id);
  if (!IsDone(lease_id)) free_.insert(lease_id);
  return ++history_[lease_id].requeues;
}

uint32_t LeaseBook::Requeues(uint64_t lease_id) const {
  const auto found = history_.find(lease_id);
  return found == history_.end() ? 0 : found->second.requeues;
}

void LeaseBook::Complete(uint64_t lease_id) {
  free_.erase(lease_id);
  held_.erase(lease_id);
  history_.erase(lease_id);
  if (lease_id >= done_before_) done_.insert(lease_id);
  // Keep the set small: ids are mostly completed in order.
  while (!done_.empty() && *done_.begin() == done_before_) {
    done_.erase(done_.begin());
    ++done_before_;
  }
}

void LeaseBook::Reopen(uint64_t lease_id, uint32_t last_attempt) {
  if (lease_id < trimmed_before_) return;
  if (lease_id < done_before_) {
    for (uint64_t id = lease_id + 1; id < done_before_; ++id) done_.insert(done_.end(), id);
    done_before_ = lease_id;
  } else {
    done_.erase(lease_id);
  }
  history_[lease_id] = {last_attempt + 1, 0};
}

bool LeaseBook::IsDone(uint64_t lease_id) const {
  return lease_id < done_before_ || done_.contains(lease_id);
}

const LeaseBook::Held* LeaseBook::FindHeld(uint64_t lease_id) const {
  const auto found = held_.find(lease_id);
  return found == held_.end() ? nullptr : &found->second;
}

}  // namespace plumb::replay
