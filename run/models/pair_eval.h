// How well a model tells the better of two answers: preference pairs under a language model's
// log-probs, under DPO's implicit reward against a reference, or under a reward model's head.
//
// Purpose: `plumb eval --pairs`. Pairs become tokens as training makes them
// (run/session/preference_data.h), so that a number here is one of a training run. Of equal values
// a pair counts as half right.
//   without reference  the sum of an answer's log-probs, and their mean a token beside it: a sum
//                      favours the shorter answer
//   with reference     beta ((chosen - ref_chosen) - (rejected - ref_rejected)), Rafailov et al.
//                      2023, and its loss
//   reward model       the head's number at the end of the whole sequence
// Thread safety: one thread. Errors: those of files and models; kInvalidArgument for a reference
// with another vocabulary, kNonFinite for values that are no numbers.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/record/preference.h"
#include "run/models/answer_stats.h"
#include "run/session/model_folder.h"

namespace plumb::run {

struct PairEvalOptions {
  std::string model, pairs;
  std::string reference;  // a model folder; "": none
  double beta = 0.1;
  std::map<std::string, std::string> map;
  int64_t limit = 0;  // rows; 0: all
  int64_t batch_tokens = 4096;
  ModelOptions options;
};

// One pair: log-probs summed over each answer, or a reward model's scores.
struct PairValues {
  uint64_t row = 0;
  double chosen = 0, rejected = 0;
  double ref_chosen = 0, ref_rejected = 0;  // with a reference
  int64_t chosen_tokens = 0, rejected_tokens = 0;
};

struct PairEvalReport {
  bool reward_model = false, reference = false;
  double beta = 0;
  std::vector<std::string> notes;  // of the import
  std::vector<PairValues> pairs;
  std::string
      left_out;  // "rows: pairs 2 of 3 used (1 untokenizable), the first: ..."; "": all used
  bool stopped = false;  // the rest of the pairs has no values

  double RewardOf(const PairValues& p, bool chosen) const;  // what is compared
  nlohmann::ordered_json Line(const PairValues& pair) const;
  nlohmann::ordered_json Json() const;
  std::string Text() const;
};

// `progress` is told how many of how many sequences are scored (twice the pairs; with a reference
// four times) and says whether to go on.
PairEvalReport EvaluatePairs(const PairEvalOptions& options,
                             const std::function<bool(int64_t done, int64_t all)>& progress);

}  // namespace plumb::run
