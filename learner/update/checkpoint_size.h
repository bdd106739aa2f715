// How much a checkpoint takes, and how much room there is.
//
// Thread safety: pure functions of what they are given. Units: bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "learner/update/checkpoint.h"

namespace plumb::learner {

// What of the optimizers is in a checkpoint.
struct SavedParts {
  bool optimizer = true;  // masters and, with `moments`, both moments
  bool moments = true;
};

// Weights and those of what is trained: all of a checkpoint but some megabytes of tokenizer and
// headers.
int64_t CheckpointBytes(const policy_model::Weights& weights, Optimizer& optimizer,
                        std::span<const NamedModel> models, SavedParts parts);

// Of the file system that the folder lies on, for who runs this. kIo.
int64_t FreeBytes(const std::string& folder);

// The checkpoints that a run still makes.
struct SavePlan {
  int64_t between = 0;  // before the last
  int64_t each = 0;     // bytes of one of those that hold the optimizer
  int64_t last = 0;     // bytes of the one at the end
  int64_t keep = 1;     // run.keep_checkpoints
  int64_t kept = 0;     // that lie there already, of an earlier life
  int64_t apart = 1;    // checkpoint.optimizer_every
  int64_t light = 0;    // bytes of one of those between that do not
  bool beside = false;  // written while the run goes on
  int64_t best = 0;     // bytes of the model of the best evaluation; 0: not kept
  // Bytes of the mean one before the last.
  int64_t Mean() const { return light + (each - light) / apart; }
  int64_t first() const { return between > 0 ? each : last; }
  // Bytes to be free now so that no save runs out of room: an old one goes only when the new one
  // is complete.
  int64_t Needed() const;
};

// Throws kNoSpace, naming the folder, where not even the first fits.
void CheckFits(const SavePlan& plan, int64_t free, const std::string& folder);

}  // namespace plumb::learner
