// A request on its way through the engine, and the pages that its prompt holds.
//
// Thread safety: none; the engine's thread owns it. Ownership: of plain values; pages are numbers
// of a pool (pages/kv_pages.h).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "actor/sequence.h"

namespace plumb::actor {

// Kinds of layers whose pages lie in pools of their own: those that see everything, and those that
// slide. A model with one kind has the first only.
inline constexpr size_t kPageKinds = 2;

// A prompt's pages of one kind: of tokens 0 .. P - 2, the last may be partial; -1: not held (any
// more).
struct PromptPages {
  std::vector<int32_t> pages;
  int32_t held = 0;  // how many of them are held
};

struct Group {
  GenerateRequest request;
  GenerateResult result;    // samples are filled in as they finish
  int32_t prompt_row = -1;  // row of the page tables that its prefill uses
  int32_t prefilled = 0;    // prompt tokens whose keys and values are written, of P - 1
  int32_t started = 0;      // samples that have a slot or had one
  int32_t finished = 0;
  std::array<PromptPages, kPageKinds> prompt;
  int32_t full_pages = 0;  // pages of the prompt that are full, hence shared
  // Which weights have computed the prompt from its first token on (Scheduler::ForgetPrefixes).
  int64_t epoch = -1;
  // The prompt is being computed again (pages/recompute_queue.h): no sample goes on.
  bool recomputes = false;
  // Of the prompt's tokens so far, where experts are recorded (common/record/expert_choices.h).
  std::vector<uint8_t> prompt_experts;

  int32_t prefill_target() const { return static_cast<int32_t>(request.tokens.size()) - 1; }
  bool prefill_done() const { return prefilled == prefill_target() && !recomputes; }
  bool all_started() const { return started == request.num_samples; }
};

}  // namespace plumb::actor
