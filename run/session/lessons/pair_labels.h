// Which answer of a pair is the better one, said by reward parts instead of by the rows.
//
// Purpose: [[reward.parts]] in a recipe of algorithm.name = "dpo": a trained reward model (or a
// perplexity) scores both answers of every pair that is trained on, and the one with the higher sum
// of weight * value is the chosen one. Held-out pairs keep what their rows say, so that what is
// measured does not hang on the labels that were trained on. Pairs of equal scores are left out and
// counted.
// Thread safety: one call at a time on a scorer. Errors: kUnavailable with the reason where an
// answer got no score; kInvalidArgument where no pair is left.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/record/ports.h"
#include "common/record/preference.h"
#include "run/session/preference_data.h"

namespace plumb::run {

struct LabelCounts {
  int64_t kept = 0;    // as the rows say
  int64_t turned = 0;  // the other way round
  int64_t equal = 0;   // left out
  double margin = 0;   // mean of |difference|, of those that are left
  std::string Describe() const;
};

// `pairs` in the order in which they came, without those of equal scores.
LabelCounts LabelPairs(Scorer& scorer, std::vector<PreferencePair>& pairs);

// The pairs that `data` trains on, by the parts of the session's recipe; without parts nothing.
// What they said is in `identity` and `notes`.
void LabelByParts(const Session& session, PreferenceData& data);

}  // namespace plumb::run
