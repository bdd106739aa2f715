// Demonstrations of a run as token sequences: of its warm start, or all that it trains on
// (algorithm.name = "sft").
//
// Purpose: a file of any form that `plumb data import` knows as demonstrations, generated sums, or
// (sft) a preference dataset of a store; through the model's chat template or as text
// (data.chat_template), cut or left out where they are too long, split into what is trained on and
// what is held out. What is trained on never has the tokens of a held-out one: such duplicates are
// left out of it and counted. Other duplicates count as often as they stand.
// Thread safety: functions of their arguments. Errors: those of the import; kInvalidArgument for a
// source without demonstrations.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/record/trajectory.h"
#include "run/session/session.h"

namespace plumb::run {

struct DemonstrationData {
  std::vector<Demonstration> train, heldout;
  // Of each in `train`, where a run trains on nothing else: its column "source"; "": it has none.
  std::vector<std::string> sources;
  // Of a run that trains on nothing else: number and digest of its demonstrations.
  std::string identity;
  std::vector<std::string> notes;       // what was read, rejected and left out
  std::map<std::string, int64_t> rows;  // run/session/row_counts.h
};

// Of the warm start, and what distill.student_share mixes in; empty when the recipe has neither.
DemonstrationData LoadDemonstrations(const Session& session);

// Of algorithm.name = "sft". Held out: the demonstrations of the last sft.heldout rows.
DemonstrationData LoadSftData(const Session& session);

}  // namespace plumb::run
