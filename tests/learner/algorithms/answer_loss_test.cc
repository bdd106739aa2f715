// learner/algorithms/answer_loss.h and off_policy.h against TRL 1.16's trainers
// (tests/golden/grpo_family.py), and returns.h's leave-one-out; loss and gradient, relative 1e-9.
#include "learner/algorithms/answer_loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "learner/algorithms/gae.h"
#include "learner/algorithms/grpo.h"
#include "learner/algorithms/off_policy.h"
#include "learner/algorithms/returns.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;
using Rows = std::vector<std::vector<double>>;

Json Golden() {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/grpo_family.json");
  EXPECT_TRUE(file.good());
  return Json::parse(file);
}

void ExpectClose(double got, double want, const std::string& what) {
  EXPECT_NEAR(got, want, 1e-9 * std::max(1.0, std::abs(want))) << what;
}

struct Method {
  Objective objective = Objective::kClip;
  RatioLevel ratio = RatioLevel::kToken;
  Aggregation aggregation = Aggregation::kToken;
};

Method MethodOf(const std::string& name) {
  if (name == "grpo") return {.aggregation = Aggregation::kSequence};
  if (name == "dr_grpo") return {.aggregation = Aggregation::kConstant};
  if (name.starts_with("gspo"))
    return {.ratio = RatioLevel::kSequence, .aggregation = Aggregation::kSequence};
  if (name == "cispo") return {.objective = Objective::kCispo};
  if (name.starts_with("rloo"))
    return {.ratio = RatioLevel::kProduct, .aggregation = Aggregation::kSequence};
  return {};  // bnpo and dapo: mean over tokens
}

TEST(AnswerLossTest, EqualsTrlLossAndGradient) {
  const Json golden = Golden();
  ASSERT_GE(golden["losses"].size(), 11u);
  for (const Json& c : golden["losses"]) {
    const std::string name = c["name"];
    const Method method = MethodOf(name);
    // TRL's CISPO names the upper bound itself, ours its distance from 1.
    const ClipOptions clip{
        .low = c["low"],
        .high = name == "cispo" ? c["high"].get<double>() - 1 : c["high"].get<double>(),
        .dual = c["delta"]};
    const Rows logps = c["logps"], old = c["old"], gradient = c["gradient"];
    int64_t tokens = 0;
    for (const auto& row : logps) tokens += static_cast<int64_t>(row.size());
    double loss = 0;
    int64_t clipped = 0;
    for (size_t i = 0; i < logps.size(); ++i) {
      const size_t n = logps[i].size();
      std::vector<double> weight(n), derivative(n, std::nan(""));
      for (size_t k = 0; k < n; ++k) {
        weight[k] = TokenWeight(method.aggregation, static_cast<int64_t>(n),
                                static_cast<int64_t>(logps.size()), tokens, c["max_tokens"]);
        if (c.contains("importance")) weight[k] *= c["importance"][i][k].get<double>();
      }
      const std::vector<double> advantage(n, c["advantages"][i].get<double>());
      const auto out = AnswerLoss<double>(
          {.objective = method.objective, .level = method.ratio, .clip = clip},
          {.advantage = advantage, .logprob = logps[i], .old_logprob = old[i], .weight = weight},
          derivative);
      loss += out.value;
      clipped += out.clipped;
      for (size_t k = 0; k < n; ++k)
        ExpectClose(derivative[k], gradient[i][k], name + " gradient " + std::to_string(i));
    }
    ExpectClose(loss, c["loss"], name);
    if (name == "gspo" || name == "dapo_dual" || name == "rloo") {
      EXPECT_GT(clipped, 0) << name << " clips nothing: a weak case";
    }
  }
}

TEST(AnswerLossTest, DerivativesMatchFiniteDifferences) {
  const std::vector<double> old = {-1.0, -0.4, -2.2, -0.9}, weight = {0.1, 0.2, 0.3, 0.15},
                            advantage(4, 0.7);
  for (const Objective objective : {Objective::kClip, Objective::kCispo}) {
    for (const RatioLevel level :
         {RatioLevel::kToken, RatioLevel::kSequence, RatioLevel::kProduct}) {
      if (objective == Objective::kCispo && level != RatioLevel::kToken) continue;
      std::vector<double> lp = {-0.97, -0.45, -2.15, -0.91}, derivative(4), unused(4);
      const ClipOptions clip{.low = 0.2, .high = 0.2};
      const AnswerLossOptions options{.objective = objective, .level = level, .clip = clip};
      const AnswerTokens<double> tokens{
          .advantage = advantage, .logprob = lp, .old_logprob = old, .weight = weight};
      AnswerLoss<double>(options, tokens, derivative);
      for (size_t k = 0; k < 4; ++k) {
        const double h = 1e-6, at = lp[k];
        double side[2];
        for (const int s : {0, 1}) {
          lp[k] = at + (s ? h : -h);
          // CISPO's weight carries no gradient: it is held where it was.
          if (objective == Objective::kCispo)
            side[s] = -weight[k] * std::exp(at - old[k]) * advantage[k] * lp[k];
          else side[s] = AnswerLoss<double>(options, tokens, unused).value;
        }
        lp[k] = at;
        EXPECT_NEAR(derivative[k], (side[1] - side[0]) / (2 * h), 1e-7)
            << static_cast<int>(level) << " " << k;
      }
    }
  }
}

TEST(AnswerLossTest, ExtremeRatiosStayFinite) {
  for (const RatioLevel level : {RatioLevel::kToken, RatioLevel::kSequence, RatioLevel::kProduct}) {
    std::vector<double> derivative(2);
    const std::vector<double> lp = {-1e-3, -700}, old = {-900, -1e-3}, weight = {0.5, 0.5},
                              advantage = {-3, -3};
    const auto out = AnswerLoss<double>(
        {.level = level, .clip = {.low = 0.2, .high = 0.2}},
        {.advantage = advantage, .logprob = lp, .old_logprob = old, .weight = weight}, derivative);
    EXPECT_TRUE(std::isfinite(out.value));
    for (const double d : derivative) EXPECT_TRUE(std::isfinite(d));
  }
}

TEST(OffPolicyTest, WeightsEqualTrl) {
  const Json golden = Golden();
  ASSERT_EQ(golden["off_policy"].size(), 4u);
  int64_t zero = 0, cut = 0;
  for (const Json& c : golden["off_policy"]) {
    const std::string mode = c["mode"];
    const OffPolicyOptions<double> options{
        .mode = mode == "token_truncate"      ? OffPolicy::kTokenTruncate
                : mode == "token_mask"        ? OffPolicy::kTokenMask
                : mode == "sequence_truncate" ? OffPolicy::kSequenceTruncate
                                              : OffPolicy::kSequenceMask,
        .floor = c["floor"],
        .cap = c["cap"]};
    const Rows proximal = c["proximal"], behaviour = c["behaviour"], want = c["weight"];
    for (size_t i = 0; i < want.size(); ++i) {
      std::vector<double> weight(want[i].size(), -1);
      OffPolicyWeights<double>(options, proximal[i], behaviour[i], weight);
      for (size_t k = 0; k < weight.size(); ++k) {
        ExpectClose(weight[k], want[i][k], mode);
        zero += weight[k] == 0;
        cut += weight[k] == options.cap;
      }
    }
  }
  EXPECT_GT(zero, 0);
  EXPECT_GT(cut, 0);
  std::vector<double> one(2, 0);
  OffPolicyWeights<double>({.mode = OffPolicy::kOff}, std::vector<double>{-1, -9},
                           std::vector<double>{-5, -1}, one);
  EXPECT_EQ(one, (std::vector<double>{1, 1}));
}

TEST(ReturnsTest, LeaveOneOutIsTheOthersMean) {
  const Json golden = Golden()["leave_one_out"];
  const std::vector<double> rewards = golden["rewards"], want = golden["advantages"];
  const auto got = LeaveOneOutAdvantages(rewards, std::vector<unsigned char>(rewards.size(), 1));
  for (size_t i = 0; i < want.size(); ++i) ExpectClose(got.advantage[i], want[i], "leave one out");
  // What does not count is not an "other".
  const auto few =
      LeaveOneOutAdvantages(std::vector<double>{1, 100, 0}, std::vector<unsigned char>{1, 0, 1});
  EXPECT_EQ(few.advantage, (std::vector<double>{1, 0, -1}));
  EXPECT_EQ(
      LeaveOneOutAdvantages(std::vector<double>{3}, std::vector<unsigned char>{1}).advantage[0], 0);
}

// What Grpo does for advantage = "batch", on the golden's numbers.
TEST(ReturnsTest, BatchWhiteningOfRewardToGo) {
  const Json golden = Golden()["batch_whitened"];
  Rows kl = golden["kl"], rows;
  const Rows want = golden["advantages"];
  for (size_t i = 0; i < kl.size(); ++i) {
    rows.emplace_back(kl[i].size(), golden["rewards"][i].get<double>());
    double to_go = 0;
    for (size_t k = kl[i].size(); k-- > 0;) {
      to_go += kl[i][k];
      rows[i][k] -= golden["kl_coef"].get<double>() * to_go;
    }
  }
  Whiten<double>(rows);
  for (size_t i = 0; i < want.size(); ++i) {
    for (size_t k = 0; k < want[i].size(); ++k) ExpectClose(rows[i][k], want[i][k], "whitened");
  }
}

}  // namespace
}  // namespace plumb::learner
