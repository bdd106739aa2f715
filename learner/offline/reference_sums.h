// Summed log-probs under a frozen reference, computed once through the LogprobCache port.
//
// Purpose: what losses that compare with a reference share: the name of the reference's weights,
// the look-up, the count of sequences that went through the model.
// Thread safety: one thread. Ownership: borrows the reference and the cache. Errors: those of the
// cache.
#pragma once

#include <span>
#include <vector>

#include "common/record/ports.h"
#include "learner/update/reference_policy.h"
#include "learner/update/train_step.h"

namespace plumb::learner {

class ReferenceSums {
 public:
  // `cache` may be nullptr.
  ReferenceSums(ReferencePolicy& reference, LogprobCache* cache);

  // Log-probs summed over the scored tokens of each sequence.
  std::vector<double> Of(std::span<const SequenceView> views);

  const Digest& digest() const { return digest_; }  // of the reference's weights
  // sequences that went through the reference model
  int64_t forwards() const { return forwards_; }

 private:
  ReferencePolicy& reference_;
  LogprobCache* const cache_;
  const Digest digest_;
  int64_t forwards_ = 0;
};

// The state of an objective that compares with `digest` (empty: with none), and the check of such a
// state on resume: kConflict for another reference.
std::string ReferenceStateJson(const Digest& digest);
void CheckReferenceState(const std::string& json, const Digest& digest);

}  // namespace plumb::learner
