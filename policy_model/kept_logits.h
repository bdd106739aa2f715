// Logits of a packed pass that stay from its forward to its backward, which then does not compute
// the head's product again: the same numbers, from 4 bytes a row and token of the vocabulary.
//
// Purpose: the head is the largest product of a small model, and a GPU that trains one has memory
// to spare. What a plan counts (pass_bytes.h) does not have these logits in it: they are kept where
// they are at most a quarter of what the card has free when they are first asked for, and what is
// kept is not given back. On the CPU none are kept.
// Thread safety: one thread. Ownership: owns the memory.
#pragma once

#include <cstdint>

#include "kernels/device/stream.h"
#include "policy_model/memory/flat_buffer.h"

namespace plumb::policy_model {

class KeptLogits {
 public:
  explicit KeptLogits(const Stream& stream) : stream_(stream) {}

  // float[rows, vocab], until the next call; nullptr: there is no memory for them.
  float* Room(int64_t rows, int64_t vocab);
  // So many bytes where a card has so many free.
  static bool Fits(int64_t bytes, int64_t free) { return bytes <= free / 4; }
  int64_t bytes() const { return static_cast<int64_t>(memory_.bytes()); }

 private:
  const Stream stream_;
  FlatBuffer memory_;
  int64_t refused_ = INT64_MAX;  // the fewest floats that there was no memory for
};

}  // namespace plumb::policy_model
