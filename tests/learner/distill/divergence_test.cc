// learner/distill/divergence.h against TRL's, torch's and verl's functions
// (tests/golden/distill.py, peer_functions.py), in float64 down to the logits.
#include "learner/distill/divergence.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "tests/testing/paths.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;
using Doubles = std::vector<double>;

Doubles LogSoftmax(const Doubles& logits, double temperature) {
  double top = -1e300, sum = 0;
  for (const double z : logits) top = std::max(top, z / temperature);
  for (const double z : logits) sum += std::exp(z / temperature - top);
  Doubles out;
  for (const double z : logits) out.push_back(z / temperature - top - std::log(sum));
  return out;
}

Json Golden(const std::string& name) {
  std::ifstream file(plumb::testing::SourcePath("tests/golden/" + name));
  EXPECT_TRUE(file.good()) << "tests/golden/" << name << " is missing";
  return Json::parse(file);
}

void ExpectTheSame(const Json& cases) {
  for (const Json& c : cases) {
    const auto kind = c.at("kind").get<std::string>();
    const double beta = c.at("beta"), temperature = c.at("temperature");
    const auto ids = c.at("ids").get<std::vector<size_t>>();
    const auto of_teacher = c.at("teacher").get<Doubles>();
    const Doubles of_student = LogSoftmax(c.at("logits").get<Doubles>(), temperature);
    const std::string what =
        kind + " " + std::to_string(beta) + " of " + std::to_string(ids.size());
    Doubles teacher, student, slope(ids.size(), 0.0);
    for (const size_t id : ids) {
      teacher.push_back(of_teacher[id]);
      student.push_back(of_student[id]);
    }
    double value = 0;
    if (kind == "forward") value = ForwardTopK<double>(teacher, student, slope);
    if (kind == "boundary") value = DecisionBoundary<double>(teacher, student, 1.0, slope);
    if (kind == "jsd")
      value = GeneralisedJsd<double>(beta, ids.size() < of_teacher.size(), teacher, student, slope);
    EXPECT_NEAR(value, c.at("loss").get<double>(), 1e-9) << what;
    double sum = 0;
    for (const double s : slope) sum += s;
    Doubles gradient;
    for (const double lp : of_student) gradient.push_back(-sum * std::exp(lp) / temperature);
    for (size_t k = 0; k < ids.size(); ++k) gradient[ids[k]] += slope[k] / temperature;
    const auto expected = c.at("gradient").get<Doubles>();
    for (size_t j = 0; j < expected.size(); ++j)
      EXPECT_NEAR(gradient[j], expected[j], 1e-9) << what << " logit " << j;
  }
}

TEST(DivergenceTest, LossAndGradientAreTheFrameworks) {
  const Json golden = Golden("distill.json");
  ASSERT_GE(golden.at("cases").size(), 60u);
  ExpectTheSame(golden["cases"]);
}

// verl 0.9.1's own function (tests/golden/peer_functions.py).
TEST(DivergenceTest, ForwardTopKIsVerls) {
  const Json golden = Golden("peer_functions.json")["forward_top_k"];
  ASSERT_EQ(golden.at("cases").size(), 6u);
  ExpectTheSame(golden["cases"]);
}

TEST(DivergenceTest, AnEqualStudentIsAtNoDistance) {
  const Doubles both = {std::log(0.5), std::log(0.3)};
  for (const double beta : {0.0, 0.3, 1.0}) {
    Doubles slope(2, 9.0);
    EXPECT_NEAR(GeneralisedJsd<double>(beta, true, both, both, slope), 0, 1e-12);
    // By the logits: what is the same for all tokens moves nothing.
    const double sum = slope[0] + slope[1];
    EXPECT_NEAR(slope[0] - sum * 0.5, 0, 1e-12);
    EXPECT_NEAR(slope[1] - sum * 0.3, 0, 1e-12);
  }
  Doubles slope(2, 0.0);
  EXPECT_EQ(DecisionBoundary<double>(both, both, 1.0, slope), 0);
  EXPECT_EQ(slope, Doubles(2, 0.0));
}

TEST(DivergenceTest, WhatRoundingLeavesOfTheRestPullsAtNothing) {
  const std::vector<double> teacher = {0.0}, student = {std::log(0.5)};  // all of it on one token
  Doubles slope(1);
  const double value = GeneralisedJsd<double>(0.0, true, teacher, student, slope);
  EXPECT_NEAR(value, std::log(2.0), 1e-6);
  EXPECT_NEAR(slope[0], -1, 1e-12);
}

TEST(DivergenceTest, FeaturesAreMeanSquares) {
  const Doubles teacher = {1, 2}, student = {2, 0};
  Doubles slope(2);
  EXPECT_EQ(FeatureDistance<double>(teacher, student, slope), 2.5);
  EXPECT_EQ(slope, (Doubles{1, -2}));
}

}  // namespace
}  // namespace plumb::learner
