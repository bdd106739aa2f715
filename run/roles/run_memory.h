// The memory of a run's device: what its roles will take, whether that fits, and what to change.
//
// Purpose: what does not fit is refused before anything is read, with the sum by kind; what
// optimizer.recompute = "auto" means is decided here; where memory ends all the same, the error
// says what was planned. Thread safety: pure functions of what they are given. Units: bytes.
// Errors: kInvalidArgument where a run does not fit (exit code 2), kIo where memory ended (5).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/device.h"
#include "configs/config.h"
#include "learner/loop/memory_plan.h"
#include "policy_model/families/model_shape.h"
#include "run/session/session.h"

namespace plumb::run {

// Of the device now, or run.memory_gb; 0: there is no such device here to ask.
int64_t FreeMemory(const configs::Config& config, Device device);

struct RunMemory {
  Device device;
  int64_t free = 0;  // 0: not known
  learner::MemoryPlan plan;
  // Beside a GPU, what its learners keep in the host's memory (optimizer.offload), and what of that
  // is free; 0: not known.
  learner::MemoryPlan host = {};
  int64_t host_free = 0;
  // What optimizer.recompute comes to: not kAuto.
  configs::Recompute recompute = configs::Recompute::kNone;
  // checkpoint.background is asked for and there is no memory for the copy: the run waits while a
  // checkpoint is written.
  bool waits_for_checkpoints = false;
  // Options that would make it smaller, each with how much, the largest first.
  std::string smaller;

  bool host_fits() const { return host_free == 0 || host.total() <= host_free; }
  bool fits() const { return (free == 0 || plan.total() <= free) && host_fits(); }
  // One line for the start of a run.
  std::string Line() const;
  // Throws kInvalidArgument unless it fits.
  void Check() const;
};

// All roles of a run on one device, but for actors that have another. `free` as FreeMemory gives
// it.
RunMemory PlanRun(const configs::Config& config, const policy_model::ModelShape& shape,
                  Device device, int64_t free);
// Of a run that is about to begin.
RunMemory PlanRun(const Session& session);

// Where rollout.device puts actors on another device than the learner's `ranks_here` ranks: what
// one of these devices has to hold; PlanRun has what is left to the learner's.
std::optional<RunMemory> PlanActors(const configs::Config& config,
                                    const policy_model::ModelShape& shape, int64_t ranks_here,
                                    int64_t free);
std::optional<RunMemory> PlanActors(const Session& session, int ranks_here);

// Within a catch block at a role's edge: what means that memory ended becomes an Error with the
// plan beside it; anything else is thrown once more.
[[noreturn]] void RethrowWithPlan(const RunMemory& memory);

// What `work` returns; its exceptions as RethrowWithPlan throws them.
template <class Work>
auto WithPlan(const RunMemory& memory, const Work& work) {
  try {
    return work();
  } catch (...) {
    RethrowWithPlan(memory);
  }
}

}  // namespace plumb::run
