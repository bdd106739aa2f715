// The advantages of a batch of groups, as a recipe asks for them.
//
// Purpose: what of algorithm.advantage, advantage_std, std_over and reward_aggregation needs more
// than one group, over the formulas of returns.h:
//   std_over batch        r - mean of the group, divided by the std of all rewards of the batch
//   normalize_then_sum    each reward part r_p becomes (r_p - mean) / (std + eps) in its group; the
//                         weighted sum of them loses the batch's mean and is divided by its std
//                         (GDPO: Liu et al., "Group reward-Decoupled Normalization Policy
//                         Optimization", 2026). A part that an answer was not scored by says
//                         nothing about it.
//   greedy                the last member of a group is its baseline
//   batch, group_mean_batch_std   are whitened over tokens by who has them; here: the reward, and
//                         the reward minus the group's mean
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "configs/config.h"
#include "learner/algorithms/returns.h"

namespace plumb::learner {

// One group of G members.
struct GroupRewards {
  std::vector<double> rewards;
  std::vector<unsigned char> counts;
  std::vector<int64_t> lengths;  // scored tokens
  struct Part {
    double weight = 1;
    std::vector<double> values;  // [G]; NaN: not scored by it
  };
  std::map<std::string, Part> parts;  // filled where they are normalised each
};

// One a group, in order.
std::vector<GroupAdvantage> AdvantagesOf(const configs::AlgorithmConfig& options,
                                         std::span<const GroupRewards> groups);

// Advantages of which those of a whole batch are whitened over its tokens.
inline bool WhitenedOverTokens(configs::Advantage advantage) {
  return advantage == configs::Advantage::kBatch ||
         advantage == configs::Advantage::kGroupMeanBatchStd;
}

}  // namespace plumb::learner
