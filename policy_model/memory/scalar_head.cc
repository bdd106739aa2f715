#include "policy_model/memory/scalar_head.h"

#include <cmath>
#include <cstddef>
#include <map>
#include <vector>

#include "common/base/error.h"
#include "common/base/rng.h"

namespace plumb::policy_model {
namespace {

constexpr uint64_t kScoreStream = 0x5c03;  // beside those of weights.cc

// [1, H] of Normal(0, 1 / sqrt(H + 1)) as the score of `out`.
void DrawScore(uint64_t seed, Weights& out) {
  const int64_t hidden = out.shape().hidden;
  RandomStream random(seed, kScoreStream << 32);
  const auto std = static_cast<float>(1 / std::sqrt(static_cast<double>(hidden) + 1));
  std::vector<float> values(static_cast<size_t>(hidden));
  for (float& v : values) v = std * random.NextNormal();
  std::vector<std::byte> rounded(values.size() * ElementSize(out.dtype()));
  ConvertFloat(values, out.dtype(), rounded.data());
  out.flat().CopyFromHost(rounded, out.table().score());
}

}  // namespace

// What a family writes of its layers would have to be made up for a model that has none, so a head
// alone is of Plumb's own family, with the policy's width and the form of its last norm.
Weights ValueHeadFor(const Weights& policy, uint64_t seed) {
  const ModelShape& of = policy.shape();
  const ModelShape shape = {.family = "plumb",
                            .layers = 0,
                            .hidden = of.hidden,
                            .heads = 1,
                            .kv_heads = 1,
                            .head_dim = 2,
                            .ffn = 1,
                            .vocab = 1,
                            .max_positions = of.max_positions,
                            .norm_eps = of.norm_eps,
                            .scalar_head = true,
                            .final_layer_norm = of.final_layer_norm};
  Weights out(shape, policy.stream(), policy.dtype());
  DrawScore(seed, out);
  return out;
}

Weights ScalarHeadFrom(const Weights& policy, uint64_t seed) {
  ModelShape shape = policy.shape();
  shape.scalar_head = true;
  const FlatBuffer& from = policy.flat();
  Weights out(shape, from.stream(), from.dtype());
  std::map<std::string, int64_t> places;
  for (const TensorEntry& e : policy.table().entries()) places[e.name] = e.offset;
  std::vector<std::byte> bytes;
  for (const TensorEntry& e : out.table().entries()) {
    if (e.name == "score") continue;
    const auto found = places.find(e.name);
    PLUMB_CHECK(found != places.end(), "trunk tensor " + e.name);
    bytes.resize(static_cast<size_t>(e.elements) * ElementSize(from.dtype()));
    from.CopyToHost(bytes, found->second);
    out.flat().CopyFromHost(bytes, e.offset);
  }
  DrawScore(seed, out);
  return out;
}

}  // namespace plumb::policy_model
