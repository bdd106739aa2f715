#include "replay/datasets/missing_rollouts.h"

namespace plumb::replay {

std::string WhyNoRollouts(const Store& store, Purpose purpose) {
  const bool eval = purpose == Purpose::kEval;
  if (store.TrimmedBefore(purpose) > 0) {
    return std::string(eval ? "the run keeps no evaluations behind its checkpoint"
                            : "the run keeps no rollouts behind its checkpoint") +
           ": train with replay.keep_steps = -1 (or N: so many steps)";
  }
  return eval ? "no evaluation was ever stored here: a run evaluates where its recipe has data.eval"
              : "no rollouts were ever stored here: --store takes RUN/store of a run that "
                "generated answers";
}

}  // namespace plumb::replay
