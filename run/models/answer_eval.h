// Answers of a model to prompts, under the reward parts of a recipe: means with their errors, the
// share that is right, pass@k, a majority vote.
//
// Purpose: the evaluation of `plumb eval`. An answer is right where the success part's value is at
// least 0.5; one without a score is not right, and counted. The mean of a part is over prompts, of
// each prompt's scored answers.
// The majority vote needs to know what an answer says: of success parts of kind `answer` and
// `math` alone.
// Thread safety: one thread calls; parts that wait for other processes are asked side by side.
// Ownership: borrows the model's tokenizer. Errors: those of the recipe's parts; a part that
// failed is counted, not thrown.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "configs/config.h"
#include "reward/scorer.h"
#include "run/models/answer_stats.h"
#include "run/models/answering.h"

namespace plumb::run {

struct PartTally {
  std::string name;
  double weight = 0;
  std::vector<double> prompts;  // mean of each prompt's scored answers
  int64_t scored = 0, skipped = 0, failed = 0;
  std::map<std::string, int64_t> failures;  // by kind
  std::string first_failure;
  bool failed_on_all() const { return failed > 0 && scored + skipped == 0; }
};

struct AnswerTally {
  int64_t prompts = 0, answers = 0, correct = 0, solved_prompts = 0;
  int64_t clipped = 0, unscored = 0, aborted = 0, tokens = 0;
  std::string why_unscored, why_aborted;  // of the first of each
  std::vector<PartTally> parts;
  std::vector<double> rewards;            // of each prompt: mean of its scored answers
  std::vector<double> shares;             // of each prompt: right answers
  std::vector<std::vector<double>> pass;  // [k of PassCounts][prompt]
  bool votes = false;                     // a majority can be told
  int64_t voted = 0, voted_right = 0;     // prompts with an answer at all; of those, right ones
  int64_t unmarked = 0;  // answers in which the rule of `answer` and `math` finds none
  double share() const {
    return answers ? static_cast<double>(correct) / static_cast<double>(answers) : 0;
  }
};

// 1, 2, 4, ... and n itself.
std::vector<int64_t> PassCounts(int64_t n);

class AnswerEval {
 public:
  // `success`: the part that says what is right; "": the first. kNotFound where there is none of
  // that name.
  // `end_tokens`: texts of the model's, which stand at the end of an answer's tokens.
  AnswerEval(const configs::RewardConfig& rewards, const std::string& success,
             const Tokenizer& tokenizer, int64_t samples, std::vector<std::string> end_tokens = {});

  // Prompts' answers, all of each prompt's. `each` sees every answer once it is scored: its line of
  // a file for people and programs, with the text as exports have it, without an end token. Lines
  // come in the order of `groups`.
  using Each = std::function<void(const nlohmann::ordered_json&)>;
  void Add(std::vector<TrajectoryGroup> groups, const Each& each);

  const AnswerTally& tally() const { return tally_; }
  const std::string& success_part() const { return tally_.parts[success_].name; }
  // Groups that are worth gathering before Add: as many as are scored side by side.
  size_t together() const { return static_cast<size_t>(scorer_.SideBySide()); }

 private:
  using Parts = std::vector<reward::GroupScorer::PartResult>;
  std::vector<Parts> ScoreAll(std::span<const TrajectoryGroup> groups);
  void AddOne(TrajectoryGroup& group, Parts& parts, const Each& each);
  void Vote(const TrajectoryGroup& group, const std::vector<bool>& right);

  reward::GroupScorer scorer_;
  const std::vector<int64_t> pass_counts_;
  const std::vector<std::string> end_tokens_;
  size_t success_ = 0;  // of the parts
  // what an answer says, and whether two say the same; empty: nobody knows
  std::function<std::string(const std::string&)> says_;
  std::function<bool(const std::string&, const std::string&)> same_;
  AnswerTally tally_;
};

}  // namespace plumb::run
