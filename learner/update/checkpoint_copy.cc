#include "learner/update/checkpoint_copy.h"

#include "common/base/error.h"

namespace plumb::learner {
namespace {

using policy_model::FlatBuffer;

void Copy(const FlatBuffer& from, FlatBuffer& to) {
  if (to.elements() == 0) to = FlatBuffer(Device::kCpu, from.dtype(), from.elements());
  PLUMB_CHECK(to.dtype() == from.dtype() && to.elements() == from.elements(), "another model");
  from.CopyToHost(std::span(static_cast<std::byte*>(to.data()), to.bytes()));
}

// The same sets, of which those that are trained have memory of the host.
policy_model::Weights InHostMemory(const policy_model::Weights& weights) {
  auto copy = policy_model::Weights::WithoutMemory(weights.shape(), Device::kCpu, weights.dtype());
  for (const auto& adapter : weights.adapters()) copy.AddAdapter(adapter->adapter->spec(), 0);
  for (size_t i = 0; i < weights.sets().size(); ++i) {
    const policy_model::ParameterSet& from = *weights.sets()[i];
    policy_model::ParameterSet& to = *copy.sets()[i];
    to.trained = from.trained;
    to.digest = from.digest;
    if (from.trained) to.flat = FlatBuffer(Device::kCpu, from.flat.dtype(), from.flat.elements());
  }
  return copy;
}

}  // namespace

void CheckpointCopy::Take(const policy_model::Weights& weights, Optimizer& optimizer, bool masters,
                          bool moments) {
  if (!weights_) {
    weights_ = InHostMemory(weights);
    for (const Optimizer::SetState& state : optimizer.sets()) {
      Optimizer::SetState& copy = sets_.emplace_back();
      for (size_t i = 0; i < weights.sets().size(); ++i) {
        if (weights.sets()[i] == state.set) copy.set = weights_->sets()[i];
      }
      PLUMB_CHECK(copy.set != nullptr, "an optimizer of another model");
      copy.runs = state.runs;
      copy.rates = state.rates;
      copy.masters = state.masters;
      copy.in_8_bits = state.in_8_bits;
    }
  }
  PLUMB_CHECK(
      weights_->sets().size() == weights.sets().size() && sets_.size() == optimizer.sets().size(),
      "another model");
  for (size_t i = 0; i < weights.sets().size(); ++i) {
    if (weights.sets()[i]->trained) Copy(weights.sets()[i]->flat, weights_->sets()[i]->flat);
  }
  for (size_t i = 0; i < sets_.size(); ++i) {
    Optimizer::SetState& from = optimizer.sets()[i];
    Optimizer::SetState& to = sets_[i];
    if (masters && from.has_own_master()) Copy(from.own_master, to.own_master);
    if (!moments) continue;
    if (from.m.elements() > 0) {
      Copy(from.m, to.m);
      Copy(from.v, to.v);
      continue;
    }
    if (to.m8.codes().elements() == 0) {
      to.m8 = CompactMoments(Device::kCpu, *to.set->table);
      to.v8 = CompactMoments(Device::kCpu, *to.set->table);
    }
    Copy(from.m8.codes(), to.m8.codes());
    Copy(from.m8.scales(), to.m8.scales());
    Copy(from.v8.codes(), to.v8.codes());
    Copy(from.v8.scales(), to.v8.scales());
  }
}

int64_t CheckpointCopy::bytes() {
  size_t bytes = 0;
  for (Optimizer::SetState& state : sets_) {
    bytes += state.set->flat.bytes() + state.own_master.bytes();
    for (const FlatBuffer* moment : state.moments()) bytes += moment->bytes();
  }
  return static_cast<int64_t>(bytes);
}

}  // namespace plumb::learner
