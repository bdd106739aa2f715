#include "learner/update/expert_balance.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "common/base/error.h"
#include "policy_model/families/experts/exact_floats.h"

namespace plumb::learner {

using policy_model::FlatBuffer;
using policy_model::LayerLoad;

ExpertBalance::ExpertBalance(const configs::ExpertsConfig& options, uint64_t seed,
                             policy_model::Transformer& transformer, policy_model::Weights& weights,
                             Optimizer& optimizer)
    : rate_(options.bias_rate),
      transformer_(transformer),
      weights_(weights),
      optimizer_(optimizer) {
  const policy_model::ExpertsShape& experts = weights.shape().experts;
  const auto refuse = [](const std::string& option, const std::string& why) {
    throw Error(ErrorCode::kInvalidArgument, why, "experts." + option);
  };
  if (experts.count == 0) {
    for (const auto& [name, value] : {std::pair{"bias_rate", options.bias_rate},
                                      {"aux_coef", options.aux_coef},
                                      {"z_coef", options.z_coef},
                                      {"capacity", options.capacity}}) {
      if (value > 0) refuse(name, "is set, but the model has no experts");
    }
    return;
  }
  if (rate_ > 0 && !experts.bias)
    refuse("bias_rate", "is set, but models of the family " + weights.shape().family +
                            " have no balancing bias");
  if (rate_ > 0 && !weights.base().trained)
    refuse("bias_rate", "is set, but the base is not trained under policy.adapter");
  if (rate_ > 0 && optimizer.sharded() && weights.dtype() != DType::kFloat32)
    refuse("bias_rate", "is set, but the ranks keep a part of the masters each: set run.zero = 0");
  transformer.SetRouting({.aux_coef = options.aux_coef,
                          .z_coef = options.z_coef,
                          .capacity = options.capacity,
                          .capacity_noise = options.capacity_noise,
                          .seed = seed});
}

void ExpertBalance::Begin(Phase phase, int64_t step) {
  constexpr uint64_t kPassesAStep = uint64_t{1} << 20, kWarmStart = uint64_t{1} << 62;
  transformer_.SetRoutingPass((phase == Phase::kWarmStart ? kWarmStart : 0) +
                              static_cast<uint64_t>(step) * kPassesAStep);
  transformer_.TakeLoad();
}

void ExpertBalance::MoveBiases(std::span<const LayerLoad> load) {
  for (Optimizer::SetState& state : optimizer_.sets()) {
    if (state.set->adapter) continue;
    FlatBuffer& flat = state.set->flat;
    for (const LayerLoad& layer : load) {
      const size_t count = layer.tokens.size();
      const int64_t at = weights_.table().layer(layer.layer).router_bias;
      int64_t all = 0;
      for (const int64_t n : layer.tokens) all += n;
      std::vector<float> parts(policy_model::kExactParts * count), bias(count);
      std::vector<std::byte> raw(parts.size() * ElementSize(flat.dtype()));
      flat.CopyToHost(raw, at);
      policy_model::ConvertToFloat(raw.data(), flat.dtype(), parts);
      policy_model::JoinExact(parts, bias);
      for (size_t e = 0; e < count; ++e) {
        const int64_t over = layer.tokens[e] * static_cast<int64_t>(count) - all;
        if (over != 0) bias[e] += static_cast<float>(over > 0 ? -rate_ : rate_);
      }
      policy_model::SplitExact(bias, parts);
      policy_model::ConvertFloat(parts, flat.dtype(), raw.data());
      flat.CopyFromHost(raw, at);
      // The optimizer's copy, from which the next update writes the weights.
      const int64_t place = policy_model::PlaceOf(state.runs, at);
      if (state.has_own_master() && place >= 0)
        optimizer_.WriteKept(state, state.own_master, place,
                             std::as_bytes(std::span<const float>(parts)));
    }
  }
}

std::vector<LayerLoad> ExpertBalance::TakeLoad() {
  std::vector<LayerLoad> load = transformer_.TakeLoad();
  Ranks* ranks = optimizer_.ranks();
  if (!ranks) return load;
  const auto add = [&](auto& number) {
    number = static_cast<std::remove_reference_t<decltype(number)>>(
        ranks->Sum(static_cast<double>(number)));
  };
  for (LayerLoad& layer : load) {
    for (int64_t& tokens : layer.tokens) add(tokens);
    add(layer.rows), add(layer.dropped), add(layer.given), add(layer.otherwise);
    add(layer.entropy), add(layer.aux), add(layer.z);
  }
  return load;
}

void ExpertBalance::End(std::map<std::string, double>& metrics) {
  const std::vector<LayerLoad> load = TakeLoad();
  if (load.empty() || load[0].rows == 0) return;
  if (rate_ > 0 && optimizer_.counters().skipped_in_a_row == 0) MoveBiases(load);
  double worst = 0, entropy = 0, aux = 0, z = 0, dropped = 0, given = 0, otherwise = 0;
  for (const LayerLoad& layer : load) {
    const auto rows = static_cast<double>(layer.rows);
    const std::string name = "moe/layer_" + std::to_string(layer.layer) + "/";
    metrics[name + "expert_load_max_over_mean"] = layer.MaxOverMean();
    metrics[name + "router_entropy"] = layer.entropy / rows;
    worst = std::max(worst, layer.MaxOverMean());
    entropy += layer.entropy / rows;
    aux += layer.aux / rows;
    z += layer.z / rows;
    dropped += static_cast<double>(layer.dropped);
    given += static_cast<double>(layer.given);
    otherwise += static_cast<double>(layer.otherwise);
  }
  const auto layers = static_cast<double>(load.size());
  metrics["moe/expert_load_max_over_mean"] = worst;
  metrics["moe/router_entropy"] = entropy / layers;
  metrics["moe/aux_loss"] = aux / layers;
  metrics["moe/z_loss"] = z / layers;
  metrics["moe/dropped"] = dropped;
  if (given > 0) metrics["moe/replay_differs"] = otherwise / given;
}

}  // namespace plumb::learner
