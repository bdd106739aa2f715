// The rows of the vocabulary at both ends of the transformer: tokens to embeddings, and log-probs
// that several ranks have the parts of.
//
// A whole model has all rows. Of a share (families/tensor_share.h) each rank of a TensorGroup has
// as many, in order: it looks up the tokens that are its own, which are added up over the group,
// and makes log-sum-exp, entropy and the target's log-prob over its own rows, of which all ranks
// compute those over all of them, in the same way and to the same bits: with l_r and H_r of rank r,
//   l = log sum exp(l_r),  log p(y) = log p_r(y) + l_r - l,  H = sum exp(l_r - l) (H_r + l - l_r).
// Where tokens are drawn, all ranks get all rows' logits, so that each draws as one rank would.
// Thread safety: of its transformer. Ownership: borrows the group. Errors: kUnsupported for a batch
// with targets that were drawn from a part of the vocabulary, of a share.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "policy_model/layers/stage.h"
#include "policy_model/memory/staging.h"
#include "policy_model/packing.h"

namespace plumb::policy_model {

class Vocabulary {
 public:
  Vocabulary(const Stream& stream, int64_t rows) : rows_(rows), all_(rows), staging_(stream) {}

  // `all`: rows of the whole model's.
  void Use(TensorGroup* group, int64_t all);
  TensorGroup* group() const { return group_; }
  int64_t first() const { return first_; }  // of its rows
  int64_t all() const { return all_; }

  // Of a packed pass, before the others.
  void Begin(const PackedBatch& batch);
  // Of a paged step of a share: its rows' tokens, in the host's memory.
  void BeginStep(std::span<const int32_t> tokens);
  // Of a share: the targets among its rows, -1 elsewhere; of a whole model `targets`. [R], device.
  const int32_t* Targets(const int32_t* targets) const;

  // x[n, H] = scale * the rows of the tokens. `tokens`: [n], device. `own`: of a share, T[n, H].
  void Embed(const Pass& pass, int64_t n, int64_t embedding, const int32_t* tokens, float scale,
             void* own, void* x);
  // The other way, where the embedding is trained.
  void EmbedBackward(const PackedPass& pass, int64_t embedding, const int32_t* tokens, float scale,
                     void* own, const void* dx);
  // Of a share: what this rank has of `rows` rows becomes what the whole model has. Device.
  void Combine(const Stream& stream, int64_t rows, float* logprob, float* entropy, float* lse);
  // The same of logits: own[n, rows of this rank] of every rank become out[n, all()].
  void Join(const Stream& stream, int64_t n, const float* own, float* out);

 private:
  // Which of the tokens are its own; their rows and places.
  void Find(std::span<const int32_t> tokens);
  int32_t RowOf(int32_t token) const {
    const int64_t row = token - first();
    return row >= 0 && row < rows_ ? static_cast<int32_t>(row) : -1;
  }

  const int64_t rows_;  // of this rank
  int64_t all_, first_ = 0;
  TensorGroup* group_ = nullptr;
  Staging staging_;
  std::vector<int32_t> own_, places_, targets_;  // own tokens' rows, where they stand; targets
  int at_own_ = 0, at_places_ = 0, at_targets_ = 0;
  std::vector<float> part_, parts_;  // [3, rows], of all ranks
};

}  // namespace plumb::policy_model
