// The ranks of a learner, or of an actor, as the layers see them
// (policy_model/memory/tensor_group.h), and shares of a model that one of them has whole.
//
// Purpose: what several processes that generate together need of learner/ranks: sums over a step's
// rows, and a new version's weights, which rank 0 has and each of the others needs a share of.
// Thread safety: one thread, that of the passes. Ownership: borrows the ranks. Errors: RankLost;
// those of ShareOf. Memory: spreading takes one tensor's on ranks that have not the whole.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "learner/ranks/ranks.h"
#include "policy_model/memory/tensor_group.h"
#include "policy_model/memory/weights.h"

namespace plumb::learner {

class RankTensorGroup : public policy_model::TensorGroup {
 public:
  // All ranks make it at once: on GPUs they meet there. `stream`: of the passes.
  RankTensorGroup(Ranks& ranks, const Stream& stream);

  Ranks& ranks() const { return ranks_; }
  int rank() const override { return ranks_.rank(); }
  int size() const override { return ranks_.size(); }
  void Sum(const Stream& stream, DType dtype, void* values, int64_t n) override;
  void Gather(std::span<const float> own, std::span<float> all) override;

  // All ranks call it: `share` becomes this rank's of what rank 0 has. `whole`: its weights, ready,
  // or elsewhere only their tables. Returns when it is there.
  void Spread(const policy_model::Weights& whole, policy_model::Weights& share);

 private:
  Ranks& ranks_;
  std::vector<float> sums_;  // of bfloat16 in the host's memory
};

}  // namespace plumb::learner
