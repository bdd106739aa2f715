#include "policy_model/seen_lists.h"

#include "kernels/products/row_product.h"

namespace plumb::policy_model {

void SeenLists::Clear() {
  for (auto* list : {&seen, &cu_seen, &places, &place_begins, &begins}) list->clear();
}

void SeenLists::Fill(const PackedBatch& batch, Device device) {
  Clear();
  if (!kernels::ExactOn(device) && (device.is_cpu() || !batch.shares())) return;
  cu_seen.push_back(0);
  const auto add = [&](size_t b) {
    for (int32_t i = batch.cu_seqlens[b]; i < batch.cu_seqlens[b + 1]; ++i) seen.push_back(i);
  };
  for (size_t b = 0; b < batch.parents.size(); ++b) {
    begins.insert(begins.end(), static_cast<size_t>(batch.cu_seqlens[b + 1] - batch.cu_seqlens[b]),
                  static_cast<int32_t>(seen.size()));
    if (batch.parents[b] >= 0) add(static_cast<size_t>(batch.parents[b]));
    add(b);
    cu_seen.push_back(static_cast<int32_t>(seen.size()));
  }
  if (!batch.shares()) return;
  place_begins.assign(batch.tokens.size() + 1, 0);
  for (const int32_t token : seen) ++place_begins[static_cast<size_t>(token)];
  // now each token's end
  for (size_t t = 1; t < place_begins.size(); ++t) place_begins[t] += place_begins[t - 1];
  places.resize(seen.size());
  for (size_t i = seen.size(); i-- > 0;) {
    places[static_cast<size_t>(--place_begins[static_cast<size_t>(seen[i])])] =
        static_cast<int32_t>(i);
  }
}

}  // namespace plumb::policy_model
