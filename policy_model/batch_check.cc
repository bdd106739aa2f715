#include "policy_model/batch_check.h"

#include <algorithm>
#include <string>

#include "common/base/error.h"

namespace plumb::policy_model {

void CheckBatch(const ModelShape& shape, const TaskPass& tasks, const PackedBatch& batch,
                int64_t whole) {
  const int64_t vocab = whole > 0 ? whole : shape.vocab;
  for (int32_t t : batch.tokens) {
    if (t < 0 || (t >= vocab && !tasks.Has(t))) {
      throw Error(ErrorCode::kInvalidArgument, "token id " + std::to_string(t) +
                                                   " is outside the vocabulary of " +
                                                   std::to_string(vocab));
    }
  }
  if (batch.max_seqlen > shape.max_positions) {
    throw Error(ErrorCode::kInvalidArgument, "a sequence of " + std::to_string(batch.max_seqlen) +
                                                 " tokens is longer than the model's " +
                                                 std::to_string(shape.max_positions) +
                                                 " positions");
  }
}

void CheckTargets(const ModelShape& shape, const PackedBatch& batch, int64_t first) {
  if (shape.unused_tokens.empty()) return;
  for (int32_t t : batch.targets) {
    if (!std::binary_search(shape.unused_tokens.begin(), shape.unused_tokens.end(), t - first))
      continue;
    throw Error(ErrorCode::kInvalidArgument,
                "token id " + std::to_string(t) +
                    " is no token of this model's tokenizer: it has no log-prob");
  }
}

}  // namespace plumb::policy_model
