#include "policy_model/batch_indices.h"

namespace plumb::policy_model {

BatchIndices StageBatch(const PackedBatch& batch, std::span<const int32_t> tokens,
                        const SeenLists& lists,
                        const std::array<std::span<const float>, 3>& gradients, Staging& staging) {
  staging.Begin();
  const std::array<std::span<const int32_t>, 11> lists_of = {
      tokens,        batch.positions, batch.cu_seqlens,   batch.rows,    batch.targets, lists.seen,
      lists.cu_seen, lists.places,    lists.place_begins, batch.parents, lists.begins};
  std::array<int, 11> at{};
  for (size_t i = 0; i < lists_of.size(); ++i) at[i] = staging.Add(lists_of[i]);
  std::array<int, 3> of_gradient{};
  for (size_t i = 0; i < gradients.size(); ++i) of_gradient[i] = staging.Add(gradients[i]);
  staging.Commit();
  const auto floats = [&](size_t i) {
    return gradients[i].empty() ? nullptr : staging.Floats(of_gradient[i]);
  };
  return {staging.Ints(at[0]),
          staging.Ints(at[1]),
          staging.Ints(at[2]),
          staging.Ints(at[3]),
          staging.Ints(at[4]),
          staging.Ints(at[5]),
          staging.Ints(at[6]),
          staging.Ints(at[7]),
          staging.Ints(at[8]),
          staging.Ints(at[9]),
          staging.Ints(at[10]),
          floats(0),
          floats(1),
          floats(2)};
}

AttentionShape AttentionOf(const ModelShape& shape, const PackedBatch& batch,
                           const BatchIndices& at, const SeenLists& lists) {
  return {{.tokens = batch.size(),
           .sequences = batch.sequences(),
           .cu_seqlens = at.cu_seqlens,
           .parents = batch.shares() ? batch.parents.data() : nullptr,
           .max_seqlen = batch.max_seqlen,
           .heads = static_cast<int32_t>(shape.heads),
           .kv_heads = static_cast<int32_t>(shape.kv_heads),
           .head_dim = static_cast<int32_t>(shape.head_dim)},
          static_cast<int64_t>(lists.seen.size()),
          at.seen,
          at.cu_seen,
          at.places,
          at.place_begins,
          batch.shares() ? at.parents : nullptr,
          lists.begins.empty() ? nullptr : at.begins,
          at.positions};
}

}  // namespace plumb::policy_model
