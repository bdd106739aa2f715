// Advantages and off-policy weights against TRL 1.16's and verl 0.9.1's own code in float64, to
// 1e-9 (tests/golden/peer_functions.py); objectives: policy_objectives_test.cc.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "configs/config.h"
#include "learner/algorithms/advantages.h"
#include "learner/algorithms/gae.h"
#include "learner/algorithms/off_policy.h"
#include "learner/algorithms/returns.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;
using Rows = std::vector<std::vector<double>>;

const Json& Golden() {
  static const Json* const golden = [] {
    std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/peer_functions.json");
    return new Json(Json::parse(file));
  }();
  return *golden;
}

void ExpectClose(double got, double want, const std::string& what) {
  EXPECT_NEAR(got, want, 1e-9 * std::max(1.0, std::abs(want))) << what;
}

TEST(PeerAdvantagesTest, EqualTrlOverAGroup) {
  const Json& c = Golden()["trl_group"];
  const auto size = c["size"].get<size_t>();
  std::vector<GroupRewards> groups(c["rewards"].size() / size);
  for (size_t row = 0; row < c["rewards"].size(); ++row) {
    const Json& reward = c["rewards"][row];
    groups[row / size].rewards.push_back(reward.is_null() ? 0 : reward.get<double>());
    groups[row / size].counts.push_back(!reward.is_null());
    groups[row / size].lengths.push_back(1);
  }
  for (const char* name : {"group", "none", "leave_one_out"}) {
    configs::AlgorithmConfig options;
    options.advantage_std = std::string(name) == "group";
    if (std::string(name) == "leave_one_out") options.advantage = configs::Advantage::kLeaveOneOut;
    const std::vector<GroupAdvantage> got = AdvantagesOf(options, groups);
    for (size_t row = 0; row < c["rewards"].size(); ++row)
      ExpectClose(got[row / size].advantage[row % size], c[name][row], name);
  }
}

TEST(PeerAdvantagesTest, EqualVerl) {
  const Json& c = Golden()["verl_groups"];
  std::vector<GroupRewards> groups;
  for (size_t g = 0; g < c["rewards"].size(); ++g)
    groups.push_back({.rewards = c["rewards"][g],
                      .counts = std::vector<unsigned char>(c["rewards"][g].size(), 1),
                      .lengths = c["lengths"][g]});
  for (const char* name : {"group", "group_plain", "leave_one_out"}) {
    configs::AlgorithmConfig options;
    options.advantage_eps = 1e-6;  // verl's
    options.advantage_std = std::string(name) == "group";
    if (std::string(name) == "leave_one_out") options.advantage = configs::Advantage::kLeaveOneOut;
    const std::vector<GroupAdvantage> got = AdvantagesOf(options, groups);
    for (size_t g = 0; g < groups.size(); ++g) {
      for (size_t i = 0; i < groups[g].rewards.size(); ++i)
        ExpectClose(got[g].advantage[i], c[name][g][i], name);
    }
  }
}

// What Grpo does for advantage = "batch": the reward minus the KL still to come, whitened over all
// tokens.
TEST(PeerAdvantagesTest, ReinforcePlusPlusEqualsVerl) {
  const Json& c = Golden()["verl_groups"];
  const Rows kl = c["kl"];
  Rows rows;
  for (size_t g = 0; g < c["rewards"].size(); ++g) {
    for (size_t i = 0; i < c["rewards"][g].size(); ++i) {
      const std::vector<double>& mine = kl[rows.size()];
      std::vector<double> row(mine.size(), c["rewards"][g][i].get<double>());
      double to_go = 0;
      for (size_t k = mine.size(); k-- > 0;) {
        to_go += mine[k];
        row[k] -= c["kl_coef"].get<double>() * to_go;
      }
      rows.push_back(std::move(row));
    }
  }
  Whiten<double>(rows);
  const Rows want = c["reinforce_plus_plus"];
  ASSERT_EQ(rows.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    for (size_t k = 0; k < want[i].size(); ++k)
      ExpectClose(rows[i][k], want[i][k], "answer " + std::to_string(i));
  }
}

TEST(PeerWeightsTest, EqualVerl) {
  int64_t zero = 0, cut = 0, between = 0;
  for (const Json& c : Golden()["weights"]) {
    const auto mode = configs::FromName<OffPolicy>(c["mode"].get<std::string>());
    ASSERT_TRUE(mode.has_value()) << c["mode"];
    const OffPolicyOptions<double> options{.mode = *mode, .floor = c["floor"], .cap = c["cap"]};
    const Rows proximal = c["proximal"], behaviour = c["behaviour"], want = c["weight"];
    for (size_t i = 0; i < want.size(); ++i) {
      std::vector<double> weight(want[i].size(), -1);
      OffPolicyWeights<double>(options, proximal[i], behaviour[i], weight);
      for (size_t k = 0; k < weight.size(); ++k) {
        ExpectClose(weight[k], want[i][k], c["mode"]);
        zero += want[i][k] == 0;
        cut += want[i][k] == options.cap;
        between += want[i][k] != 0 && want[i][k] != options.cap;
      }
    }
  }
  EXPECT_GT(zero, 4);
  EXPECT_GT(cut, 4);
  EXPECT_GT(between, 4);
}

}  // namespace
}  // namespace plumb::learner
