// Which tokens the sequences of a packed batch see, listed for attention on a GPU where sequences
// share what they begin with (AttentionShape of layers/attention.h).
//
// Thread safety: none. Ownership: keeps its memory from batch to batch.
#pragma once

#include <cstdint>
#include <vector>

#include "policy_model/packing.h"

namespace plumb::policy_model {

struct SeenLists {
  // The tokens that each sequence sees, one sequence behind the other, and where each begins.
  std::vector<int32_t> seen, cu_seen;
  // The places in `seen` of each token, one token behind the other, and where each begins.
  std::vector<int32_t> places, place_begins;

  void Clear();
  void Fill(const PackedBatch& batch);
};

}  // namespace plumb::policy_model
