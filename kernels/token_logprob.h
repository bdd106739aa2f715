// Log-probability and entropy of chosen tokens from logits, and the gradient back into the logits.
//
// With z = logits / temperature, L = logsumexp(z), p = exp(z - L): logprob = z[y] - L, entropy H = L - sum p z.
// Backward: dz_j = g_lp (1[j = y] - p_j) - g_H p_j (z_j - L + H), then times 1/temperature.
#pragma once

#include "kernels/launch.h"

namespace plumb::kernels {

// logits: float[rows, vocab]; target: int32[rows]; logprob, entropy (may be nullptr), lse: float[rows].
// Summation in a fixed order a row.
void TokenLogprobForward(const Launch& launch, const float* logits, const int32_t* target, int64_t rows, int64_t vocab,
                         float temperature, float* logprob, float* entropy, float* lse);

// dlogits: T[rows, vocab] (Launch::dtype), written. g_entropy and entropy may be nullptr together.
void TokenLogprobBackward(const Launch& launch, const float* logits, const int32_t* target, const float* lse,
                          const float* entropy, const float* g_logprob, const float* g_entropy, int64_t rows,
                          int64_t vocab, float temperature, void* dlogits);

}  // namespace plumb::kernels
