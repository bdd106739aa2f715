// configs/option_names.h: which options a name may mean.
#include "configs/option_names.h"

#include <gtest/gtest.h>

namespace plumb::configs {
namespace {

TEST(OptionNamesTest, ANameOrAnotherSystemsNameLeadsToItsOptions) {
  ASSERT_FALSE(OptionsNamed("lr").empty());
  EXPECT_EQ(OptionsNamed("lr").front(), "optimizer.learning_rate");
  EXPECT_EQ(OptionsNamed("lr"), OptionsNamed("learning_rate"));
  EXPECT_EQ(OptionsNamed("num_generations"),
            std::vector<std::string>{"rollout.samples_per_prompt"});
  EXPECT_TRUE(OptionsNamed("nothing_like_it").empty());
}

}  // namespace
}  // namespace plumb::configs
