// configs/foreign/foreign_meaning.h: verl's switches of the KL have verl's meaning.
#include "configs/foreign/foreign_meaning.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/base/error.h"
#include "configs/config.h"

namespace plumb::configs {
namespace {

constexpr char kHead[] =
    "[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = \"answer\"\n[algorithm]\nname = \"";

Loaded With(const char* algorithm, const std::vector<std::string>& overrides) {
  return ParseRecipe(std::string(kHead) + algorithm + "\"\n", "r.toml", overrides);
}

TEST(ForeignMeaningTest, TheSwitchesOfTheKlHaveVerlsMeaning) {
  const AlgorithmConfig loss = With("grpo", {"actor_rollout_ref.actor.use_kl_loss=True",
                                             "actor_rollout_ref.actor.kl_loss_coef=0.01",
                                             "algorithm.use_kl_in_reward=False"})
                                   .config.algorithm;
  EXPECT_EQ(loss.kl_placement, KlPlacement::kLoss);
  EXPECT_EQ(loss.kl_coef, 0.01);

  const AlgorithmConfig reward = With("grpo", {"algorithm.use_kl_in_reward=true"}).config.algorithm;
  EXPECT_EQ(reward.kl_placement, KlPlacement::kReward);
  EXPECT_EQ(reward.kl_estimator, KlEstimator::kK1);
  EXPECT_EQ(reward.kl_coef, 0.001) << "a switch that is on and does nothing says nothing";

  const Loaded off = With("ppo", {"algorithm.use_kl_in_reward=false"});
  EXPECT_EQ(off.config.algorithm.kl_coef, 0) << "PPO's own default is not asked for";
  EXPECT_NE(off.origins.at("algorithm.kl_coef").find("use_kl_in_reward"), std::string::npos);

  const AlgorithmConfig kept = With("ppo", {"algorithm.kl_placement=reward",
                                            "algorithm.kl_coef=0.2", "algorithm.use_kl_loss=false"})
                                   .config.algorithm;
  EXPECT_EQ(kept.kl_coef, 0.2) << "the KL in the reward is another one";
}

TEST(ForeignMeaningTest, BothSwitchesAreRefused) {
  try {
    With("grpo", {"algorithm.use_kl_loss=true", "algorithm.use_kl_in_reward=true"});
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("algorithm.kl_placement = \"loss\" or \"reward\""),
              std::string::npos)
        << e.what();
  }
}

TEST(ForeignMeaningTest, NothingGivenIsNothingDone) {
  Config config;
  Origins origins;
  std::vector<std::string> problems;
  ResolveForeignNames({}, {}, origins, problems, config);
  EXPECT_TRUE(origins.empty());
  EXPECT_TRUE(problems.empty());
}

}  // namespace
}  // namespace plumb::configs
