// Which prompt belongs to which lease, and who holds it now.
//
// Purpose: PromptOrder is a pure function from lease id to row, so any restart hands out the same
// prompt under the same id; LeaseBook knows which ids of one purpose are free, out or done. Both
// are plain state: durability is the store's.
// Thread safety: PromptOrder is const and safe; LeaseBook is not, its owner (ReplayTable) locks.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/base/mutex.h"

namespace plumb::replay {

// Row of a lease: pass e = id / rows over the table goes through its rows in a shuffle keyed by
// (seed, e).
class PromptOrder {
 public:
  // REQUIRES: 0 < rows < 2^32.
  PromptOrder(uint64_t seed, uint64_t rows, bool shuffle);
  uint64_t RowOf(uint64_t lease_id) const;  // O(rows) for the first id of a pass, then O(1)
  uint64_t rows() const { return rows_; }

 private:
  const uint64_t seed_;
  const uint64_t rows_;
  const bool shuffle_;
  mutable Mutex mu_;
  // The few used last
  mutable std::map<uint64_t, std::vector<uint32_t>> passes_ PLUMB_GUARDED_BY(mu_);
};

// Lease ids of evaluations: a block of its own for each (version, samples), a pure function, so
// that a resumed run asks for the same ids: version * 2^32 + samples * 2^20 + row. Blocks never
// meet and none contains a small training id.
inline constexpr uint64_t kMaxEvalPrompts = uint64_t{1} << 20;
inline constexpr int32_t kMaxEvalSamples = (1 << 12) - 1;
// Throws kInvalidArgument for a version < 0 or >= 2^31 or samples outside [1, kMaxEvalSamples].
uint64_t EvalLeaseBase(int64_t version, int32_t samples);
struct EvalLease {
  int64_t version = 0;
  int32_t samples = 0;
  uint64_t row = 0;
};
EvalLease ParseEvalLease(uint64_t lease_id);

// States of a lease:            HandOut                 Complete
//              (Open) -> free ---------> out -----------------------> done
//                         ^   Release / Expire / Requeue  |             ^
//                         +-------------------------------+   Complete from anywhere, late answers
//                                                             count too
// Reopen leads from done back to where Open finds it.
class LeaseBook {
 public:
  explicit LeaseBook(int64_t timeout_ms) : timeout_ms_(timeout_ms) {}

  struct Held {
    uint64_t lease_id = 0;
    uint32_t attempt = 0;
    uint32_t requeues = 0;
    std::string holder;    // actor
    int64_t since_ms = 0;  // when it was handed out
    int64_t deadline_ms = 0;
  };

  // What an earlier life of the store remembers; before Open.
  void Restore(uint64_t lease_id, bool complete, uint32_t attempt, uint32_t requeues);
  void SetDoneBefore(uint64_t lease_id);  // everything below is done (trimmed)

  // Makes the ids of [begin, end) that are neither out nor done free.
  void Open(uint64_t begin, uint64_t end);
  // Hands out up to `max` free ids < `limit`, lowest first.
  std::vector<Held> HandOut(int max, uint64_t limit, const std::string& holder, int64_t now_ms);
  // Back to free, if it is out in exactly this attempt (an old attempt's release must not take it
  // from its new holder).
  bool Release(uint64_t lease_id, uint32_t attempt);
  // Frees all that `holder` has; returns how many.
  int ReleaseHolder(const std::string& holder);
  // The time of all that `holder` has begins anew; returns how many.
  int RenewHolder(const std::string& holder, int64_t now_ms);
  int HeldBy(const std::string& holder) const;
  // Free below `limit`, or out.
  size_t Unanswered(uint64_t limit) const;
  // Frees what is past its deadline; returns the ids.
  std::vector<Held> Expire(int64_t now_ms);
  // Free again after an answer that could not be used; returns how often that has happened to it.
  uint32_t Requeue(uint64_t lease_id);
  uint32_t Requeues(uint64_t lease_id) const;
  void Complete(uint64_t lease_id);
  // Its answer is forgotten; the next one has a higher attempt. Nothing for what SetDoneBefore has
  // trimmed.
  void Reopen(uint64_t lease_id, uint32_t last_attempt);

  bool IsDone(uint64_t lease_id) const;
  uint64_t FirstNotDone() const { return done_before_; }
  bool HasFree(uint64_t limit) const { return !free_.empty() && *free_.begin() < limit; }
  // nullptr when it is not out.
  const Held* FindHeld(uint64_t lease_id) const;
  size_t held() const { return held_.size(); }

 private:
  struct History {
    uint32_t next_attempt = 0;
    uint32_t requeues = 0;
  };
  const int64_t timeout_ms_;
  uint64_t trimmed_before_ = 0;
  uint64_t done_before_ = 0;  // all ids below are done
  std::set<uint64_t> done_;   // done ids >= done_before_
  std::set<uint64_t> free_;
  std::map<uint64_t, Held> held_;
  std::map<uint64_t, History> history_;  // of ids not done that were handed out before
};

}  // namespace plumb::replay
