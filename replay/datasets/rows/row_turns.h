// The dialogues of one row: its messages, turns and answers, and the prompt with what stands before
// it.
//
// Purpose: replay/datasets/rows/row_parser.cc and replay/datasets/rows/row_pairs.cc read through
// it. What is read is appended; columns count as used.
// Thread safety: none; one Memory a parser. Errors: RowProblem.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/record/trajectory.h"
#include "replay/datasets/rows/row_columns.h"

namespace plumb::replay {

// A list of messages or of ShareGPT's turns.
void ReadMessages(Memory& memory, simdjson::dom::element value, std::string_view column,
                  std::vector<Message>& messages);
// A text or a list of messages, whichever the column holds.
void ReadTurns(Memory& memory, const Column& column, const char* empty_reason, std::string& text,
               std::vector<Message>& messages);
// An answer: a text becomes one assistant's message, a message or a turn stands for a list of one.
void ReadAnswer(Memory& memory, const Column& column, std::vector<Message>& messages);
// `may_be_empty`: what the assistant says last, not the list.
void CheckAnswer(const std::vector<Message>& answer, const char* what, bool may_be_empty);

// The columns of the prompt (replay/datasets/rows/row_detection.h), without what precedes it.
void ReadPromptColumns(Columns& row, std::string& text, std::vector<Message>& messages);
// Alpaca's: the instruction and the input behind it become a user's message.
void ReadInstruction(Columns& row, const Column& instruction, std::vector<Message>& messages);
// What `system` and `history` say stands before the prompt; a text prompt becomes a user's message.
void Precede(Columns& row, std::string& text, std::vector<Message>& prompt);
// A text that is no dialogue is no place for them: said, because they stay aside.
void NotePreceding(const Columns& row, std::vector<RowNote>& notes);

}  // namespace plumb::replay
