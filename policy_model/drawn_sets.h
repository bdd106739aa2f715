// The sets that a batch's tokens were drawn from, unpacked where a kernel reads them.
//
// Thread safety: one thread. Ownership: keeps its memory from call to call; what it gives is valid
// until the next one. Errors: those of UnpackKeptTokens.
#pragma once

#include <cstdint>
#include <vector>

#include "policy_model/memory/staging.h"
#include "policy_model/packing.h"

namespace plumb::policy_model {

class DrawnSets {
 public:
  explicit DrawnSets(const Stream& stream) : staging_(stream) {}

  // [rows, SetWords(vocab)] of the batch's rows [first, first + rows); nullptr: all were drawn from
  // every token.
  const uint32_t* Of(const PackedBatch& batch, int64_t first, int64_t rows, int64_t vocab);

 private:
  Staging staging_;
  std::vector<uint32_t> sets_;
};

}  // namespace plumb::policy_model
