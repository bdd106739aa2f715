#include "replay/datasets/missing_rollouts.h"

#include <filesystem>
#include <system_error>

namespace plumb::replay {

std::string WhyNoRollouts(const Store& store, Purpose purpose) {
  const bool eval = purpose == Purpose::kEval;
  if (store.TrimmedBefore(purpose) > 0) {
    const std::filesystem::path samples =
        std::filesystem::path(store.path()).parent_path() / "samples.jsonl";
    std::error_code none;
    const bool shown = !eval && std::filesystem::exists(samples, none);
    return std::string(eval ? "the run keeps no evaluations behind its checkpoint"
                            : "the run keeps no rollouts behind its checkpoint") +
           ": train with replay.keep_steps = -1 (or N: so many steps)" +
           (shown ? "; two answers of a prompt every metrics.samples_every steps are in " +
                        samples.string()
                  : "");
  }
  return eval ? "no evaluation was ever stored here: a run evaluates where its recipe has data.eval"
              : "no rollouts were ever stored here: --store takes RUN/store of a run that "
                "generated answers";
}

}  // namespace plumb::replay
