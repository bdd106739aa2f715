// What `plumb plan` says of a step's time, and which choice of what costs no quality is the fastest
// that fits the memory.
//
// Purpose: memory and time of a recipe hang on each other (recomputing layers, how the optimizer
// keeps its state, the tokens of a micro-batch): all of these choices are planned, and the fastest
// whose memory fits is named, or none is. Updates are taken to take as long however moments and
// masters are kept, so these are changed only where that makes room.
// Thread safety: one thread. Units: bytes, seconds. Errors: those of run_memory.h and
// speed_probe.h.
#pragma once

#include <optional>
#include <string>

#include "configs/config.h"
#include "policy_model/families/model_shape.h"
#include "run/roles/run_memory.h"
#include "run/roles/step_time.h"

namespace plumb::run {

struct Choice {
  std::string options;  // as --set takes them; empty: as the recipe says
  int64_t bytes = 0;
  double seconds = 0;
};
// nullopt: none of them fits. Where the room is not known, all do.
std::optional<Choice> FastestThatFits(const configs::Config& config,
                                      const policy_model::ModelShape& shape, Device device,
                                      int64_t free, const Speeds& speeds, const Lengths& lengths);

// What a step of a run that is about to begin is expected to take.
struct StepExpectation {
  StepTime time;
  std::string line;  // for people, with what all steps would take
};
// nullopt where nobody would be helped: steps of less than kShortStep seconds say themselves what
// they take, and of a GPU nothing is known here. Measured in a quarter of such a step at most.
std::optional<StepExpectation> ExpectStep(const configs::Config& config,
                                          const policy_model::ModelShape& shape,
                                          const RunMemory& memory, const Lengths& lengths);
inline constexpr double kShortStep = 4;
// `busy`: with other work, while it was measured.
std::string ExpectationText(const configs::Config& config, const StepTime& time,
                            const Lengths& lengths, bool busy);

// The lines of the plan's time, each with its end: by phase, what was counted, by which speeds, and
// the fastest choice.
std::string TimeText(const configs::Config& config, const policy_model::ModelShape& shape,
                     const RunMemory& memory, const Speeds& speeds, const Lengths& lengths);

}  // namespace plumb::run
