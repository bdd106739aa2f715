#include "policy_model/drawn_sets.h"

#include <span>

#include "common/record/kept_tokens.h"
#include "kernels/token_mask.h"

namespace plumb::policy_model {

const uint32_t* DrawnSets::Of(const PackedBatch& batch, int64_t first, int64_t rows,
                              int64_t vocab) {
  if (!batch.filtered) return nullptr;
  const auto words = static_cast<size_t>(kernels::SetWords(vocab));
  sets_.resize(static_cast<size_t>(rows) * words);
  for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
    UnpackKeptTokens(batch.kept[static_cast<size_t>(first) + r], vocab,
                     std::span(sets_).subspan(r * words, words));
  }
  staging_.Begin();
  const int at =
      staging_.Add(std::span(reinterpret_cast<const int32_t*>(sets_.data()), sets_.size()));
  staging_.Commit();
  return reinterpret_cast<const uint32_t*>(staging_.Ints(at));
}

}  // namespace plumb::policy_model
