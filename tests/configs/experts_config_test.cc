// [experts]: what its options cannot be together.
#include <gtest/gtest.h>

#include "common/base/error.h"
#include "configs/config.h"

namespace plumb::configs {
namespace {

const std::string kRecipe =
    "[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nname = \"a\"\nkind = \"answer\"\n"
    "[experts]\ncount = 8\nper_token = 2\nwidths = [\"16\", \"32\"]\n";

std::string Refusal(const std::vector<std::string>& sets) {
  try {
    ParseRecipe(kRecipe, "recipe", sets);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(ExpertsConfigTest, ContradictionsAreNamed) {
  EXPECT_EQ(Refusal({}), "");
  const auto names = [](const std::vector<std::string>& sets, const std::string& says) {
    EXPECT_NE(Refusal(sets).find(says), std::string::npos) << says << ": " << Refusal(sets);
  };
  names({"experts.per_token=9"}, "experts.per_token is larger");
  names({"model.path=somewhere"}, "experts.count is of a new model");
  names({"experts.first_dense=4"}, "experts.first_dense leaves no layer");
  names({"experts.groups=3"}, "experts.groups has to divide");
  names({"experts.groups=0"}, "experts.groups");
  names({"experts.groups=4", "experts.groups_per_token=5"}, "experts.groups_per_token is larger");
  names({"experts.groups=8"}, "hold fewer than experts.per_token");
  names({"experts.shared_gate=true"}, "experts.shared_gate weighs shared experts");
  names({"experts.capacity_noise=0.5"}, "experts.capacity_noise varies a capacity");
  names({"experts.widths=[\"16\",\"wide\"]"}, "\"wide\", which is no width");
  EXPECT_EQ(
      Refusal({"experts.groups=4", "experts.groups_per_token=2", "experts.shared=1",
               "experts.shared_gate=true", "experts.capacity=1.25", "experts.capacity_noise=0.1"}),
      "");
  // Without experts the others would have no effect.
  names({"experts.count=0", "experts.per_token=9"}, "set experts.count");
}

}  // namespace
}  // namespace plumb::configs
