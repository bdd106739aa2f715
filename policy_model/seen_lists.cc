#include "policy_model/seen_lists.h"

namespace plumb::policy_model {

void SeenLists::Clear() {
  for (auto* list : {&seen, &cu_seen, &places, &place_begins}) list->clear();
}

void SeenLists::Fill(const PackedBatch& batch) {
  Clear();
  cu_seen.push_back(0);
  const auto add = [&](size_t b) {
    for (int32_t i = batch.cu_seqlens[b]; i < batch.cu_seqlens[b + 1]; ++i) seen.push_back(i);
  };
  for (size_t b = 0; b < batch.parents.size(); ++b) {
    if (batch.parents[b] >= 0) add(static_cast<size_t>(batch.parents[b]));
    add(b);
    cu_seen.push_back(static_cast<int32_t>(seen.size()));
  }
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
