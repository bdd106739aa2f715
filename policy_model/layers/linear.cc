#include "policy_model/layers/linear.h"

#include <algorithm>

#include "kernels/dropout.h"
#include "kernels/tasks/weigh_groups.h"
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

const TaskGate* GateOf(const Pass& pass, size_t adapter) {
  return pass.tasks && pass.tasks->adapter == adapter ? pass.tasks : nullptr;
}

// low[n, rank] = A x becomes what B takes: times the scale, and of several adapters the weight of
// the row's task.
void Weigh(const Pass& pass, size_t adapter, const LowRank& part, int64_t n, void* low) {
  const TaskGate* gate = GateOf(pass, adapter);
  if (!gate) return ops::Scale(pass.launch, n * part.rank, part.scale, low);
  kernels::Call(pass.launch, kernels::WeighGroups{.x = low,
                                                  .rows = n,
                                                  .width = part.rank / part.groups,
                                                  .groups = part.groups,
                                                  .task = gate->task,
                                                  .weight = gate->weight,
                                                  .scale = part.scale});
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
    Weigh(pass, i, part, n, low);
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
    // with a mask m, x is m x here, and dx += m ((scale dz) A). With a gate the scale is times the
    // weight w of the row's task, and dw += scale <dz, A x>.
    const bool drops = Drops(pass, set);
    const TaskGate* gate = GateOf(pass, i);
    void* dropped = drops ? pass.scratch.At(dropped_) : nullptr;
    float* grad_a = pass.grad.OfAdapter(i, part.a);
    float* grad_b = pass.grad.OfAdapter(i, part.b);
    const auto drop_input = [&] {
      if (!drops) return x;
      Drop(pass, i, set, part, x, n, columns_, false, dropped);
      return static_cast<const void*>(dropped);
    };
    ops::LinearBackwardInput(pass.launch, d, b, n, part.rows, rank, false, dlow);
    if (gate) {
      ops::Linear(pass.launch, drop_input(), a, n, rank, columns_, false, low);
      kernels::Call(pass.launch, kernels::WeighGroupsBackward{.d = dlow,
                                                              .x = low,
                                                              .rows = n,
                                                              .width = rank / part.groups,
                                                              .groups = part.groups,
                                                              .task = gate->task,
                                                              .weight = gate->weight,
                                                              .scale = part.scale,
                                                              .dweight = gate->dweight});
    } else {
      ops::Scale(pass.launch, n * rank, part.scale, dlow);
    }
    ops::LinearBackwardInput(pass.launch, dlow, a, n, rank, columns_, !drops, drops ? dropped : dx);
    if (drops) Drop(pass, i, set, part, dropped, n, columns_, true, dx);
    if (!grad_a && !grad_b) return;
    const void* in = drop_input();
    if (grad_b) {
      if (!gate) {
        ops::Linear(pass.launch, in, a, n, rank, columns_, false, low);
        ops::Scale(pass.launch, n * rank, part.scale, low);
      }
      ops::LinearBackwardWeight(pass.launch, d, low, n, part.rows, rank, grad_b);
    }
    if (grad_a) ops::LinearBackwardWeight(pass.launch, dlow, in, n, rank, columns_, grad_a);
  });
}

}  // namespace plumb::policy_model
