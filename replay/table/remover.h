// Which stored groups leave the part of a table that is drawn from. (What leaves the disk is
// Store::Trim.)
//
// Purpose: a pure filter over what is known of a group, so that a resumed run sees the same table.
// An item leaves when
//   - it is older than max_steps steps (fifo),
//   - it was drawn max_times_sampled times,
//   - more than max_groups would be left: then `evict` says which go, the oldest or those of the
//     lowest priority.
// Thread safety: const. Errors: construction throws kInvalidArgument.
#pragma once

#include <cstdint>
#include <vector>

#include "configs/choices.h"
#include "replay/table/sampler.h"

namespace plumb::replay {

struct RemoverOptions {
  int64_t max_steps = 1;          // steps that a group may be behind; >= 1
  int64_t max_times_sampled = 0;  // 0: no bound
  int64_t max_groups = 0;         // 0: no bound
  configs::Evict evict = configs::Evict::kOldest;
};

class Remover {
 public:
  explicit Remover(const RemoverOptions& options);

  // First step whose groups may be drawn at `step`.
  int64_t FirstStep(int64_t step) const;
  // What stays, in the order given. REQUIRES: items in ascending order of key.
  std::vector<SampleItem> Apply(std::vector<SampleItem> items) const;
  const RemoverOptions& options() const { return options_; }

 private:
  const RemoverOptions options_;
};

}  // namespace plumb::replay
