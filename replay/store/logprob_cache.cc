#include "replay/store/logprob_cache.h"

namespace plumb::replay {

std::optional<std::vector<float>> StoreLogprobCache::Get(const Digest& model,
                                                         const Digest& sequence) {
  auto found = store_->GetLogprobs(model, sequence);
  ++(found ? hits_ : misses_);
  return found;
}

void StoreLogprobCache::Put(const Digest& model, const Digest& sequence,
                            std::span<const float> logprobs) {
  store_->PutLogprobs(model, sequence, logprobs);
}

}  // namespace plumb::replay
