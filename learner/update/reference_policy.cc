#include "learner/update/reference_policy.h"

#include <algorithm>

namespace plumb::learner {
namespace {

using policy_model::FlatBuffer;
using policy_model::Weights;

void CopyBytes(const FlatBuffer& from, FlatBuffer& to) {
  constexpr int64_t kChunk = int64_t{1} << 22;  // elements in host memory at a time
  std::vector<std::byte> host;
  for (int64_t at = 0; at < from.elements(); at += kChunk) {
    host.resize(static_cast<size_t>(std::min(kChunk, from.elements() - at)) *
                ElementSize(from.dtype()));
    from.CopyToHost(host, at);
    to.CopyFromHost(host, at);
  }
}

Weights Frozen(const Weights& weights, bool keep_adapters) {
  if (!weights.base().trained && !keep_adapters) return weights.WithoutAdapters();
  Weights out = weights.Twin();
  for (size_t i = 0; i < out.sets().size(); ++i) {
    if (out.sets()[i] != weights.sets()[i]) CopyBytes(weights.sets()[i]->flat, out.sets()[i]->flat);
  }
  return out;
}

}  // namespace

ReferencePolicy::ReferencePolicy(const Weights& weights, TrainStep& train, bool keep_adapters)
    : weights_(Frozen(weights, keep_adapters)), train_(train) {}

}  // namespace plumb::learner
