#include "learner/algorithms/logprob_gate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "common/base/error.h"

namespace plumb::learner {
namespace {

// Differences as bfloat16 makes them on a small model: most of some hundredths, one of a few
// tenths.
constexpr double kRounding[] = {0.01, 0.02, 0.03, 0.01, 0.04, 0.02, 0.31, 0.05,
                                0.06, 0.02, 0.11, 0.03, 0.07, 0.02, 0.05, 0.03};

TEST(LogprobGateTest, CountsWhatItSaw) {
  LogprobGate gate;
  EXPECT_EQ(gate.mean(), 0);
  gate.Add(-1.0, -1.5);
  EXPECT_TRUE(std::isinf(gate.standard_error()));
  gate.Add(-2.0, -1.0);
  gate.Add(-0.5, -0.5);
  EXPECT_DOUBLE_EQ(gate.mean(), 0.5);
  EXPECT_DOUBLE_EQ(gate.max(), 1.0);
  EXPECT_EQ(gate.tokens(), 3);
  // standard deviation 0.5 over three tokens
  EXPECT_NEAR(gate.standard_error(), 0.5 / std::sqrt(3.0), 1e-12);
}

TEST(LogprobGateTest, AFewRoundedTokensPassAndManyDoNot) {
  LogprobGate few;
  for (double d : kRounding) few.Add(-1.0, -1.0 - d);
  ASSERT_GT(few.mean(), 0.05);
  EXPECT_NO_THROW(few.Check(0.05, "grpo"));
  LogprobGate many;  // the same mean, now for certain
  for (int i = 0; i < 400; ++i) {
    for (double d : kRounding) many.Add(-1.0, -1.0 - d);
  }
  EXPECT_THROW(many.Check(0.05, "grpo"), Error);
  EXPECT_NO_THROW(many.Check(0.06, "grpo"));
  EXPECT_NO_THROW(many.Check(0, "grpo"));
}

TEST(LogprobGateTest, AnotherPolicyIsFoundInSixteenTokens) {
  LogprobGate gate;
  for (int i = 0; i < 16; ++i) gate.Add(-1.0 - 0.2 * i, -3.0 + 0.1 * i);
  try {
    gate.Check(0.05, "ppo");
    FAIL() << "passed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kConflict);
    EXPECT_NE(std::string(error.what()).find("over 16 tokens"), std::string::npos) << error.what();
  }
}

TEST(LogprobGateTest, NothingThatIsNotFinitePasses) {
  for (double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    LogprobGate gate;
    gate.Add(-1.0, bad);
    EXPECT_THROW(gate.Check(0.05, "grpo"), Error);
  }
}

}  // namespace
}  // namespace plumb::learner
