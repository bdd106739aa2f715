// Preference pairs of one row: two answers to a prompt, ranked completions, comparisons with a
// winner.
//
// Thread safety: none; one Memory a parser. Errors: RowProblem.
#pragma once

#include <vector>

#include "common/record/preference.h"
#include "replay/datasets/rows/row_columns.h"
#include "replay/datasets/rows/row_form.h"

namespace plumb::replay {

// preference, implicit, hh-rlhf, ultrafeedback: {chosen, rejected} and the margin.
void ReadPair(Columns& row, RowForm form, PreferenceRecord& record, std::vector<RowNote>& notes);
// NeMo: the completion of the lowest rank against that of the highest.
void ReadRanked(Columns& row, PreferenceRecord& record);
// {response_a, response_b, winner}; a tie is a RowProblem.
void ReadCompared(Columns& row, PreferenceRecord& record);

}  // namespace plumb::replay
