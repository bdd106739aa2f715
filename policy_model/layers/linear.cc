#include "policy_model/layers/linear.h"

#include <algorithm>

#include "policy_model/layers/ops.h"

namespace plumb::policy_model {
namespace {

// Calls f(index of the adapter, its set, one LowRank) for what adapters add to the tensor at
// `weight`.
template <class F>
void ForEachPart(const Pass& pass, int64_t weight, const F& f) {
  const auto adapters = pass.weights.adapters();
  for (size_t i = 0; i < adapters.size(); ++i) {
    const ParameterSet& set = *adapters[i];
    if (const auto* parts = set.adapter->Of(weight)) {
      for (const LowRank& part : *parts) f(i, set, part);
    }
  }
}

}  // namespace

void LinearLayer::Plan(const Pass& pass, int64_t n, Arena& scratch) {
  int64_t rank = 0, part_rows = 0;
  ForEachPart(pass, weight_, [&](size_t, const ParameterSet& set, const LowRank& part) {
    rank = std::max(rank, set.adapter->spec().rank);
    if (part.rows != rows_) part_rows = std::max(part_rows, part.rows);
  });
  if (rank == 0) return;
  low_ = scratch.Reserve(pass.Bytes(n * rank));
  dlow_ = scratch.Reserve(pass.Bytes(n * rank));
  part_ = scratch.Reserve(pass.Bytes(n * part_rows));
}

void LinearLayer::Apply(Product product, const Pass& pass, int64_t n, Arena& scratch, const void* x,
                        bool accumulate, void* y) const {
  product(pass.launch, x, pass.W(weight_), n, rows_, columns_, accumulate, y);
  ForEachPart(pass, weight_, [&](size_t, const ParameterSet& set, const LowRank& part) {
    const int64_t rank = set.adapter->spec().rank;
    void* low = scratch.At(low_);
    product(pass.launch, x, set.flat.at(part.a), n, rank, columns_, false, low);
    ops::Scale(pass.launch, n * rank, set.adapter->scale(), low);
    if (part.rows == rows_) {
      product(pass.launch, low, set.flat.at(part.b), n, rows_, rank, true, y);
      return;
    }
    void* added = scratch.At(part_);
    product(pass.launch, low, set.flat.at(part.b), n, part.rows, rank, false, added);
    ops::AddToColumns(pass.launch, added, n, part.rows, rows_, part.row_begin, y);
  });
}

void LinearLayer::Forward(const PackedPass& pass, const void* x, bool accumulate, void* y) const {
  Apply(ops::Linear, pass, pass.tokens(), pass.scratch, x, accumulate, y);
}

void LinearLayer::Step(const PagedPass& pass, const void* x, bool accumulate, void* y) const {
  Apply(ops::LinearRows, pass, pass.rows.rows, pass.scratch, x, accumulate, y);
}

void LinearLayer::Backward(const PackedPass& pass, const void* dy, const void* x, bool accumulate,
                           void* dx) const {
  const int64_t n = pass.tokens();
  if (float* g = pass.G(weight_))
    ops::LinearBackwardWeight(pass.launch, dy, x, n, rows_, columns_, g);
  ops::LinearBackwardInput(pass.launch, dy, pass.W(weight_), n, rows_, columns_, accumulate, dx);
  ForEachPart(pass, weight_, [&](size_t i, const ParameterSet& set, const LowRank& part) {
    const int64_t rank = set.adapter->spec().rank;
    const void* a = set.flat.at(part.a);
    const void* b = set.flat.at(part.b);
    void* low = pass.scratch.At(low_);
    void* dlow = pass.scratch.At(dlow_);
    const void* d = dy;
    if (part.rows != rows_) {
      void* own = pass.scratch.At(part_);
      ops::CopyColumns(pass.launch, dy, n, rows_, part.row_begin, part.rows, own);
      d = own;
    }
    // y += B z with z = scale A x: dz = d B, dA += (scale dz)^T x, dx += (scale dz) A, dB += d^T z.
    ops::LinearBackwardInput(pass.launch, d, b, n, part.rows, rank, false, dlow);
    ops::Scale(pass.launch, n * rank, set.adapter->scale(), dlow);
    ops::LinearBackwardInput(pass.launch, dlow, a, n, rank, columns_, true, dx);
    if (i >= pass.grad.adapters.size() || !pass.grad.adapters[i]) return;
    float* grad = pass.grad.adapters[i]->f32();
    ops::Linear(pass.launch, x, a, n, rank, columns_, false, low);
    ops::Scale(pass.launch, n * rank, set.adapter->scale(), low);
    ops::LinearBackwardWeight(pass.launch, d, low, n, part.rows, rank, grad + part.b);
    ops::LinearBackwardWeight(pass.launch, dlow, x, n, rank, columns_, grad + part.a);
  });
}

}  // namespace plumb::policy_model
