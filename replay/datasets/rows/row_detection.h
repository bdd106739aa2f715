// Which form a row has, by its columns, and in which of them its prompt stands.
//
// Thread safety: pure functions of the row. Errors: RowProblem where a column that is asked for
// holds an odd value.
#pragma once

#include <optional>

#include "replay/datasets/rows/row_columns.h"
#include "replay/datasets/rows/row_form.h"

namespace plumb::replay {

// The column of the prompt: `prompt`, `question`, Alpaca's `instruction`, ShareGPT's
// `conversations` or `messages` where the answer stands elsewhere or nowhere, `input`; or the
// mapped one.
std::optional<Column> FindPrompt(const Columns& row);
// Of what FindPrompt gave: an `input` (or `context`) belongs behind it.
bool IsInstruction(const Columns& row, const Column& prompt);
// Of a comparison: the columns of both answers. nullopt: the row has none, or not both.
struct Sides {
  Column a, b;
};
std::optional<Sides> FindSides(const Columns& row);
std::optional<Column> FindWinner(const Columns& row);

// `as`: RowParserOptions::as. `file`: the form of the rows before it, if there is one.
std::optional<RowForm> DetectForm(const Columns& row, std::optional<RowKind> as,
                                  std::optional<RowForm> file);

}  // namespace plumb::replay
