// Log-probabilities of several tokens a row, picked by their ids, and their gradient back into the
// logits; and which tokens of a row are the likeliest.
//
// Purpose: what compares a policy with a teacher's likeliest tokens (learner/distill). With z =
// logits / temperature, L = logsumexp(z), p = exp(z - L): logprob_k = z[id_k] - L. Backward, for
// gradients g_k: dz_j += sum_k g_k (1[j = id_k] - p_j), then times 1/temperature.
// An id of -1 is no token: its log-prob is -infinity and its gradient is not looked at.
// Thread safety, alignment, errors: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

// Summation in a fixed order a row.
struct PickedLogprob {
  static constexpr const char* kName = "PickedLogprob";
  const float* logits = nullptr;  // [rows, vocab]
  const int32_t* ids = nullptr;   // [rows, picks], different ones within a row
  int64_t rows = 0, vocab = 0, picks = 0;
  float temperature = 1;
  float* logprob = nullptr;  // [rows, picks]
  float* lse = nullptr;      // [rows]
  int32_t* best = nullptr;   // [rows] the likeliest token, of equal ones the first
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

struct PickedLogprobBackward {
  static constexpr const char* kName = "PickedLogprobBackward";
  const float* logits = nullptr;  // [rows, vocab]
  const int32_t* ids = nullptr;   // [rows, picks]
  const float* lse = nullptr;     // [rows], of this temperature
  const float* g = nullptr;       // [rows, picks]
  int64_t rows = 0, vocab = 0, picks = 0;
  float temperature = 1;
  void* dlogits = nullptr;  // T[rows, vocab], added to
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// The `count` largest logits of each row in falling order, of equal ones the smaller id first; -1
// behind the last that is not -infinity. REQUIRES: count <= vocab.
struct TopTokens {
  static constexpr const char* kName = "TopTokens (on CUDA: LibTorch's topk)";
  const float* logits = nullptr;  // [rows, vocab]
  int64_t rows = 0, vocab = 0, count = 0;
  int32_t* ids = nullptr;  // [rows, count]
  void Cpu(const Launch& launch) const;
};

}  // namespace plumb::kernels
