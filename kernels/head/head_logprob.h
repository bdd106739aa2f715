// The head of a language model together with what is wanted of its logits: log-probabilities and
// entropies of chosen tokens, and their gradient back through the product. No row's logits are
// ever there as a whole.
//
// Purpose: with a vocabulary of 150,000 the logits of a row are half a megabyte. Here a tile of
// them (a few tokens of the vocabulary by 32 rows) becomes maxima and sums while it lies in
// registers, the backward computes it once more, and the weights pass by once for all rows of a
// call instead of once for as many as have room for their logits.
// With z = x w^T / temperature: token_logprob.h. Summation is in a fixed order a row: the
// vocabulary is cut into pieces of kHeadPiece tokens, each sums for itself, and the pieces follow
// each other; a row depends neither on the number of rows nor on the threads.
// Element types: x, w and dx are T; in between fp32, but for the gradient of logits, which is
// rounded to T where T is bfloat16 and the processor multiplies pairs of those
// (products/bf16_words.h).
// Thread safety: pure functions of their buffers; work areas are kept by the calling and the
// worker threads. Errors: kernels/device/launch.h. CPU only: on CUDA the head runs in chunks of
// rows (kUnsupported).
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

// Rows of a call whose operands stay in a core's cache: more are slower by the row.
int64_t HeadRows(const Launch& launch, int64_t hidden);
// Floats of scratch memory that either of the two takes.
int64_t HeadScratch(int64_t rows, int64_t hidden, int64_t vocab);

// What both see. Any number of rows from 1 on.
struct HeadShape {
  const void* x = nullptr;          // T[rows, hidden]
  const void* w = nullptr;          // T[vocab, hidden]
  const int32_t* target = nullptr;  // [rows]; -1 as in kernels/token_logprob.h
  int64_t rows = 0, hidden = 0, vocab = 0;
  float temperature = 1;
  // What is no token (token_mask.h): of all rows, ascending; and what a row's set leaves out, or
  // nullptr.
  const int32_t* dropped = nullptr;  // [dropped_count]
  int64_t dropped_count = 0;
  const uint32_t* kept = nullptr;  // [rows, SetWords(vocab)]
};

struct HeadLogprob {
  static constexpr const char* kName = "HeadLogprob (on CUDA: a product and TokenLogprob)";
  HeadShape shape;
  float* logprob = nullptr;  // [rows]
  float* entropy = nullptr;  // [rows], or nullptr
  float* lse = nullptr;      // [rows]
  float* scratch = nullptr;  // [HeadScratch]
  void Cpu(const Launch& launch) const;
};

struct HeadLogprobBackward {
  static constexpr const char* kName = "HeadLogprobBackward (on CUDA: products and token_logprob)";
  HeadShape shape;
  const float* lse = nullptr;        // [rows]
  const float* entropy = nullptr;    // [rows]; nullptr together with g_entropy
  const float* g_logprob = nullptr;  // [rows]
  const float* g_entropy = nullptr;  // [rows]
  void* dx = nullptr;                // T[rows, hidden], written
  float* dw = nullptr;               // [vocab, hidden], added to; nullptr: not wanted
  float* scratch = nullptr;          // [HeadScratch]
  void Cpu(const Launch& launch) const;
};

}  // namespace plumb::kernels
