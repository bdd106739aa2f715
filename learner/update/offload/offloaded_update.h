// What an optimizer does to state that lies in the host's memory (optimizer.offload): the kernels
// of one whose state lies on the device, over pieces of the same elements, with the same bits.
//
// Thread safety: one thread. Ownership: borrows the state and the stream of it. Errors:
// kInvalidArgument for options that do not go with it; those of copies and kernels.
#pragma once

#include <cstdint>
#include <span>

#include "configs/config.h"
#include "kernels/update/adamw.h"
#include "learner/update/offload/state_stream.h"
#include "learner/update/optimizer.h"

namespace plumb::learner {

// Throws kInvalidArgument naming the option that updates what does not go through in pieces.
void CheckOffload(const configs::OptimizerConfig& options);

// Moments and a master of one's own of what state.kept says, of the form that the state asks for.
void TakeStateMemory(const Stream& stream, bool in_host_memory, Optimizer::SetState& state);

// Gives the sets of an optimizer, which all have state of one form, what it goes through.
void ShareStateStream(const Stream& stream, std::span<Optimizer::SetState> sets);

// Elements [run.begin, run.end) of the set. Of one update all are between Begin and End of
// state.through.
void UpdateOffloadedRun(Optimizer::SetState& state, const Optimizer::SetState::KeptRun& run,
                        const kernels::AdamwOptions& adamw);

// All of a set whose moments are kept in 8 bits or that has no masters. `set`, `seed` and
// `draw_step` are the address of its draws.
void UpdateOffloadedCompact(Optimizer::SetState& state, uint32_t set, uint64_t seed,
                            uint32_t draw_step, const kernels::AdamwOptions& adamw);

}  // namespace plumb::learner
