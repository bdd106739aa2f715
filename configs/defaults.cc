#include "configs/defaults.h"

#include <string>
#include <type_traits>

namespace plumb::configs {
namespace {

// What the recipe says stays. The origin names the algorithm.
struct AlgorithmDefaults {
  Origins& origins;
  template <class Value>
  void Set(const AlgorithmConfig& a, const char* key, Value& field,
           std::type_identity_t<Value> value) {
    if (origins.emplace(std::string("algorithm.") + key, "default of " + NameOf(a.name)).second)
      field = value;
  }
  void Apply(AlgorithmConfig& a) {
    const auto kl_in_reward = [&] {
      Set(a, "kl_estimator", a.kl_estimator, KlEstimator::kK1);
      Set(a, "kl_placement", a.kl_placement, KlPlacement::kReward);
    };
    switch (a.name) {
      case AlgorithmName::kPpo:
        Set(a, "dual_clip", a.dual_clip, 3.0);
        Set(a, "entropy_coef", a.entropy_coef, 0.01);
        Set(a, "reward_clip", a.reward_clip, 10.0);
        Set(a, "kl_coef", a.kl_coef, 0.05);
        return kl_in_reward();
      case AlgorithmName::kDrGrpo:
        Set(a, "advantage_std", a.advantage_std, false);
        return Set(a, "aggregation", a.aggregation, Aggregation::kConstant);
      case AlgorithmName::kDapo:
        Set(a, "clip_high", a.clip_high, 0.28);
        Set(a, "dual_clip", a.dual_clip, 10.0);
        return Set(a, "refill_rounds", a.refill_rounds, 9);  // ten rounds in all
      case AlgorithmName::kGspo:
        Set(a, "ratio", a.ratio, RatioLevel::kSequence);
        Set(a, "aggregation", a.aggregation, Aggregation::kSequence);
        Set(a, "clip_low", a.clip_low, 3e-4);
        return Set(a, "clip_high", a.clip_high, 4e-4);
      case AlgorithmName::kRloo:
        Set(a, "advantage", a.advantage, Advantage::kLeaveOneOut);
        Set(a, "ratio", a.ratio, RatioLevel::kProduct);
        Set(a, "aggregation", a.aggregation, Aggregation::kSequence);
        Set(a, "kl_coef", a.kl_coef, 0.05);
        return kl_in_reward();
      case AlgorithmName::kReinforcePlusPlus:
        Set(a, "advantage", a.advantage, Advantage::kBatch);
        Set(a, "skip_equal_groups", a.skip_equal_groups, false);
        Set(a, "kl_coef", a.kl_coef, 0.05);
        return kl_in_reward();
      case AlgorithmName::kCispo:
        Set(a, "objective", a.objective, Objective::kCispo);
        Set(a, "clip_low", a.clip_low, 1.0);
        return Set(a, "clip_high", a.clip_high, 4.0);
      case AlgorithmName::kGrpo:
      case AlgorithmName::kDpo:
      case AlgorithmName::kRewardModel:
      case AlgorithmName::kSft: return;
    }
  }
};

}  // namespace

void ApplyAlgorithmDefaults(AlgorithmConfig& algorithm, Origins& origins) {
  AlgorithmDefaults{origins}.Apply(algorithm);
}

Config DefaultsOf(AlgorithmName algorithm) {
  Config config;
  Origins none;
  config.algorithm.name = algorithm;
  ApplyAlgorithmDefaults(config.algorithm, none);
  return config;
}

}  // namespace plumb::configs
