// The ranks that share out the experts of every layer (expert parallelism), as the layers see them.
//
// Purpose: each rank has its own micro-batch, and some of the experts
// (policy_model/families/experts/expert_share.h): rows of a token's hidden state go to the ranks
// that have its experts, and come back (policy_model/layers/expert_visits.h). All ranks of the
// group go through the same layers at once, one without a micro-batch too
// (Transformer::PassBy). Thread safety: one thread, that of the pass. Ownership: of whoever
// implements it (learner/update/shares/expert_ranks.h). Errors: those of the ranks' connections.
// Units: bytes of the host's memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace plumb::policy_model {

class ExpertGroup {
 public:
  virtual ~ExpertGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // `out` holds what goes to each rank, one behind the other, to[r] bytes to rank r; `in` becomes
  // what each has for this one, from[r] bytes of rank r. This rank's own part goes the same way.
  virtual void Exchange(std::span<const std::byte> out, std::span<const int64_t> to,
                        std::span<std::byte> in, std::span<const int64_t> from) = 0;
};

}  // namespace plumb::policy_model
