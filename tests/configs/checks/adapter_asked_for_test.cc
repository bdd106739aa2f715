// configs/checks/adapter_asked_for.h: options of an adapter are refused where there is none.
#include "configs/checks/adapter_asked_for.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "configs/recipe_text.h"

namespace plumb::configs {
namespace {

constexpr char kRecipe[] =
    "[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nname = \"a\"\nkind = \"answer\"\n";

std::string Refused(const std::string& text, const std::vector<std::string>& set) {
  try {
    ParseRecipe(text, "r.toml", set);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(AdapterAskedForTest, AnOptionOfAnAdapterNeedsOne) {
  for (const char* option :
       {"policy.rank=8", "policy.rank=32", "policy.lora_rank=8", "policy.alpha=16",
        "policy.targets=[\"q_proj\"]", "policy.targets=[\"all-linear\"]"}) {
    const std::string said = Refused(kRecipe, {option});
    EXPECT_NE(said.find(" is of an adapter: policy.adapter = \"lora\"; without one all weights"),
              std::string::npos)
        << option << ": " << said;
    EXPECT_EQ(Refused(kRecipe, {option, "policy.adapter=lora", "model.path=m"}), "") << option;
  }
  const std::string filed = Refused(std::string(kRecipe) + "[policy]\nrank = 8\n", {});
  EXPECT_NE(filed.find("r.toml:7: policy.rank is of an adapter"), std::string::npos) << filed;
}

TEST(AdapterAskedForTest, AWholeRecipeWithoutOneIsReadAgain) {
  const std::string whole = ToToml(ParseRecipe(kRecipe, "r.toml", {}).config);
  ASSERT_NE(whole.find("rank = 8"), std::string::npos);
  EXPECT_EQ(Refused(whole, {}), "");
  EXPECT_NE(Refused(whole, {"policy.rank=8"}).find("is of an adapter"), std::string::npos);
}

}  // namespace
}  // namespace plumb::configs
