// Takes tokens out of a distribution: their logits become -infinity, in place, before a draw or a
// log-prob is taken of them.
//
// Purpose: ids that no token has (a vocabulary padded to a round number), and what a sampling
// filter cut off. Log-prob, entropy, gradient (0 where the logit is -infinity) and draws are then
// over the others. Errors: none.
#pragma once

#include "kernels/launch.h"

namespace plumb::kernels {

// logits: float[rows, vocab]. ids: int32[count] in the device's memory, each in [0, vocab): the
// same for every row.
void DropTokens(const Launch& launch, float* logits, int64_t rows, int64_t vocab,
                const int32_t* ids, int64_t count);

// A set of tokens is a bit each: bit j % 32 of word j / 32 for token j. Words of one set:
inline int64_t SetWords(int64_t vocab) { return (vocab + 31) / 32; }

// kept: uint32[rows, SetWords(vocab)] in the device's memory; what is not in a row's set is taken
// out of that row.
void KeepTokens(const Launch& launch, float* logits, int64_t rows, int64_t vocab,
                const uint32_t* kept);

}  // namespace plumb::kernels
