// Which tokens the sequences of a packed batch see, listed for attention on a GPU where sequences
// share what they begin with, and for attention that computes as generation does (AttentionShape of
// layers/attention.h).
//
// Thread safety: none. Ownership: keeps its memory from batch to batch.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/device/stream.h"
#include "policy_model/packing.h"

namespace plumb::policy_model {

struct SeenLists {
  // The tokens that each sequence sees, one sequence behind the other, and where each begins.
  std::vector<int32_t> seen, cu_seen;
  // The places in `seen` of each token, one token behind the other, and where each begins; where
  // sequences share.
  std::vector<int32_t> places, place_begins;
  std::vector<int32_t> begins;  // of each token, where in `seen` its sequence begins

  void Clear();
  // For passes on that device; empty where nothing there looks at them.
  void Fill(const PackedBatch& batch, Device device);
};

}  // namespace plumb::policy_model
