// Log-probability and entropy of chosen tokens from logits, and the gradient back into the logits.
//
// With z = logits / temperature, L = logsumexp(z), p = exp(z - L): logprob = z[y] - L, entropy H =
// L - sum p z.
// Backward: dz_j = g_lp (1[j = y] - p_j) - g_H p_j (z_j - L + H), then times 1/temperature.
// A target of -1 is none of these logits (of a rank that has another part of the vocabulary): its
// logprob is -infinity, and the gradient has no term for it.
// Thread safety, alignment, errors: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

// Summation in a fixed order a row.
struct TokenLogprob {
  static constexpr const char* kName = "TokenLogprob";
  const float* logits = nullptr;    // [rows, vocab]
  const int32_t* target = nullptr;  // [rows]
  int64_t rows = 0, vocab = 0;
  float temperature = 1;
  float* logprob = nullptr;  // [rows]
  float* entropy = nullptr;  // [rows], or nullptr
  float* lse = nullptr;      // [rows]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

struct TokenLogprobBackward {
  static constexpr const char* kName = "TokenLogprobBackward";
  const float* logits = nullptr;     // [rows, vocab]
  const int32_t* target = nullptr;   // [rows]
  const float* lse = nullptr;        // [rows]
  const float* entropy = nullptr;    // [rows]; nullptr together with g_entropy
  const float* g_logprob = nullptr;  // [rows]
  const float* g_entropy = nullptr;  // [rows]
  int64_t rows = 0, vocab = 0;
  float temperature = 1;
  void* dlogits = nullptr;  // T[rows, vocab], written
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
