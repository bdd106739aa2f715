// What the tests of the text rules share: a rule's values on a group, and the numbers of the
// reference packages.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "reward/rules/rules.h"
#include "tests/reward/testing.h"

namespace plumb::reward {

inline std::vector<double> RuleValues(const configs::RewardPartConfig& part,
                                      const TrajectoryGroup& group) {
  std::vector<double> values;
  for (const PartScore& score : MakeRule(part)->Score(group, After(std::chrono::seconds(1)))) {
    EXPECT_TRUE(score.scored()) << score.reason;
    EXPECT_GE(score.value, 0) << part.kind;
    EXPECT_LE(score.value, 1) << part.kind;
    values.push_back(score.value);
  }
  EXPECT_EQ(values.size(), group.trajectories.size());
  return values;
}

inline double RuleValue(const std::string& kind, std::vector<std::string> args,
                        const std::string& completion, const std::string& truth = "",
                        const std::string& extra = "") {
  return RuleValues(TestPart(kind, "", std::move(args)), TestGroup({completion}, truth, extra))
      .at(0);
}

// What MakeRule() says when it refuses.
inline std::string Refusal(const configs::RewardPartConfig& part) {
  try {
    MakeRule(part);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("'" + part.name + "'"), std::string::npos)
        << error.what();
    return error.what();
  }
  ADD_FAILURE() << part.kind << " was accepted";
  return "";
}

// tests/golden/text_metrics.json, made by text_metrics.py from rouge-score and sacrebleu.
inline const nlohmann::json& TextMetrics() {
  static const nlohmann::json golden = [] {
    std::ifstream file(plumb::testing::SourcePath("tests/golden/text_metrics.json"));
    EXPECT_TRUE(file.good()) << "tests/golden/text_metrics.json is missing";
    return nlohmann::json::parse(file);
  }();
  return golden;
}

}  // namespace plumb::reward
