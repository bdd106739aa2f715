#include "learner/update/reference_policy.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"

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

ReferencePolicy::ReferencePolicy(const Weights& weights, TrainStep& train, bool keep_adapters,
                                 Digest digest)
    : weights_(Frozen(weights, keep_adapters)), train_(train), of_whole_(std::move(digest)) {}

void ReferencePolicy::Mix(const Weights& policy, double share) {
  constexpr int64_t kChunk = int64_t{1} << 22;
  PLUMB_CHECK(policy.sets().size() == weights_.sets().size());
  std::vector<std::byte> host;
  std::vector<float> from, to;
  for (size_t i = 0; i < weights_.sets().size(); ++i) {
    if (weights_.sets()[i] == policy.sets()[i]) continue;  // shared: it is not trained
    const FlatBuffer& source = policy.sets()[i]->flat;
    FlatBuffer& target = weights_.sets()[i]->flat;
    const DType type = target.dtype();
    for (int64_t at = 0; at < target.elements(); at += kChunk) {
      const auto n = static_cast<size_t>(std::min(kChunk, target.elements() - at));
      host.resize(n * ElementSize(type));
      from.resize(n);
      to.resize(n);
      source.CopyToHost(host, at);
      policy_model::ConvertToFloat(host.data(), type, from);
      target.CopyToHost(host, at);
      policy_model::ConvertToFloat(host.data(), type, to);
      for (size_t k = 0; k < n; ++k) {
        to[k] = static_cast<float>(share * static_cast<double>(from[k]) +
                                   (1 - share) * static_cast<double>(to[k]));
        if (type == DType::kBFloat16)
          reinterpret_cast<BFloat16*>(host.data())[k] = FromFloat<BFloat16>(to[k]);
        else reinterpret_cast<float*>(host.data())[k] = to[k];
      }
      target.CopyFromHost(host, at);
    }
  }
}

}  // namespace plumb::learner
