// One token per row from logits, with the log-probability of the distribution it was drawn from.
//
// Order of filters as HF has them: temperature, top-k, top-p (smallest set of most likely tokens
// whose mass reaches p; the one that crosses is kept), min-p (relative to the most likely token);
// ties keep all tokens of the boundary's probability. Then inverse transform over the kept tokens
// in vocabulary order with one uniform number addressed by (seed, prompt, sample, position)
// (common/base/rng.h), so the draw depends on nothing else. Thread safety, alignment, errors:
// kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct SamplingOptions {
  // 0: greedy; the log-prob is then that of the plain distribution at temperature 1
  float temperature = 1.0f;
  int32_t top_k = 0;   // 0: off
  float top_p = 1.0f;  // 1: off
  float min_p = 0.0f;  // 0: off
  uint64_t seed = 0;
  bool operator==(const SamplingOptions&) const = default;
};

// Bytes of `scratch` that SampleTokens needs.
int64_t SamplingScratch(int64_t rows, int64_t vocab);

// A row whose logits hold a NaN, +infinity or no finite value gets token -1 and log-prob 0: the
// caller must stop it.
struct SampleTokens {
  static constexpr const char* kName = "SampleTokens";
  const float* logits = nullptr;  // [rows, vocab], not changed
  int64_t rows = 0, vocab = 0;
  SamplingOptions options;
  // The address of each row's draw; position is that of the token being drawn. [rows] each.
  const uint64_t* prompt = nullptr;
  const uint32_t* sample = nullptr;
  const int32_t* position = nullptr;
  int32_t* token = nullptr;  // [rows]
  float* logprob = nullptr;  // [rows], <= 0
  void* scratch = nullptr;   // SamplingScratch(rows, vocab) bytes
  // nullptr, or [rows, SetWords(vocab)] (kernels/token_mask.h): the tokens that the filters left,
  // those the log-prob is over; not written for a row without a token.
  uint32_t* kept = nullptr;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
