#include "policy_model/layers/linear.h"

#include <algorithm>

#include "kernels/dropout.h"
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

bool Drops(const Pass& pass, const ParameterSet& set) {
  return pass.dropout.has_value() && set.adapter->spec().dropout > 0;
}

// x[n, columns] as a part's A sees it, or the gradient that comes back through that mask.
void Drop(const Pass& pass, size_t adapter, const ParameterSet& set, const LowRank& part,
          const void* x, int64_t n, int64_t columns, bool accumulate, void* out) {
  kernels::Call(pass.launch,
                kernels::Dropout{
                    .x = x,
                    .rows = n,
                    .columns = columns,
                    .probability = static_cast<float>(set.adapter->spec().dropout),
                    .key = *pass.dropout,
                    .layer = (static_cast<uint64_t>(adapter) << 48) | static_cast<uint64_t>(part.a),
                    .accumulate = accumulate,
                    .out = out});
}

}  // namespace

void LinearLayer::Plan(const Pass& pass, int64_t n, Arena& scratch) {
  int64_t rank = 0, part_rows = 0;
  bool drops = false;
  ForEachPart(pass, weight_, [&](size_t, const ParameterSet& set, const LowRank& part) {
    drops = drops || Drops(pass, set);
    rank = std::max(rank, part.rank);
    if (part.rows != rows_) part_rows = std::max(part_rows, part.rows);
  });
  if (rank == 0) return;
  low_ = scratch.Reserve(pass.Bytes(n * rank));
  dlow_ = scratch.Reserve(pass.Bytes(n * rank));
  part_ = scratch.Reserve(pass.Bytes(n * part_rows));
  dropped_ = drops ? scratch.Reserve(pass.Bytes(n * columns_)) : 0;
}

void LinearLayer::Apply(Product product, const Pass& pass, int64_t n, Arena& scratch, const void* x,
                        bool accumulate, void* y) const {
  product(pass.launch, x, pass.W(weight_), n, rows_, columns_, accumulate, y);
  ForEachPart(pass, weight_, [&](size_t i, const ParameterSet& set, const LowRank& part) {
    const int64_t rank = part.rank;
    void* low = scratch.At(low_);
    const void* in = x;
    if (Drops(pass, set)) {
      Drop(pass, i, set, part, x, n, columns_, false, scratch.At(dropped_));
      in = scratch.At(dropped_);
    }
    product(pass.launch, in, set.flat.at(part.a), n, rank, columns_, false, low);
    ops::Scale(pass.launch, n * rank, part.scale, low);
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
    const int64_t rank = part.rank;
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
    // y += B z with z = scale A x: dz = d B, dA += (scale dz)^T x, dx += (scale dz) A, dB += d^T z;
    // with a mask m, x is m x here, and dx += m ((scale dz) A).
    const bool drops = Drops(pass, set);
    void* dropped = drops ? pass.scratch.At(dropped_) : nullptr;
    ops::LinearBackwardInput(pass.launch, d, b, n, part.rows, rank, false, dlow);
    ops::Scale(pass.launch, n * rank, part.scale, dlow);
    ops::LinearBackwardInput(pass.launch, dlow, a, n, rank, columns_, !drops, drops ? dropped : dx);
    if (drops) Drop(pass, i, set, part, dropped, n, columns_, true, dx);
    float* grad_a = pass.grad.OfAdapter(i, part.a);
    float* grad_b = pass.grad.OfAdapter(i, part.b);
    if (!grad_a && !grad_b) return;
    const void* in = x;
    if (drops) {
      Drop(pass, i, set, part, x, n, columns_, false, dropped);
      in = dropped;
    }
    if (grad_b) {
      ops::Linear(pass.launch, in, a, n, rank, columns_, false, low);
      ops::Scale(pass.launch, n * rank, part.scale, low);
      ops::LinearBackwardWeight(pass.launch, d, low, n, part.rows, rank, grad_b);
    }
    if (grad_a) ops::LinearBackwardWeight(pass.launch, dlow, in, n, rank, columns_, grad_a);
  });
}

}  // namespace plumb::policy_model
