// Answers written by hand under reward parts: means, errors, pass@k, votes, failures.
#include "run/models/answer_eval.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/base/error.h"

namespace plumb::run {
namespace {

configs::RewardPartConfig Part(const std::string& name, const std::string& kind,
                               double weight = 1) {
  configs::RewardPartConfig part;
  part.name = name, part.kind = kind, part.weight = weight;
  return part;
}

TrajectoryGroup Group(uint64_t row, const std::string& truth,
                      const std::vector<std::string>& answers) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  TrajectoryGroup group;
  group.lease.prompt.row = row;
  group.lease.prompt.text = "1+1=";
  group.lease.prompt.ground_truth = truth;
  group.lease.prompt.tokens = tokenizer->Encode("<bos>1+1=");
  group.lease.num_samples = static_cast<int32_t>(answers.size());
  for (const std::string& answer : answers) {
    const auto sample = static_cast<uint32_t>(group.trajectories.size());
    group.trajectories.push_back(AsTrajectory(
        group.lease.prompt, {.sample = sample, .tokens = tokenizer->Encode(answer)}, *tokenizer));
  }
  return group;
}

TEST(AnswerEval, CountsMeansPassesAndVotes) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  configs::RewardConfig rewards;
  configs::RewardPartConfig length = Part("short", "length", 0.5);
  length.target_tokens = 1, length.max_tokens = 9;
  rewards.parts = {Part("correct", "answer"), length};
  AnswerEval eval(rewards, "", *tokenizer, 4);
  std::vector<TrajectoryGroup> groups;
  const auto answer = [](const std::string& n) { return "<answer>" + n + "</answer>"; };
  groups.push_back(Group(0, "2", {answer("2"), answer("3"), answer("2"), answer("4")}));
  groups.push_back(Group(1, "5", {answer("1"), answer("1"), answer("5"), answer("7")}));
  groups.push_back(Group(2, "9", {"8", "8", "8", answer("9")}));
  std::vector<nlohmann::ordered_json> lines;
  eval.Add(groups, [&](const nlohmann::ordered_json& line) { lines.push_back(line); });
  const AnswerTally& t = eval.tally();
  EXPECT_EQ(t.prompts, 3);
  EXPECT_EQ(t.answers, 12);
  EXPECT_EQ(t.correct, 4);
  EXPECT_EQ(t.solved_prompts, 3);
  EXPECT_EQ(t.unscored, 0);
  EXPECT_EQ(t.unmarked, 3) << "three of the third prompt's";
  ASSERT_EQ(PassCounts(4), (std::vector<int64_t>{1, 2, 4}));
  EXPECT_NEAR(EstimateOf(t.pass[0]).mean, 4.0 / 12, 1e-12);
  EXPECT_NEAR(EstimateOf(t.pass[1]).mean, (5.0 / 6 + 0.5 + 0.5) / 3, 1e-12);
  EXPECT_EQ(EstimateOf(t.pass[2]).mean, 1);
  EXPECT_TRUE(t.votes);
  EXPECT_EQ(t.voted, 3);
  EXPECT_EQ(t.voted_right, 2) << "of the second prompt 1 has the most votes and is wrong; of the "
                                 "third only one answer says anything";
  const Estimate correct = EstimateOf(t.parts[0].prompts);
  EXPECT_NEAR(correct.mean, 1.0 / 3, 1e-12);
  EXPECT_EQ(correct.n, 3) << "prompts, not answers";
  ASSERT_EQ(lines.size(), 12u);
  EXPECT_EQ(lines[0]["correct"], true);
  EXPECT_EQ(lines[1]["parts"]["correct"], 0.0);
  EXPECT_NEAR(lines[0]["reward"].get<double>(), 1 + 0.5 * lines[0]["parts"]["short"].get<double>(),
              1e-12);
  double sum = 0;
  for (const auto& line : lines) sum += line["reward"].get<double>();
  EXPECT_NEAR(EstimateOf(t.rewards).mean, sum / 12, 1e-12);
}

TEST(AnswerEval, AFailureIsCountedAndNeverAZero) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  configs::RewardConfig rewards;
  configs::RewardPartConfig length = Part("short", "length");
  length.target_tokens = 1, length.max_tokens = 9;
  rewards.parts = {length, Part("correct", "answer")};
  AnswerEval eval(rewards, "short", *tokenizer, 1);
  std::vector<TrajectoryGroup> groups;
  groups.push_back(Group(0, "", {"1"}));  // nothing to compare with
  groups.push_back(Group(1, "", {"2"}));
  groups[1].trajectories[0].finish = FinishReason::kAborted;
  groups[1].trajectories[0].unscored_reason = "no room";
  eval.Add(groups, {});
  const AnswerTally& t = eval.tally();
  EXPECT_TRUE(t.parts[1].failed_on_all());
  EXPECT_EQ(t.parts[1].failed, 1) << "what was never generated was never asked about";
  EXPECT_EQ(t.parts[1].failures.at("reported"), 1);
  EXPECT_TRUE(t.parts[1].prompts.empty());
  EXPECT_FALSE(t.parts[0].failed_on_all());
  EXPECT_EQ(t.parts[0].scored, 1);
  EXPECT_EQ(t.unscored, 2);
  EXPECT_EQ(t.aborted, 1);
  EXPECT_EQ(t.why_aborted, "no room");
  EXPECT_NE(t.why_unscored.find("correct"), std::string::npos) << t.why_unscored;
  EXPECT_TRUE(t.rewards.empty());
  EXPECT_EQ(t.correct, 1) << "the part that is asked about had an answer";
  EXPECT_FALSE(t.votes);
}

TEST(AnswerEval, TheSuccessPartHasToBeThere) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  configs::RewardConfig rewards;
  rewards.parts = {Part("correct", "answer")};
  EXPECT_THROW(AnswerEval(rewards, "corect", *tokenizer, 1), Error);
  EXPECT_THROW(AnswerEval({}, "", *tokenizer, 1), Error);
}

}  // namespace
}  // namespace plumb::run
