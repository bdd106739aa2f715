// The speeds of a GPU that is here, for a plan of time (run/roles/step_time.h).
//
// Purpose: a card is fast enough that the recipe's own sizes are tried: micro-batches as full as
// the recipe allows, of groups that share their prompts, with the whole vocabulary, on a model of
// the recipe's width with some of its layers, and with half of them; the difference is a layer,
// what is left over the head. Generation is that of all layers where the card has room, as many
// answers at a time as the recipe's keys and values allow, of the recipe's lengths. Middling
// measurements count, not the fastest: a card that works for long is slower than for a moment.
// Drawn weights, a few seconds, some GB of the card, given back.
// Thread safety: one thread. Errors: those of the passes; a model that does not fit beside what is
// on the card is nullopt, and so is one whose layers are of several kinds.
#pragma once

#include <optional>

#include "configs/config.h"
#include "kernels/device/stream.h"
#include "policy_model/families/model_shape.h"
#include "run/roles/step_time.h"

namespace plumb::run {

// Of the stream's device; the CPU will do, to try it. `free`: its memory; 0: not known.
std::optional<Speeds> ProbeGpu(const configs::Config& config, const policy_model::ModelShape& shape,
                               const Stream& stream, const Lengths& lengths, int64_t free);

}  // namespace plumb::run
