// One token a row from logits, with the log-probability of the distribution it was drawn from.
//
// Order of filters as HF has them: temperature, top-k, top-p (smallest set of most likely tokens whose mass reaches p;
// the one that crosses is kept), min-p (relative to the most likely token); ties keep all tokens of the boundary's
// probability. Then inverse transform over the kept tokens in vocabulary order with one uniform number addressed by
// (seed, prompt, sample, position) (common/rng.h), so the draw depends on nothing else.
#pragma once

#include "kernels/launch.h"

namespace plumb::kernels {

struct SamplingOptions {
  float temperature = 1.0f;  // 0: greedy; the log-prob is then that of the plain distribution at temperature 1
  int32_t top_k = 0;         // 0: off
  float top_p = 1.0f;        // 1: off
  float min_p = 0.0f;        // 0: off
  uint64_t seed = 0;
};

// logits: float[rows, vocab], not changed. prompt, sample, position: the address of each row's
// draw; position is that of the token being drawn. token: int32[rows], logprob: float[rows] (<= 0).
// A row whose logits hold a NaN, +infinity or no finite value gets token -1 and log-prob 0: the
// caller must stop it.
// kept: nullptr, or uint32[rows, SetWords(vocab)] (kernels/token_mask.h): the tokens that the
// filters left, those the log-prob is over; not written for a row without a token.
// scratch: SamplingScratch(rows, vocab) bytes in the device's memory.
int64_t SamplingScratch(int64_t rows, int64_t vocab);
void SampleTokens(const Launch& launch, const float* logits, int64_t rows, int64_t vocab, const SamplingOptions& options,
                  const uint64_t* prompt, const uint32_t* sample, const int32_t* position, int32_t* token,
                  float* logprob, void* scratch, uint32_t* kept = nullptr);

}  // namespace plumb::kernels
