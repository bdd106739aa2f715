// Options that are one of a few names: one table each, for recipes, their text, errors and help.
#include "configs/choices.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "configs/config.h"
#include "configs/fields.h"
#include "configs/recipe_text.h"

namespace plumb::configs {
namespace {

constexpr char kMinimal[] = "[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = \"answer\"\n";

struct Option {
  std::string key, chosen;
  std::vector<std::string> names;
};

struct Collector {
  std::vector<Option>& options;
  std::string prefix;
  template <class Field>
  void operator()(const FieldInfo& info, Field& field) {
    if constexpr (Choice<Field>) {
      options.push_back(
          {prefix + info.name, NameOf(field), {kNames<Field>.begin(), kNames<Field>.end()}});
    } else if constexpr (std::is_same_v<Field, std::vector<RewardPartConfig>>) {
      Collector inner{options, prefix + info.name + ".0."};
      field.at(0).Visit(inner);
    }
  }
  template <class Table>
  void Section(const char* name, Table& table) {
    Collector inner{options, std::string(name) + "."};
    table.Visit(inner);
  }
};

std::vector<Option> OptionsOf(Config config) {
  std::vector<Option> options;
  Collector collector{options, ""};
  config.Visit(collector);
  return options;
}

std::string ChosenIn(const Config& config, const std::string& key) {
  for (const Option& option : OptionsOf(config)) {
    if (option.key == key) return option.chosen;
  }
  return "not there";
}

std::string ProblemsOf(const std::string& set) {
  try {
    ParseRecipe(kMinimal, "r.toml", {set});
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(ChoicesTest, EveryNameOfATableIsReadWrittenAndReadBackAsItself) {
  const std::vector<Option> options = OptionsOf(ParseRecipe(kMinimal, "r.toml").config);
  EXPECT_GE(options.size(), 23u);
  for (const Option& option : options) {
    EXPECT_EQ(std::set<std::string>(option.names.begin(), option.names.end()).size(),
              option.names.size())
        << option.key;
    for (const std::string& name : option.names) {
      // Contradictions with other options are not the question here.
      const std::string problems = ProblemsOf(option.key + "=\"" + name + "\"");
      EXPECT_EQ(problems.find("is not known"), std::string::npos) << problems;
      if (!problems.empty()) continue;
      const Config config =
          ParseRecipe(kMinimal, "r.toml", {option.key + "=\"" + name + "\""}).config;
      EXPECT_EQ(ChosenIn(config, option.key), name) << option.key;
      EXPECT_EQ(ChosenIn(ParseRecipe(ToToml(config), "again.toml").config, option.key), name)
          << option.key;
    }
  }
}

TEST(ChoicesTest, AnUnknownNameIsRefusedWithItsPlaceTheNearestAndAllThatThereAre) {
  for (const Option& option : OptionsOf(ParseRecipe(kMinimal, "r.toml").config)) {
    const std::string problems = ProblemsOf(option.key + "=\"zzzz\"");
    EXPECT_NE(problems.find("--set " + option.key + "=\"zzzz\": " + option.key +
                            " = \"zzzz\" is not known"),
              std::string::npos)
        << problems;
    for (const std::string& name : option.names)
      EXPECT_NE(problems.find(name), std::string::npos) << problems;
  }
  EXPECT_EQ(ProblemsOf("algorithm.aggregation=\"tokens\""),
            "--set algorithm.aggregation=\"tokens\": algorithm.aggregation = \"tokens\" is not "
            "known, did you mean 'token'? Use one of "
            "token, sequence, constant, sequence_sum");
  EXPECT_NE(
      ProblemsOf("algorithm.kl_estimator=3").find("has to be a string in quotes, not integer"),
      std::string::npos);
  EXPECT_LT(ProblemsOf("run.roles=\"" + std::string(100'000, 'x') + "\"").find("is not known"),
            200'000u);
}

TEST(ChoicesTest, TheTableOfOptionsListsTheNamesOfEach) {
  const Loaded loaded = ParseRecipe(kMinimal, "r.toml");
  const std::string table = List(loaded, {.width = 1000});
  EXPECT_NE(table.find("k1 | k2 | k3"), std::string::npos);
  EXPECT_NE(table.find("local | processes | cluster; one process"), std::string::npos);
  EXPECT_NE(table.find("openrlhf | slime; of http"), std::string::npos)
      << "an option that is not given has no name to list";
}

TEST(ChoicesTest, ANumberOutsideItsRangeIsRefusedWithTheRange) {
  for (const auto& [set, sentence] :
       {std::pair("run.keep_checkpoints=0", "run.keep_checkpoints = 0 has to be at least 1."),
        std::pair("optimizer.beta1=1.0", "optimizer.beta1 = 1.0 has to be in [0, 0.999999]."),
        std::pair("algorithm.gamma=0.0", "algorithm.gamma = 0.0 has to be in (0, 1]."),
        std::pair("run.stall_seconds=0", "run.stall_seconds = 0.0 has to be positive."),
        std::pair("algorithm.kl_coef=nan", "algorithm.kl_coef = nan has to be in [0, 1000000]."),
        std::pair("metrics.prometheus_port=65536", "has to be in [0, 65535].")}) {
    EXPECT_NE(ProblemsOf(set).find(sentence), std::string::npos) << ProblemsOf(set);
  }
  EXPECT_EQ(ProblemsOf("algorithm.gamma=1"), "");
}

}  // namespace
}  // namespace plumb::configs
