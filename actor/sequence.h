// What is asked of the engine and what it gives back.
//
// Purpose: a request is one prompt with the samples wanted of it (a group); the result has every
// sample with what was true when each token was drawn. Thread safety: plain values. Ownership: each
// value owns its arrays.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/record/trajectory.h"
#include "kernels/sampling.h"

namespace plumb::actor {

// The `prompt` part of a draw's random address (common/base/rng.h). Train and eval leases are
// numbered apart, so the purpose takes the top bit: the same number in both never draws the same
// randomness. Throws kInvalidArgument for a lease id >= 2^63.
inline uint64_t RandomAddress(Purpose purpose, uint64_t lease_id) {
  constexpr uint64_t kTop = uint64_t{1} << 63;
  if (lease_id & kTop) {
    throw Error(ErrorCode::kInvalidArgument,
                "lease id " + std::to_string(lease_id) + " is beyond 2^63 - 1");
  }
  return purpose == Purpose::kEval ? lease_id | kTop : lease_id;
}

struct GenerateRequest {
  uint64_t id = 0;  // the caller's; comes back with the result
  // [P] prompt, P >= 1; tokens of a task in front of it are no tokens of the sequence where the
  // policy has not learned any
  std::vector<int32_t> tokens;
  int32_t task = -1;          // set by the engine
  int32_t num_samples = 1;    // G
  uint32_t first_sample = 0;  // samples are numbered first_sample .. first_sample + G - 1
  uint64_t prompt_key = 0;    // random address of the prompt: RandomAddress()
  int32_t limit = 0;          // new tokens per sample at most; 0: the engine's max_new_tokens
  // An environment answers: where a turn ends, by an end token or a stop string, the sample waits
  // with its slot and its pages for Engine::Continue or End. `limit` is of all tokens then.
  bool turns = false;
  // With turns, [G] or empty: tokens of the environment between the prompt and a sample's first
  // turn, fewer than `limit`.
  std::vector<std::vector<int32_t>> openings = {};
  // Of this request alone; empty: the engine's
  std::optional<kernels::SamplingOptions> sampling = std::nullopt;
  bool greedy_last = false;  // the last sample is drawn at temperature 0
};

struct GeneratedSample {
  uint32_t sample = 0;
  // [N] sampled tokens, and those of an environment between them; an end token and the token that
  // completes a stop string are kept
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;    // [N] of the distribution each was drawn from, nats; else 0
  std::vector<int64_t> versions;  // [N] policy version that drew it; -1: the environment's
  // With turns: of the N tokens, each turn and each reply by itself. Empty: all are the policy's.
  std::vector<Segment> segments;
  // The N sets they were drawn from (common/record/kept_tokens.h); empty: not asked for, or no
  // filter.
  std::vector<uint8_t> kept;
  // The experts of all P + N tokens but the last; not there: not asked for.
  ExpertChoices experts;
  FinishReason finish = FinishReason::kStop;
  std::string reason;  // of kAborted: why, one sentence
};

struct GenerateResult {
  uint64_t id = 0;
  std::vector<GeneratedSample> samples;  // [G] ordered by sample
};

}  // namespace plumb::actor
