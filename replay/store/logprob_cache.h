// The LogprobCache port over a store: reference log-probs are computed once and read ever after.
//
// Purpose: a frozen reference gives the same log-probs for the same tokens, so a second epoch, a
// resumed run and another run on the same store need no reference forward. Keys say both: the
// digest of the reference's weights, and SequenceDigest (common/record/preference.h) of the tokens
// with their loss mask. What is stored is the log-probs of the scored tokens, in order.
// Thread safety: as the store's. Ownership: borrows the store. Errors: the store's; kCorruption for
// a damaged value.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/record/ports.h"
#include "common/record/trajectory.h"
#include "replay/store/store.h"

namespace plumb::replay {

class StoreLogprobCache : public LogprobCache {
 public:
  explicit StoreLogprobCache(Store* store) : store_(store) {}

  std::optional<std::vector<float>> Get(const Digest& model, const Digest& sequence) override;
  // Not synced: what a power cut loses is computed again.
  void Put(const Digest& model, const Digest& sequence, std::span<const float> logprobs) override;

  int64_t hits() const { return hits_.load(); }
  int64_t misses() const { return misses_.load(); }

 private:
  Store* const store_;
  std::atomic<int64_t> hits_{0}, misses_{0};
};

}  // namespace plumb::replay
