// Everything that the roles of a run ask of its store, in one process (ReplayTable) or through a
// socket (ReplayClient).
//
// Purpose: one loop a role, whatever connects it. Beside the arrows of common/record/ports.h it has
// what keeps a learner, its store and its checkpoints together, and what roles say of themselves.
// Thread safety: all methods. Errors: those of replay/table/table.h; through a socket kUnavailable
// and kDeadline as well, which may be tried again.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "common/record/ports.h"
#include "replay/store/record.h"
#include "replay/store/store.h"

namespace plumb::replay {

// What a checkpoint's manifest holds: everything the learner has consumed is below `next_step`.
struct StoreCursor {
  int64_t next_step = 0;  // the step to ask for after a resume
  uint64_t sequence = 0;  // inserts the store had made
};

class StorePort : public PromptSource, public TrajectorySink, public BatchSource {
 public:
  // Several with one sync of the log; results in order.
  virtual std::vector<InsertResult> InsertMany(std::span<const ScoredBody> groups) = 0;
  InsertResult Insert(const TrajectoryGroup& group) override {
    const ScoredBody sealed{GroupBody::Seal(group), ScoresOf(group)};
    return InsertMany(std::span(&sealed, 1)).front();
  }
  // The whole prompts that these name, in order. kConflict, kNotFound: Store::FindPrompt.
  virtual std::vector<Prompt> Prompts(std::span<const PromptRef> refs) = 0;

  // What the learner publishes, before any actor can have it. Again with the same: nothing happens.
  virtual void Announce(const PolicyVersion& policy) = 0;
  // The cursor after step `consumed_steps - 1` was consumed.
  virtual StoreCursor CursorAt(int64_t consumed_steps) = 0;
  // The learner goes on from there. Returns how many leases will be answered afresh for want of
  // scores.
  virtual int64_t Resume(const StoreCursor& cursor) = 0;
  // Forgets what only steps < `step` were trained on.
  virtual void Trim(int64_t step) = 0;

  // Counters of the store and, summed over all roles and their lives, what they have reported.
  virtual std::map<std::string, int64_t> Counters() = 0;
  // What `role` has counted since it began, instead of what it said before.
  virtual void Report(const std::string& role, const std::map<std::string, int64_t>& counters) = 0;
};

}  // namespace plumb::replay
