#include "learner/algorithms/logprob_gate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "common/base/error.h"

namespace plumb::learner {
namespace {

constexpr configs::Products kAsDtype = configs::Products::kDType;

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
  EXPECT_NO_THROW(few.Check(0.05, "grpo", configs::KvType::kModel, kAsDtype));
  LogprobGate many;  // the same mean, now for certain
  for (int i = 0; i < 400; ++i) {
    for (double d : kRounding) many.Add(-1.0, -1.0 - d);
  }
  EXPECT_THROW(many.Check(0.05, "grpo", configs::KvType::kModel, kAsDtype), Error);
  EXPECT_NO_THROW(many.Check(0.06, "grpo", configs::KvType::kModel, kAsDtype));
  EXPECT_NO_THROW(many.Check(0, "grpo", configs::KvType::kModel, kAsDtype));
}

TEST(LogprobGateTest, AnotherPolicyIsFoundInSixteenTokens) {
  LogprobGate gate;
  for (int i = 0; i < 16; ++i) gate.Add(-1.0 - 0.2 * i, -3.0 + 0.1 * i);
  try {
    gate.Check(0.05, "ppo", configs::KvType::kModel, kAsDtype);
    FAIL() << "passed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kConflict);
    EXPECT_NE(std::string(error.what()).find("over 16 tokens"), std::string::npos) << error.what();
  }
}

// A gate that closes over rounded keys and values names them, before what is seldom the cause.
TEST(LogprobGateTest, NamesRoundedKeysAndValuesFirst) {
  for (const auto& [type, name] : {std::pair(configs::KvType::kModel, ""),
                                   {configs::KvType::kInt8, "int8"},
                                   {configs::KvType::kFp8, "fp8"},
                                   {configs::KvType::kInt4, "int4"}}) {
    LogprobGate gate;
    for (int i = 0; i < 16; ++i) gate.Add(-1.0, -3.0);
    try {
      gate.Check(0.05, "grpo", type, kAsDtype);
      FAIL() << "passed";
    } catch (const Error& error) {
      const std::string what = error.what();
      const size_t kept = what.find("rollout.kv_type = \"" + std::string(name) + "\" rounds"),
                   others = what.find("(other weights, dtype or sampling filters)");
      EXPECT_NE(others, std::string::npos) << what;
      if (type == configs::KvType::kModel) EXPECT_EQ(what.find("kv_type"), std::string::npos);
      else EXPECT_LT(kept, others) << what;
    }
  }
}

// That is no matter of two policies: the exit code is that of numbers that are not finite.
TEST(LogprobGateTest, NothingThatIsNotFinitePasses) {
  for (double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    for (const auto products : {kAsDtype, configs::Products::kFp16}) {
      LogprobGate gate;
      gate.Add(-1.0, bad);
      EXPECT_NO_THROW(gate.Check(0, "grpo", configs::KvType::kModel, products));
      try {
        gate.Check(0.05, "grpo", configs::KvType::kModel, products);
        FAIL() << "passed";
      } catch (const Error& error) {
        const std::string what = error.what();
        EXPECT_EQ(error.code(), ErrorCode::kNonFinite) << what;
        EXPECT_EQ(what.find("other weights"), std::string::npos) << what;
        EXPECT_EQ(what.find("model.products = \"fp16\" holds no activation above 65504") !=
                      std::string::npos,
                  products == configs::Products::kFp16)
            << what;
      }
    }
  }
}

}  // namespace
}  // namespace plumb::learner
