#include "run/models/answer_eval.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

#include "common/base/error.h"
#include "replay/datasets/rows/end_token.h"
#include "reward/maths/answer.h"
#include "reward/maths/math_answer.h"
#include "reward/models/reward_model.h"

namespace plumb::run {
namespace {

using OrderedJson = nlohmann::ordered_json;
using reward::PartScore;

constexpr double kRight = 0.5;

std::string Reason(const PartScore& score) {
  return std::string(reward::FailureName(score.failure)) + ": " + score.reason;
}

std::string What(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  }
}

bool HasArg(const configs::RewardPartConfig& part, const std::string& arg) {
  return std::find(part.args.begin(), part.args.end(), arg) != part.args.end();
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

}  // namespace

std::vector<int64_t> PassCounts(int64_t n) {
  std::vector<int64_t> counts;
  for (int64_t k = 1; k < n; k *= 2) counts.push_back(k);
  counts.push_back(n);
  return counts;
}

AnswerEval::AnswerEval(const configs::RewardConfig& rewards, const std::string& success,
                       const Tokenizer& tokenizer, int64_t samples,
                       std::vector<std::string> end_tokens)
    : scorer_(rewards, reward::WithModelParts(tokenizer)),
      pass_counts_(PassCounts(samples)),
      end_tokens_(std::move(end_tokens)) {
  std::string names;
  for (const auto& [name, digest] : scorer_.Digests()) {
    names += (names.empty() ? "" : ", ") + name;
    if (name == success) success_ = tally_.parts.size();
    tally_.parts.push_back({.name = name, .weight = rewards.parts[tally_.parts.size()].weight});
  }
  if (tally_.parts.empty())
    throw Error(ErrorCode::kInvalidArgument, "there are no reward parts", "reward.parts");
  if (!success.empty() && tally_.parts[success_].name != success) {
    throw Error(ErrorCode::kNotFound, "is '" + success + "'; the reward parts: " + names,
                "eval.success_part");
  }
  tally_.pass.resize(pass_counts_.size());
  const configs::RewardPartConfig& part = rewards.parts[success_];
  const bool last = HasArg(part, "fallback=last_number");
  if (part.kind == "answer") {
    says_ = [fallback = last ? reward::Fallback::kLastNumber
                             : reward::Fallback::kNone](const std::string& text) {
      return reward::ExtractAnswer(text, fallback).value_or("");
    };
    same_ = [](const std::string& a, const std::string& b) { return reward::SameAnswer(a, b); };
  } else if (part.kind == "math") {
    const auto fallback = last                                 ? reward::MathFallback::kLastNumber
                          : HasArg(part, "fallback=last_math") ? reward::MathFallback::kLastMath
                                                               : reward::MathFallback::kNone;
    says_ = [fallback](const std::string& text) {
      return reward::ExtractMath(text, fallback).value_or("");
    };
    same_ = [](const std::string& a, const std::string& b) { return reward::SameMath(a, b); };
  }
  tally_.votes = samples > 1 && says_ != nullptr;
}

std::vector<AnswerEval::Parts> AnswerEval::ScoreAll(std::span<const TrajectoryGroup> groups) {
  std::vector<Parts> out(groups.size());
  const size_t parallel = std::min(together(), groups.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i; (i = next.fetch_add(1)) < groups.size();) out[i] = scorer_.ScoreParts(groups[i]);
  };
  std::vector<std::jthread> others;
  for (size_t t = 1; t < parallel; ++t) others.emplace_back(work);
  work();
  others.clear();  // waits
  return out;
}

void AnswerEval::Add(std::vector<TrajectoryGroup> groups, const Each& each) {
  std::vector<Parts> parts = ScoreAll(groups);
  for (size_t i = 0; i < groups.size(); ++i) AddOne(groups[i], parts[i], each);
}

void AnswerEval::AddOne(TrajectoryGroup& group, Parts& parts, const Each& each) {
  const size_t count = group.trajectories.size();
  for (auto& result : parts) {  // a part that is no longer called failed, too
    if (!result.error) continue;
    result.scores.assign(count,
                         PartScore::Failed(reward::Failure::kQuarantined, What(result.error)));
    result.error = nullptr;
  }
  for (size_t p = 0; p < parts.size(); ++p) {
    PartTally& tally = tally_.parts[p];
    std::vector<double> values;
    for (size_t i = 0; i < count && i < parts[p].scores.size(); ++i) {
      const PartScore& score = parts[p].scores[i];
      if (group.trajectories[i].finish == FinishReason::kAborted) continue;  // nobody was asked
      if (!score.scored()) {
        ++tally.failed;
        ++tally.failures[std::string(reward::FailureName(score.failure))];
        if (tally.first_failure.empty()) tally.first_failure = Reason(score);
      } else if (score.skipped) {
        ++tally.skipped;
      } else {
        ++tally.scored;
        values.push_back(score.value);
      }
    }
    if (!values.empty()) tally.prompts.push_back(Mean(values));
  }
  scorer_.Combine(group, parts);
  std::vector<double> rewards;
  std::vector<bool> right(count, false);
  int64_t correct = 0;
  for (size_t i = 0; i < count; ++i) {
    const Trajectory& t = group.trajectories[i];
    const bool aborted = t.finish == FinishReason::kAborted;
    const PartScore* success = aborted ? nullptr : &parts[success_].scores[i];
    right[i] = success && success->scored() && !success->skipped && success->value >= kRight;
    ++tally_.answers;
    correct += right[i];
    tally_.clipped += t.finish == FinishReason::kLength;
    tally_.unmarked += says_ && !aborted && says_(t.completion).empty();
    tally_.aborted += aborted;
    tally_.unscored += !t.scored;
    tally_.tokens += t.policy_length();
    std::string& first = aborted ? tally_.why_aborted : tally_.why_unscored;
    if (!t.scored && first.empty()) first = t.unscored_reason;
    if (t.scored) rewards.push_back(t.reward);
    if (!each) continue;
    OrderedJson line = {{"row", group.lease.prompt.row}, {"sample", t.sample}};
    const Prompt& prompt = group.lease.prompt;
    line["prompt"] = prompt.messages.empty() ? OrderedJson(prompt.text)
                                             : OrderedJson::parse(reward::PromptText(prompt));
    line["completion"] = replay::Said(t, end_tokens_);
    line["finish"] = FinishName(t.finish);
    line["ground_truth"] =
        prompt.ground_truth.empty() ? OrderedJson(nullptr) : OrderedJson(prompt.ground_truth);
    line["correct"] = static_cast<bool>(right[i]);
    line["reward"] = t.scored ? OrderedJson(t.reward) : OrderedJson(nullptr);
    for (size_t p = 0; p < parts.size() && !aborted; ++p) {
      const PartScore& score = parts[p].scores[i];
      line["parts"][tally_.parts[p].name] =
          score.scored() && !score.skipped ? OrderedJson(score.value) : OrderedJson(nullptr);
      for (const auto& [name, value] : score.details)
        line["parts"][tally_.parts[p].name + "." + name] = value;
    }
    if (!t.scored) line["unscored_reason"] = t.unscored_reason;
    each(line);
  }
  const auto n = static_cast<int64_t>(count);
  ++tally_.prompts;
  tally_.correct += correct;
  tally_.solved_prompts += correct > 0;
  tally_.shares.push_back(static_cast<double>(correct) / static_cast<double>(n));
  if (!rewards.empty()) tally_.rewards.push_back(Mean(rewards));
  for (size_t k = 0; k < pass_counts_.size(); ++k)
    tally_.pass[k].push_back(PassAtK(n, correct, pass_counts_[k]));
  if (tally_.votes) Vote(group, right);
}

void AnswerEval::Vote(const TrajectoryGroup& group, const std::vector<bool>& right) {
  std::vector<std::string> said;
  for (const Trajectory& t : group.trajectories)
    said.push_back(t.finish == FinishReason::kAborted ? "" : says_(t.completion));
  const int64_t winner = MajorityOf(said, same_);
  if (winner < 0) return;
  ++tally_.voted;
  tally_.voted_right += right[static_cast<size_t>(winner)];
}

}  // namespace plumb::run
