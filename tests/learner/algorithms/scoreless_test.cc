// Batches without scores: what they count as, and the error that names the cause
// (learner/algorithms/scoreless.h, batch_metrics.h).
#include "learner/algorithms/scoreless.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <tuple>

#include "common/record/abort_reason.h"
#include "learner/algorithms/batch_metrics.h"
#include "learner/loop/learner_loop.h"

namespace plumb::learner {
namespace {

const std::string kNan = std::string(kNonFiniteLogits) + " after token 0 of the answer";

// One letter an answer: 1 and 0 are rewards, u has no score, a was refused by the engine, n given
// up for its logits, e for its environment, A refused and scored all the same, as an older Plumb
// did. Sample i has i + 1 tokens behind a prompt of 2, or none.
TrajectoryGroup Group(const std::string& answers) {
  TrajectoryGroup group;
  group.lease.num_samples = static_cast<int32_t>(answers.size());
  for (const char c : answers) {
    Trajectory t;
    t.sample = static_cast<uint32_t>(group.trajectories.size());
    const bool generated = c == '0' || c == '1' || c == 'u';
    const int32_t n = 2 + (generated ? static_cast<int32_t>(t.sample) + 1 : 0);
    t.tokens.assign(static_cast<size_t>(n), 3);
    t.segments = {{Origin::kPrompt, 0, 2}, {Origin::kPolicy, 2, n}};
    if (!generated) t.finish = FinishReason::kAborted;
    t.scored = c == '0' || c == '1' || c == 'A';
    t.reward = c == '1' || c == 'A';
    if (t.scored) t.rewards = {{.name = "correct", .value = t.reward}};
    if (c == 'u') t.unscored_reason = "reward 'judge': timeout";
    if (c == 'a') t.unscored_reason = "prompt of 7 tokens + 60 new ones is too long";
    if (c == 'e') t.unscored_reason = std::string(kEnvironmentFailed) + "program (x.py): left";
    if (c == 'n') t.unscored_reason = kNan;
    group.trajectories.push_back(t);
  }
  return group;
}

std::vector<TrajectoryGroup> Groups(const std::vector<std::string>& all) {
  std::vector<TrajectoryGroup> groups;
  for (const std::string& answers : all) groups.push_back(Group(answers));
  return groups;
}

std::map<std::string, double> Metrics(const std::vector<std::string>& all) {
  std::map<std::string, double> metrics;
  AddBatchMetrics(Groups(all), metrics);
  return metrics;
}

TEST(BatchMetricsTest, EveryAnswerAndGroupCountsOnce) {
  auto m = Metrics({"1010", "1u1a", "uuuu", "0000"});
  EXPECT_EQ(m.at("reward/unscored"), 2 + 4);
  EXPECT_EQ(m.at("reward/dropped_groups"), 1);
  EXPECT_EQ(m.at("reward/zero_std_groups"), 2) << "what was dropped has no spread to speak of";
  EXPECT_DOUBLE_EQ(m.at("reward/mean"), 4.0 / 10);
  EXPECT_DOUBLE_EQ(m.at("reward/std"), std::sqrt(0.4 - 0.16));
  EXPECT_DOUBLE_EQ(m.at("reward/correct/mean"), 4.0 / 10);
  EXPECT_DOUBLE_EQ(m.at("response_length/mean"), (10 + 6 + 10 + 10) / 15.0)
      << "of all that were generated";
  EXPECT_EQ(m.at("response_length/min"), 1);

  m = Metrics({"uuu", "uuu"});  // nothing was scored: no number that reads as a measurement
  EXPECT_EQ(m.count("reward/mean") + m.count("reward/std") + m.count("reward/correct/mean"), 0u);
  EXPECT_EQ(m.at("reward/unscored"), 6);
  EXPECT_EQ(m.at("reward/zero_std_groups"), 0);
  EXPECT_EQ(m.at("reward/dropped_groups"), 2);
  EXPECT_EQ(m.at("response_length/mean"), 2);

  m = Metrics({"aaA"});
  EXPECT_EQ(m.at("reward/unscored"), 3);
  EXPECT_EQ(
      m.count("reward/mean") + m.count("response_length/mean") + m.count("response_length/clipped"),
      0u);

  TrajectoryGroup marker;  // of a store of before
  marker.lease.num_samples = 4;
  m.clear();
  AddBatchMetrics(std::span(&marker, 1), m);
  EXPECT_EQ(m.at("reward/unscored"), 4);
  EXPECT_EQ(m.at("reward/dropped_groups"), 1);
}

TEST(LearnerLoopTest, AnEvaluationCountsWhatWasNeverGeneratedAsNotSolved) {
  const auto groups = Groups({"1", "1", "A", "u", "n"});
  const EvalResult result = Summarise(groups, "correct", 3);
  EXPECT_EQ(result.answers, 5);
  EXPECT_EQ(result.unscored, 3);
  EXPECT_EQ(result.aborted, 2);
  EXPECT_DOUBLE_EQ(result.accuracy, 0.4);
  EXPECT_DOUBLE_EQ(result.reward, 1);
  EXPECT_EQ(result.reason, "reward 'judge': timeout");
}

template <class Call>
std::pair<ErrorCode, std::string> Thrown(const Call& call) {
  try {
    call();
  } catch (const RewardFailed& e) {
    return {ErrorCode::kUnavailable, std::string("reward failed: ") + e.what()};
  } catch (const Error& e) {
    return {e.code(), e.what()};
  }
  return {ErrorCode::kInvalidArgument, ""};
}

bool Has(const std::string& text, const std::string& piece) {
  return text.find(piece) != std::string::npos;
}

TEST(ScorelessTest, AnEvaluationWithoutOneAnswerIsAnErrorThatNamesTheCause) {
  const auto check = [](const std::vector<std::string>& all) {
    return Thrown([&] { CheckGenerated(LossesOf(Groups(all)), "the evaluation of version 3"); });
  };
  EXPECT_EQ(check({"aa", "a0"}).second, "");
  EXPECT_EQ(check({"uu"}).second, "") << "they were generated";
  const auto [code, said] = check({"aa", "aA"});
  EXPECT_EQ(code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(
      Has(said, "not one answer of the evaluation of version 3 was generated: prompt of 7 tokens"))
      << said;
  EXPECT_FALSE(Has(said, "mend")) << said;
  EXPECT_EQ(check({"ea", "ae"}).first, ErrorCode::kInvalidArgument) << "not the environment alone";
  const std::string environment = check({"ee", "ee"}).second;
  EXPECT_TRUE(Has(environment, "reward failed: ") &&
              Has(environment,
                  "the evaluation of version 3 was generated, since each conversation "
                  "failed in its environment: program (x.py): left. Mend") &&
              Has(environment, "plumb env test"))
      << environment;
  const auto spoilt = check({"nn", "nn"});
  EXPECT_EQ(spoilt.first, ErrorCode::kNonFinite);
  EXPECT_TRUE(Has(spoilt.second, "logits are not finite") &&
              Has(spoilt.second, "optimizer.learning_rate"))
      << spoilt.second;
}

TEST(ScorelessTest, ThreeStepsInARowEndTheRun) {
  const auto last = [](const std::vector<std::vector<std::string>>& steps) {
    ScorelessSteps scoreless;
    int64_t step = 0;
    for (; step + 1 < std::ssize(steps); ++step)
      scoreless.Add(Groups(steps[static_cast<size_t>(step)]), step);
    return Thrown([&] { scoreless.Add(Groups(steps.back()), step); });
  };
  EXPECT_EQ(last({{"uu"}, {"uu"}}).second, "");
  EXPECT_EQ(last({{"uu"}, {"uu"}, {"1u"}, {"uu"}, {"uu"}}).second, "") << "not in a row";
  auto [code, said] = last({{"uu"}, {"uu"}, {"aa", "uu"}});
  EXPECT_TRUE(Has(said, "reward failed: step 2: not one answer of the last 3 steps got a score"))
      << said;
  EXPECT_TRUE(Has(said, "reward 'judge': timeout") && Has(said, "plumb reward test")) << said;
  std::tie(code, said) = last({{"uu"}, {"aa"}, {"aa"}});
  EXPECT_EQ(code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(Has(said, "was generated: prompt of 7 tokens")) << said;
  EXPECT_FALSE(Has(said, "reward")) << said;
  std::tie(code, said) = last({{"ee"}, {"uu"}, {"ee"}});
  EXPECT_TRUE(Has(said, "reward failed: actor: not one answer of the last 3 steps") &&
              Has(said, "failed in its environment: program (x.py): left"))
      << said;
  // Weights do not get better by sampling from them again.
  std::tie(code, said) = last({{"nn", "nn"}});
  EXPECT_EQ(code, ErrorCode::kNonFinite);
  EXPECT_TRUE(Has(said, "not one answer of step 0 was generated")) << said;
}

}  // namespace
}  // namespace plumb::learner
