#include "policy_model/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/error.h"
#include "kernels/delta/move_columns.h"
#include "kernels/device/device_memory.h"
#include "kernels/embedding.h"
#include "policy_model/families/tensor_share.h"

namespace plumb::policy_model {

using kernels::Call;

void Vocabulary::Use(TensorGroup* group, int64_t all) {
  group_ = group;
  all_ = group ? all : rows_;
  first_ = group ? RowsOfVocabulary(all, group->rank(), group->size()).begin : 0;
}

void Vocabulary::Begin(const PackedBatch& batch) {
  if (!group_) return;
  if (batch.filtered) {
    throw Error(ErrorCode::kUnsupported,
                "tokens that were drawn from a part of the vocabulary are not scored by ranks that "
                "have parts of it each: use rollout.top_p = 1 and rollout.top_k = 0, or dp",
                "run.parallel");
  }
  Find(batch.tokens);
  targets_.clear();
  for (const int32_t target : batch.targets) targets_.push_back(RowOf(target));
  staging_.Begin();
  at_own_ = staging_.Add(std::span<const int32_t>(own_));
  at_places_ = staging_.Add(std::span<const int32_t>(places_));
  at_targets_ = staging_.Add(std::span<const int32_t>(targets_));
  staging_.Commit();
}

void Vocabulary::BeginStep(std::span<const int32_t> tokens) {
  Find(tokens);
  staging_.Begin();
  at_own_ = staging_.Add(std::span<const int32_t>(own_));
  at_places_ = staging_.Add(std::span<const int32_t>(places_));
  staging_.Commit();
}

void Vocabulary::Find(std::span<const int32_t> tokens) {
  own_.clear();
  places_.clear();
  for (size_t i = 0; i < tokens.size(); ++i) {
    const int32_t row = RowOf(tokens[i]);
    if (row < 0) continue;
    own_.push_back(row);
    places_.push_back(static_cast<int32_t>(i));
  }
}

const int32_t* Vocabulary::Targets(const int32_t* targets) const {
  return group_ ? staging_.Ints(at_targets_) : targets;
}

void Vocabulary::Embed(const Pass& pass, int64_t n, int64_t embedding, const int32_t* tokens,
                       float scale, void* own, void* x) {
  const int64_t h = pass.hidden(), mine = static_cast<int64_t>(own_.size());
  Call(pass.launch, kernels::GatherRows{.table = pass.W(embedding),
                                        .index = group_ ? staging_.Ints(at_own_) : tokens,
                                        .rows = group_ ? mine : n,
                                        .width = h,
                                        .out = group_ ? own : x,
                                        .scale = scale});
  if (!group_) return;
  kernels::Zero(pass.launch.stream, x, static_cast<size_t>(pass.Bytes(n * h)));
  if (mine > 0) {
    Call(pass.launch,
         kernels::ScatterRows{
             .d = own, .index = staging_.Ints(at_places_), .rows = mine, .width = h, .out = x});
  }
  group_->Sum(pass.launch.stream, pass.launch.dtype, x, n * h);
}

void Vocabulary::EmbedBackward(const PackedPass& pass, int64_t embedding, const int32_t* tokens,
                               float scale, void* own, const void* dx) {
  float* const grad = pass.G(embedding);
  if (!grad) return;
  const int64_t h = pass.hidden(), mine = static_cast<int64_t>(own_.size());
  if (group_) {
    Call(
        pass.launch,
        kernels::GatherRows{
            .table = dx, .index = staging_.Ints(at_places_), .rows = mine, .width = h, .out = own});
  }
  Call(pass.launch, kernels::ScatterAddRows{.d = group_ ? own : dx,
                                            .index = group_ ? staging_.Ints(at_own_) : tokens,
                                            .rows = group_ ? mine : pass.tokens(),
                                            .width = h,
                                            .grad = grad,
                                            .scale = scale});
}

void Vocabulary::Combine(const Stream& stream, int64_t rows, float* logprob, float* entropy,
                         float* lse) {
  if (!group_ || rows == 0) return;
  const auto n = static_cast<size_t>(rows), ranks = static_cast<size_t>(group_->size());
  part_.resize(3 * n);
  parts_.resize(3 * n * ranks);
  float* const of[] = {logprob, entropy, lse};
  for (size_t i = 0; i < 3; ++i)
    kernels::CopyAndWait(stream, part_.data() + i * n, of[i], n * sizeof(float));
  group_->Gather(part_, parts_);
  const auto at = [&](size_t rank, size_t what, size_t row) {
    return static_cast<double>(parts_[(3 * rank + what) * n + row]);
  };
  for (size_t r = 0; r < n; ++r) {
    double top = at(0, 2, r), sum = 0, all = 0, chosen = -std::numeric_limits<double>::infinity();
    for (size_t k = 1; k < ranks; ++k) top = std::max(top, at(k, 2, r));
    for (size_t k = 0; k < ranks; ++k) sum += std::exp(at(k, 2, r) - top);
    const double l = top + std::log(sum);
    for (size_t k = 0; k < ranks; ++k) {
      const double own = at(k, 2, r);
      all += std::exp(own - l) * (at(k, 1, r) + l - own);
      chosen = std::max(chosen, at(k, 0, r) + own);
    }
    part_[r] = static_cast<float>(std::isnan(l) ? l : std::min(0.0, chosen - l));
    part_[n + r] = static_cast<float>(all);
    part_[2 * n + r] = static_cast<float>(l);
  }
  for (size_t i = 0; i < 3; ++i)
    kernels::CopyAndWait(stream, of[i], part_.data() + i * n, n * sizeof(float));
}

// Each rank puts its columns between zeros, and these are added up: what is added to a logit is 0.
void Vocabulary::Join(const Stream& stream, int64_t n, const float* own, float* out) {
  PLUMB_CHECK(group_ != nullptr, "a whole model's logits are all there");
  kernels::Zero(stream, out, static_cast<size_t>(n * all_) * sizeof(float));
  const kernels::ColumnRun columns{.from = 0, .to = first_, .count = rows_};
  Call({.stream = stream, .dtype = DType::kFloat32}, kernels::MoveColumns{.x = own,
                                                                          .rows = n,
                                                                          .x_width = rows_,
                                                                          .y_width = all_,
                                                                          .runs = &columns,
                                                                          .count = 1,
                                                                          .y = out});
  group_->Sum(stream, DType::kFloat32, out, n * all_);
}

}  // namespace plumb::policy_model
