// Takes tokens out of a distribution: their logits become -infinity, in place, before a draw or a
// log-prob is taken of them.
//
// Purpose: ids that no token has (a vocabulary padded to a round number), and what a sampling
// filter cut off. Log-prob, entropy, gradient (0 where the logit is -infinity) and draws are then
// over the others. Thread safety, alignment, errors: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

// The same tokens for every row.
struct DropTokens {
  static constexpr const char* kName = "DropTokens";
  float* logits = nullptr;  // [rows, vocab]
  int64_t rows = 0, vocab = 0;
  const int32_t* ids = nullptr;  // [count], each in [0, vocab)
  int64_t count = 0;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// A set of tokens is a bit each: bit j % 32 of word j / 32 for token j. Words of one set:
inline int64_t SetWords(int64_t vocab) { return (vocab + 31) / 32; }

// What is not in a row's set is taken out of that row.
struct KeepTokens {
  static constexpr const char* kName = "KeepTokens";
  float* logits = nullptr;  // [rows, vocab]
  int64_t rows = 0, vocab = 0;
  const uint32_t* kept = nullptr;  // [rows, SetWords(vocab)]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
