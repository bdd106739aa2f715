// configs/recipe_text.h, configs/defaults.h, configs/value_text.h: the listing at any width, parts
// of it, what was changed, and a recipe with its reasons.
#include "configs/recipe_text.h"

#include <gtest/gtest.h>

#include <sstream>

#include "common/base/error.h"
#include "configs/defaults.h"
#include "configs/value_text.h"

namespace plumb::configs {
namespace {

constexpr char kRecipe[] = R"([run]
steps = 7
seed = 1
[data]
train = "arithmetic"
system_prompt = "Write  out every sum, digit by digit, from the right to the left, and mind the carry."
[[reward.parts]]
kind = "answer"
[algorithm]
name = "ppo"
kl_coef = 0.0
)";

Loaded Recipe() { return ParseRecipe(kRecipe, "folder/recipe.toml"); }

size_t Longest(const std::string& text) {
  size_t longest = 0;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) longest = std::max(longest, line.size());
  return longest;
}

// The text without line ends and indents, so that what was wrapped is found.
std::string Joined(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const char flat = c == '\n' ? ' ' : c;
    if (flat != ' ' || !out.ends_with(' ')) out += flat;
  }
  return out;
}

TEST(RecipeTextTest, TheListingFitsTheWidth) {
  const Loaded loaded = Recipe();
  for (const size_t width : {40u, 80u, 100u, 140u, 200u}) {
    const std::string list = List(loaded, {.width = width});
    EXPECT_LE(Longest(list), width);
    for (const char* part :
         {"run.steps", "folder/recipe.toml:2", "train steps of the whole run", "default of ppo",
          "local | processes | cluster;", "critic.value_clip"}) {
      EXPECT_NE(Joined(list).find(part), std::string::npos) << part << " at " << width;
    }
  }
  // A column of advice where there is room for one, else the advice below.
  EXPECT_NE(List(loaded, {.width = 80, .only = "run.steps"}).find("run.steps = 7 "),
            std::string::npos);
  EXPECT_NE(List(loaded, {.width = 200, .only = "run.steps"}).find("run.steps  7 "),
            std::string::npos)
      << List(loaded, {.width = 200, .only = "run.steps"});
}

TEST(RecipeTextTest, ASectionOrAKeyIsAskedFor) {
  const Loaded loaded = Recipe();
  const std::string run = List(loaded, {.only = "run"});
  EXPECT_NE(run.find("run.seed"), std::string::npos);
  EXPECT_EQ(run.find("model.layers"), std::string::npos);
  const std::string one = List(loaded, {.only = "optimizer.learning"});
  EXPECT_NE(one.find("optimizer.learning_rate"), std::string::npos);
  EXPECT_EQ(one.find("optimizer.beta1"), std::string::npos);
  try {
    List(loaded, {.only = "optimiser"});
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("did you mean 'optimizer'?"), std::string::npos)
        << e.what();
  }
}

TEST(RecipeTextTest, OnlyWhatDiffersFromTheAlgorithmsDefaults) {
  const std::string changed = List(Recipe(), {.width = 200, .changed = true});
  for (const char* key : {"run.steps", "data.train", "data.system_prompt", "reward.parts.0.kind",
                          "algorithm.name", "algorithm.kl_coef"}) {
    EXPECT_NE(changed.find(key), std::string::npos) << key << "\n" << changed;
  }
  for (const char* key : {"run.seed", "model.layers", "algorithm.dual_clip"})
    EXPECT_EQ(changed.find(key), std::string::npos) << key << "\n" << changed;
  EXPECT_EQ(List(Recipe(), {.only = "critic", .changed = true}), "");
  EXPECT_EQ(DefaultsOf(AlgorithmName::kPpo).algorithm.kl_coef, 0.05);
  EXPECT_EQ(DefaultsOf(AlgorithmName::kGrpo).algorithm.kl_coef, 0);
}

TEST(RecipeTextTest, ACommentedRecipeReadsBackAndSaysWhatEachLineIsFor) {
  const Config config = Recipe().config;
  const std::string text = CommentedToml(
      config,
      {"run.steps", "run.roles", "data.train", "data.system_prompt", "reward.parts.kind",
       "reward.parts.weight", "algorithm.name", "algorithm.kl_coef", "optimizer.eps"},
      {{"", "A recipe.\n plumb train it"}, {"reward", "What is good."}, {"critic", "Not shown."}});
  EXPECT_LE(Longest(text), 110u) << "a value may be longer than the width, comments are not";
  EXPECT_EQ(text.rfind("# A recipe.\n# plumb train it\n\n[run]\n", 0), 0u) << text;
  for (const char* part :
       {"steps = 7                         # steps: train steps of the whole run\n",
        "# local | processes | cluster; one process", "# What is good.\n[[reward.parts]]\n",
        "kind = \"answer\""}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
  for (const char* part : {"seed", "weight = ", "Not shown", "[critic]", "[model]"})
    EXPECT_EQ(text.find(part), std::string::npos) << part << "\n" << text;
  EXPECT_EQ(ToToml(ParseRecipe(text, "again.toml").config), ToToml(config))
      << "what is not written has its default";
}

TEST(RecipeTextTest, OnlyTheFirstPartOfTheRewardSaysWhatItsLinesAreFor) {
  Config config = Recipe().config;
  config.reward.parts.push_back({.name = "short", .kind = "length", .weight = 0.5});
  const std::string text =
      CommentedToml(config, {"reward.parts.name", "reward.parts.kind", "reward.parts.weight"}, {});
  EXPECT_NE(text.find("kind = \"answer\"                   # answer | format"), std::string::npos)
      << text;
  EXPECT_NE(text.find("\n[[reward.parts]]\nname = \"short\"\nkind = \"length\"\nweight = 0.5\n"),
            std::string::npos)
      << text;
}

TEST(RecipeTextTest, ValuesReadBackAsTheyWere) {
  EXPECT_EQ(Text(0.1), "0.1");
  EXPECT_EQ(Text(2.0), "2.0");
  EXPECT_EQ(Text(std::string("a\"\n")), "\"a\\\"\\n\"");
  EXPECT_EQ(Text(AlgorithmName::kSft), "\"sft\"");
  EXPECT_EQ(Text(std::map<std::string, std::string>{{"a", "b"}}), "{ \"a\" = \"b\" }");
}

}  // namespace
}  // namespace plumb::configs
