// A packed batch's small arrays in the memory of a device, all copied at once.
//
// Thread safety: of the staging area's owner. Ownership: the addresses are the staging area's,
// until it is begun again. Shapes: T tokens, R rows of the batch; a gradient is of R rows.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "policy_model/families/model_shape.h"
#include "policy_model/layers/attention.h"
#include "policy_model/memory/staging.h"
#include "policy_model/packing.h"
#include "policy_model/seen_lists.h"

namespace plumb::policy_model {

struct BatchIndices {
  const int32_t *tokens, *positions, *cu_seqlens, *rows, *targets, *seen, *cu_seen, *places,
      *place_begins, *parents, *begins;
  const float *g_first, *g_second, *g_third;  // nullptr: not given
};

// `tokens`: those of the batch that the base knows. `lists`: filled, or empty.
BatchIndices StageBatch(const PackedBatch& batch, std::span<const int32_t> tokens,
                        const SeenLists& lists,
                        const std::array<std::span<const float>, 3>& gradients, Staging& staging);
// What attention sees of the batch; scale and window are each layer's own.
AttentionShape AttentionOf(const ModelShape& shape, const PackedBatch& batch,
                           const BatchIndices& at, const SeenLists& lists);

}  // namespace plumb::policy_model
