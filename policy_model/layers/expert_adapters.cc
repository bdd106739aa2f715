#include "policy_model/layers/expert_adapters.h"

#include <algorithm>

#include "kernels/device/device_memory.h"
#include "policy_model/layers/ops.h"

namespace plumb::policy_model {

using kernels::Call;

namespace {

// Calls f(index of the adapter, its set, its LowRank) for adapters that the matrices have.
template <class F>
void ForEachAdapter(const Pass& pass, int64_t weight, const F& f) {
  const auto adapters = pass.weights.adapters();
  for (size_t i = 0; i < adapters.size(); ++i) {
    if (const auto* parts = adapters[i]->adapter->Of(weight)) f(i, *adapters[i], parts->front());
  }
}

}  // namespace

bool ExpertAdapters::There(const Pass& pass) const {
  bool there = false;
  ForEachAdapter(pass, weight_, [&](size_t, const ParameterSet&, const LowRank&) { there = true; });
  return there;
}

void ExpertAdapters::Plan(const Pass& pass, int64_t n, Arena& scratch) {
  int64_t rank = 0, matrices = 1;
  ForEachAdapter(pass, weight_, [&](size_t, const ParameterSet&, const LowRank& part) {
    rank = std::max(rank, part.rank);
    if (pass.launch.device().is_cuda()) matrices = part.experts;
  });
  if (rank == 0) return;
  low_ = scratch.Reserve(pass.Bytes(n * rank));
  dlow_ = scratch.Reserve(pass.Bytes(n * rank));
  b_ = scratch.Reserve(pass.Bytes(matrices * rows_ * rank));
  grad_ = scratch.Reserve(4 * matrices * rows_ * rank);
}

// [rows, rank] of one expert.
const void* ExpertAdapters::TakeB(const Pass& pass, Arena& scratch, const ParameterSet& set,
                                  const LowRank& part, int32_t expert) const {
  const auto take = [&]<class T>(T*) {
    const T* from = static_cast<const T*>(set.flat.at(part.b)) + expert;
    T* to = static_cast<T*>(scratch.At(b_));
    for (int64_t i = 0; i < rows_ * part.rank; ++i) to[i] = from[i * part.experts];
  };
  if (pass.launch.dtype == DType::kFloat32) take(static_cast<float*>(nullptr));
  else take(static_cast<BFloat16*>(nullptr));
  return scratch.At(b_);
}

void ExpertAdapters::Add(Product product, const Pass& pass, Arena& scratch, int32_t expert,
                         int64_t n, const void* x, void* y) const {
  ForEachAdapter(pass, weight_, [&](size_t, const ParameterSet& set, const LowRank& part) {
    void* low = scratch.At(low_);
    product(pass.launch, x, set.flat.at(part.a + expert * part.rank * columns_), n, part.rank,
            columns_, false, low);
    ops::Scale(pass.launch, n * part.rank, part.scale, low);
    product(pass.launch, low, TakeB(pass, scratch, set, part, expert), n, rows_, part.rank, true,
            y);
  });
}

void ExpertAdapters::BackwardInput(const PackedPass& pass, int32_t expert, int64_t n,
                                   const void* dy, void* dx) const {
  Arena& scratch = pass.scratch;
  ForEachAdapter(pass, weight_, [&](size_t, const ParameterSet& set, const LowRank& part) {
    void* dlow = scratch.At(dlow_);
    ops::LinearBackwardInput(pass.launch, dy, TakeB(pass, scratch, set, part, expert), n, rows_,
                             part.rank, false, dlow);
    ops::Scale(pass.launch, n * part.rank, part.scale, dlow);
    ops::LinearBackwardInput(pass.launch, dlow, set.flat.at(part.a + expert * part.rank * columns_),
                             n, part.rank, columns_, true, dx);
  });
}

void ExpertAdapters::BackwardWeights(const PackedPass& pass, int32_t expert, int64_t n,
                                     const void* dy, const void* x) const {
  Arena& scratch = pass.scratch;
  ForEachAdapter(pass, weight_, [&](size_t i, const ParameterSet& set, const LowRank& part) {
    const int64_t a = part.a + expert * part.rank * columns_;
    float* grad_a = pass.grad.OfAdapter(i, a);
    float* grad_b = pass.grad.OfAdapter(i, part.b);
    if (grad_b) {
      void* low = scratch.At(low_);
      ops::Linear(pass.launch, x, set.flat.at(a), n, part.rank, columns_, false, low);
      ops::Scale(pass.launch, n * part.rank, part.scale, low);
      float* own = scratch.Floats(grad_);
      std::fill_n(own, rows_ * part.rank, 0.0f);
      ops::LinearBackwardWeight(pass.launch, dy, low, n, rows_, part.rank, own);
      for (int64_t j = 0; j < rows_ * part.rank; ++j) grad_b[j * part.experts + expert] += own[j];
    }
    if (!grad_a) return;
    void* dlow = scratch.At(dlow_);
    ops::LinearBackwardInput(pass.launch, dy, TakeB(pass, scratch, set, part, expert), n, rows_,
                             part.rank, false, dlow);
    ops::Scale(pass.launch, n * part.rank, part.scale, dlow);
    ops::LinearBackwardWeight(pass.launch, dlow, x, n, part.rank, columns_, grad_a);
  });
}

// [E, rows, rank].
const void* ExpertAdapters::TakeAllB(const Pass& pass, Arena& scratch, const ParameterSet& set,
                                     const LowRank& part) const {
  Call(pass.launch, kernels::SplitByExpert{.x = set.flat.at(part.b),
                                           .count = rows_ * part.rank,
                                           .experts = static_cast<int32_t>(part.experts),
                                           .out = scratch.At(b_)});
  return scratch.At(b_);
}

void ExpertAdapters::AddAll(const Pass& pass, Arena& scratch, const kernels::ExpertGroups& groups,
                            const void* x, void* y) const {
  ForEachAdapter(pass, weight_, [&](size_t, const ParameterSet& set, const LowRank& part) {
    void* low = scratch.At(low_);
    Call(pass.launch, kernels::ExpertProduct{.groups = groups,
                                             .x = x,
                                             .w = set.flat.at(part.a),
                                             .n = part.rank,
                                             .k = columns_,
                                             .scale = part.scale,
                                             .y = low});
    Call(pass.launch, kernels::ExpertProduct{.groups = groups,
                                             .x = low,
                                             .w = TakeAllB(pass, scratch, set, part),
                                             .n = rows_,
                                             .k = part.rank,
                                             .accumulate = true,
                                             .y = y});
  });
}

void ExpertAdapters::BackwardInputAll(const PackedPass& pass, const kernels::ExpertGroups& groups,
                                      const void* dy, void* dx) const {
  ForEachAdapter(pass, weight_, [&](size_t, const ParameterSet& set, const LowRank& part) {
    void* dlow = pass.scratch.At(dlow_);
    Call(pass.launch, kernels::ExpertProduct{.groups = groups,
                                             .x = dy,
                                             .w = TakeAllB(pass, pass.scratch, set, part),
                                             .n = rows_,
                                             .k = part.rank,
                                             .by_columns = true,
                                             .scale = part.scale,
                                             .y = dlow});
    Call(pass.launch, kernels::ExpertProduct{.groups = groups,
                                             .x = dlow,
                                             .w = set.flat.at(part.a),
                                             .n = part.rank,
                                             .k = columns_,
                                             .by_columns = true,
                                             .accumulate = true,
                                             .y = dx});
  });
}

void ExpertAdapters::BackwardWeightsAll(const PackedPass& pass, const kernels::ExpertGroups& groups,
                                        const void* dy, const void* x) const {
  Arena& scratch = pass.scratch;
  ForEachAdapter(pass, weight_, [&](size_t i, const ParameterSet& set, const LowRank& part) {
    float* grad_a = pass.grad.OfAdapter(i, part.a);
    float* grad_b = pass.grad.OfAdapter(i, part.b);
    if (grad_b) {
      void* low = scratch.At(low_);
      Call(pass.launch, kernels::ExpertProduct{.groups = groups,
                                               .x = x,
                                               .w = set.flat.at(part.a),
                                               .n = part.rank,
                                               .k = columns_,
                                               .scale = part.scale,
                                               .y = low});
      float* own = scratch.Floats(grad_);
      const int64_t each = rows_ * part.rank;
      kernels::Zero(pass.launch.stream, own, static_cast<size_t>(4 * part.experts * each));
      Call(pass.launch,
           kernels::ExpertWeightProduct{
               .groups = groups, .dy = dy, .x = low, .n = rows_, .k = part.rank, .dw = own});
      Call(pass.launch, kernels::JoinByExpert{.x = own,
                                              .count = each,
                                              .experts = static_cast<int32_t>(part.experts),
                                              .out = grad_b});
    }
    if (!grad_a) return;
    void* dlow = scratch.At(dlow_);
    Call(pass.launch, kernels::ExpertProduct{.groups = groups,
                                             .x = dy,
                                             .w = TakeAllB(pass, scratch, set, part),
                                             .n = rows_,
                                             .k = part.rank,
                                             .by_columns = true,
                                             .scale = part.scale,
                                             .y = dlow});
    Call(pass.launch,
         kernels::ExpertWeightProduct{
             .groups = groups, .dy = dlow, .x = x, .n = part.rank, .k = columns_, .dw = grad_a});
  });
}

}  // namespace plumb::policy_model
