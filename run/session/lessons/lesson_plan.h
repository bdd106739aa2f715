// In which order a run of algorithm.name = "sft" learns its demonstrations, and what it asks of
// code besides: sft.curriculum and sft.syntax_penalty over rows that say their source.
//
// Purpose: a row's source is its column "source". A curriculum's phase "code=0.5" has the rows of
// the source "code" from the end of the phase before until half of the steps. The syntax penalty
// is on the brackets of rows of the source "code" that match: those of others teach nothing.
// Thread safety: pure functions. Errors: kInvalidArgument for a phase without rows, with the
// sources that there are; for a penalty without a row of code.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/text/tokenizer/tokenizer.h"
#include "configs/config.h"
#include "learner/offline/curriculum.h"
#include "learner/offline/sft_objective.h"
#include "run/session/demonstration_data.h"

namespace plumb::run {

inline constexpr char kCodeSource[] = "code";

struct LessonPlan {
  learner::Curriculum curriculum;
  learner::SyntaxPenalty syntax;
  std::vector<std::string> notes;  // for people
};
LessonPlan PlanLessons(const configs::Config& config, const Tokenizer& tokenizer,
                       const DemonstrationData& data);

// Whether every bracket of ()[]{} closes the one that was opened last and none stays open,
// wherever in the text they stand.
bool BracketsMatch(std::string_view text);

}  // namespace plumb::run
