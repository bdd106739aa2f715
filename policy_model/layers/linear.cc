#include "policy_model/layers/linear.h"

#include <algorithm>
#include <vector>

#include "common/base/error.h"
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
  rank_ = 0;
  ForEachPart(pass, weight_, [&](size_t, const ParameterSet& set, const LowRank& part) {
    drops = drops || Drops(pass, set);
    rank = std::max(rank, part.rank);
    rank_ += part.rank;
    if (part.rows != rows_) part_rows = std::max(part_rows, part.rows);
  });
  if (rank == 0) return;
  if (Joins(pass)) {
    joined_low_ = scratch.Reserve(pass.Bytes(n * rank_));
    joined_dlow_ = scratch.Reserve(pass.Bytes(n * rank_));
    joined_a_ = scratch.Reserve(pass.Bytes(rank_ * columns_));
    joined_b_ = scratch.Reserve(pass.Bytes(rows_ * rank_));
    joined_grad_ = scratch.Reserve(4 * rank_ * std::max(rows_, columns_));
  }
  low_ = scratch.Reserve(pass.Bytes(n * rank));
  dlow_ = scratch.Reserve(pass.Bytes(n * rank));
  part_ = scratch.Reserve(pass.Bytes(n * part_rows));
  dropped_ = drops ? scratch.Reserve(pass.Bytes(n * columns_)) : 0;
}

void LinearLayer::Plan(const PackedPass& pass, int64_t n, Arena& scratch) {
  Plan(static_cast<const Pass&>(pass), n, scratch);
  if (pass.fp16) {
    int64_t rank = 0;
    ForEachPart(pass, weight_, [&](size_t, const ParameterSet&, const LowRank& part) {
      rank = std::max(rank, part.rank);
    });
    fp16_.Plan(pass, n, rows_, columns_, rank, scratch);
  }
  if (!pass.fp8) return;
  PLUMB_CHECK(rank_ == 0, "products of a base with adapters read the model's type");
  fp8_.Plan(pass, n, scratch);
}

// Wide adapters, where zeros of B would be worth counting, go part by part.
bool LinearLayer::Joins(const Pass& pass) const {
  bool joins =
      rank_ > 0 && 8 * rank_ <= std::min(rows_, columns_) && ops::JoinsLowRank(pass.launch);
  ForEachPart(pass, weight_, [&](size_t, const ParameterSet& set, const LowRank&) {
    joins = joins && !Drops(pass, set);
  });
  return joins;
}

LinearLayer::Joined LinearLayer::Join(const Pass& pass, Arena& scratch) const {
  Joined joined{.rank = rank_,
                .a = scratch.At(joined_a_),
                .b = scratch.At(joined_b_),
                .low = scratch.At(joined_low_),
                .dlow = scratch.At(joined_dlow_),
                .grad = scratch.Floats(joined_grad_)};
  auto* a = static_cast<BFloat16*>(joined.a);
  auto* b = static_cast<BFloat16*>(joined.b);
  std::fill_n(b, rows_ * rank_, BFloat16{});
  int64_t at = 0;
  ForEachPart(pass, weight_, [&](size_t, const ParameterSet& set, const LowRank& part) {
    std::copy_n(static_cast<const BFloat16*>(set.flat.at(part.a)), part.rank * columns_,
                a + at * columns_);
    const auto* from = static_cast<const BFloat16*>(set.flat.at(part.b));
    for (int64_t r = 0; r < part.rows; ++r)
      std::copy_n(from + r * part.rank, part.rank, b + (part.row_begin + r) * rank_ + at);
    at += part.rank;
  });
  return joined;
}

// low[n, rank_] *= each part's scale.
void LinearLayer::ScaleParts(const Pass& pass, int64_t n, void* low) const {
  std::vector<float> scale;
  ForEachPart(pass, weight_, [&](size_t, const ParameterSet&, const LowRank& part) {
    scale.insert(scale.end(), static_cast<size_t>(part.rank), part.scale);
  });
  auto* x = static_cast<BFloat16*>(low);
  for (int64_t t = 0; t < n; ++t, x += rank_) {
    for (int64_t i = 0; i < rank_; ++i)
      x[i] = ToBFloat16(ToFloat(x[i]) * scale[static_cast<size_t>(i)]);
  }
}

void LinearLayer::BackwardJoined(const PackedPass& pass, const void* dy, const void* x,
                                 bool accumulate, void* dx) const {
  // y += B z with z = scale A x: scale dz = scale B^T dy, dx += A^T (scale dz).
  const int64_t n = pass.tokens();
  const Joined j = Join(pass, pass.scratch);
  ops::LinearBackwardInput(pass.launch, dy, j.b, n, rows_, j.rank, false, j.dlow);
  ScaleParts(pass, n, j.dlow);
  ops::LinearBackwardInputJoined(pass.launch, dy, pass.W(weight_), n, rows_, columns_,
                                 {.rows = j.dlow, .matrix = j.a, .rank = j.rank}, accumulate, dx);
  bool wanted = false;
  ForEachPart(pass, weight_, [&](size_t i, const ParameterSet&, const LowRank& part) {
    wanted = wanted || pass.grad.OfAdapter(i, part.a) || pass.grad.OfAdapter(i, part.b);
  });
  if (!wanted) return;
  ops::Linear(pass.launch, x, j.a, n, j.rank, columns_, false, j.low);
  ScaleParts(pass, n, j.low);
  // dB and dA of all parts, of which each takes its own.
  std::fill_n(j.grad, rows_ * j.rank, 0.0f);
  ops::LinearBackwardWeight(pass.launch, dy, j.low, n, rows_, j.rank, j.grad);
  int64_t at = 0;
  ForEachPart(pass, weight_, [&](size_t i, const ParameterSet&, const LowRank& part) {
    float* grad = pass.grad.OfAdapter(i, part.b);
    for (int64_t r = 0; grad && r < part.rows; ++r) {
      const float* from = j.grad + (part.row_begin + r) * j.rank + at;
      for (int64_t c = 0; c < part.rank; ++c) grad[r * part.rank + c] += from[c];
    }
    at += part.rank;
  });
  std::fill_n(j.grad, j.rank * columns_, 0.0f);
  ops::LinearBackwardWeight(pass.launch, j.dlow, x, n, j.rank, columns_, j.grad);
  at = 0;
  ForEachPart(pass, weight_, [&](size_t i, const ParameterSet&, const LowRank& part) {
    float* grad = pass.grad.OfAdapter(i, part.a);
    for (int64_t c = 0; grad && c < part.rank * columns_; ++c) grad[c] += j.grad[at * columns_ + c];
    at += part.rank;
  });
}

void LinearLayer::Times(const PackedPass& pass, const void* x, const void* w, int64_t m, int64_t n,
                        int64_t k, bool accumulate, void* y) const {
  if (pass.fp16) fp16_.Linear(pass, x, w, m, n, k, accumulate, y);
  else ops::Linear(pass.launch, x, w, m, n, k, accumulate, y);
}

void LinearLayer::TimesBack(const PackedPass& pass, const void* dy, const void* w, int64_t m,
                            int64_t n, int64_t k, bool accumulate, void* dx) const {
  if (pass.fp16) fp16_.BackwardInput(pass, dy, w, m, n, k, accumulate, dx);
  else ops::LinearBackwardInput(pass.launch, dy, w, m, n, k, accumulate, dx);
}

void LinearLayer::TimesOuter(const PackedPass& pass, const void* dy, const void* x, int64_t m,
                             int64_t n, int64_t k, float* dw, bool accumulate) const {
  if (pass.fp16) fp16_.BackwardWeight(pass, dy, x, m, n, k, dw, accumulate);
  else ops::LinearBackwardWeight(pass.launch, dy, x, m, n, k, dw, accumulate);
}

template <class Product>
void LinearLayer::Apply(const Product& product, const Pass& pass, int64_t n, Arena& scratch,
                        const void* x, bool accumulate, void* y) const {
  product(x, pass.W(weight_), n, rows_, columns_, accumulate, y);
  ForEachPart(pass, weight_, [&](size_t i, const ParameterSet& set, const LowRank& part) {
    const int64_t rank = part.rank;
    void* low = scratch.At(low_);
    const void* in = x;
    if (Drops(pass, set)) {
      Drop(pass, i, set, part, x, n, columns_, false, scratch.At(dropped_));
      in = scratch.At(dropped_);
    }
    product(in, set.flat.at(part.a), n, rank, columns_, false, low);
    Weigh(pass, i, part, n, low);
    if (part.rows == rows_) {
      product(low, set.flat.at(part.b), n, rows_, rank, true, y);
      return;
    }
    void* added = scratch.At(part_);
    product(low, set.flat.at(part.b), n, part.rows, rank, false, added);
    ops::AddToColumns(pass.launch, added, n, part.rows, rows_, part.row_begin, y);
  });
}

void LinearLayer::Forward(const PackedPass& pass, const void* x, bool accumulate, void* y) const {
  if (pass.fp8) return fp8_.Forward(pass, pass.W(weight_), x, accumulate, y);
  if (!pass.fp16 && Joins(pass)) {
    const Joined j = Join(pass, pass.scratch);
    ops::Linear(pass.launch, x, j.a, pass.tokens(), j.rank, columns_, false, j.low);
    ScaleParts(pass, pass.tokens(), j.low);
    ops::LinearJoined(pass.launch, x, pass.W(weight_), pass.tokens(), rows_, columns_,
                      {.rows = j.low, .matrix = j.b, .rank = j.rank}, accumulate, y);
    return;
  }
  const auto product = [&](const void* of, const void* w, int64_t m, int64_t n, int64_t k, bool add,
                           void* to) { Times(pass, of, w, m, n, k, add, to); };
  Apply(product, pass, pass.tokens(), pass.scratch, x, accumulate, y);
}

void LinearLayer::Step(const PagedPass& pass, const void* x, bool accumulate, void* y) const {
  const auto product = [&](const void* of, const void* w, int64_t m, int64_t n, int64_t k, bool add,
                           void* to) { ops::LinearRows(pass.launch, of, w, m, n, k, add, to); };
  Apply(product, pass, pass.rows.rows, pass.scratch, x, accumulate, y);
}

bool LinearLayer::HasParts(const Pass& pass) const {
  bool any = false;
  ForEachPart(pass, weight_, [&](size_t, const ParameterSet&, const LowRank&) { any = true; });
  return any;
}

void LinearLayer::BackwardInput(const PackedPass& pass, const void* dy, bool accumulate,
                                void* dx) const {
  if (pass.fp8) return fp8_.BackwardInput(pass, pass.W(weight_), dy, accumulate, dx);
  TimesBack(pass, dy, pass.W(weight_), pass.tokens(), rows_, columns_, accumulate, dx);
}

void LinearLayer::BackwardWeight(const PackedPass& pass, const void* dy, const void* x) const {
  BFloat16* const narrow = pass.TakeNarrow(weight_, rows_ * columns_);
  const bool empty = !narrow && pass.TakeEmpty(weight_, rows_ * columns_);
  float* const g = narrow ? nullptr : pass.G(weight_);
  if (!narrow && !g) return;
  if (!narrow) TimesOuter(pass, dy, x, pass.tokens(), rows_, columns_, g, !empty);
  else if (pass.fp16)
    fp16_.BackwardWeightNarrow(pass, dy, x, pass.tokens(), rows_, columns_, narrow);
  else ops::LinearBackwardWeightNarrow(pass.launch, dy, x, pass.tokens(), rows_, columns_, narrow);
}

void LinearLayer::Backward(const PackedPass& pass, const void* dy, const void* x, bool accumulate,
                           void* dx) const {
  const int64_t n = pass.tokens();
  BackwardWeight(pass, dy, x);
  if (!pass.fp16 && Joins(pass)) {
    BackwardJoined(pass, dy, x, accumulate, dx);
    return;
  }
  BackwardInput(pass, dy, accumulate, dx);
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
    TimesBack(pass, d, b, n, part.rows, rank, false, dlow);
    if (gate) {
      Times(pass, drop_input(), a, n, rank, columns_, false, low);
      kernels::Call(pass.launch, kernels::WeighGroupsBackward{.d = dlow,
                                                              .x = low,
                                                              .rows = n,
                                                              .width = rank / part.groups,
                                                              .groups = part.groups,
                                                              .tasks = static_cast<int32_t>(
                                                                  set.adapter->spec().tasks.size()),
                                                              .task = gate->task,
                                                              .weight = gate->weight,
                                                              .scale = part.scale,
                                                              .dweight = gate->dweight});
    } else {
      ops::Scale(pass.launch, n * rank, part.scale, dlow);
    }
    TimesBack(pass, dlow, a, n, rank, columns_, !drops, drops ? dropped : dx);
    if (drops) Drop(pass, i, set, part, dropped, n, columns_, true, dx);
    if (!grad_a && !grad_b) return;
    const void* in = drop_input();
    if (grad_b) {
      if (!gate) {
        Times(pass, in, a, n, rank, columns_, false, low);
        ops::Scale(pass.launch, n * rank, part.scale, low);
      }
      TimesOuter(pass, d, low, n, part.rows, rank, grad_b);
    }
    if (grad_a) TimesOuter(pass, dlow, in, n, rank, columns_, grad_a);
  });
}

}  // namespace plumb::policy_model
