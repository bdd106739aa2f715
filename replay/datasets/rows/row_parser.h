// One row of a dataset file, as JSON text, into a record.
//
// Forms that are understood (column names may be given by `map`); detection looks at the columns:
//   prompts         gsm8k {question, answer "... #### 42"} · verl {data_source, prompt,
//                   reward_model} · skyrl {prompt, reward_spec, env_class} · openrlhf {input,
//                   label} · slime {prompt, label} · prompt-answer {prompt | question, answer} ·
//                   trl {prompt}; every other column goes to Prompt::extra_json. The prompt may be
//                   `messages` or `conversations` in which no assistant speaks
//   pairs           preference {prompt, chosen, rejected, margin?} · implicit {chosen, rejected}
//                   that share their beginning · hh-rlhf, the same as "\n\nHuman: ...
//                   \n\nAssistant: ..." text · ultrafeedback (preference with score_chosen and
//                   score_rejected, which stay other columns) · nemo {context, completions:
//                   [{rank, completion}]}, lowest rank against highest · winner {prompt,
//                   response_a, response_b, winner} or {conversation_a, conversation_b, winner};
//                   winner: a, b, model_a, model_b, 0 (a), 1 (b), the column's name; a tie is
//                   rejected as `tied`
//   labelled        kto {prompt, completion, label: bool}; {instruction, output, kto_tag},
//                   {conversations, kto_tag}
//   demonstrations  prompt-completion · messages · text · alpaca {instruction, input, output}
//
// In all of them the prompt may be Alpaca's {instruction, input}, joined by an empty line into a
// user's message; messages may be ShareGPT's {from, value} and stand in `conversations`; a text
// `system` (or `system_prompt`) becomes the system message, a list `history` ([user, assistant]
// pairs, or messages) the turns before the prompt. A margin comes from `margin` alone, or from
// --map margin=COLUMN, or --map margin=COLUMN-COLUMN. Values that JSON has not cost a row only
// where it needs their column: replay/datasets/rows/odd_values.h.
//
// Thread safety: one parser a thread (it keeps its buffers). Errors: a row that cannot be used
// throws RowProblem, which is an answer and no failure; kInvalidArgument for options that are wrong
// themselves.
//
// `plumb_tokens`, which `plumb data export` writes for answers that were sampled, gives a record
// its tokens again: {"prompt": [...], "chosen" (of a single answer: "completion"): [...],
// "rejected":
// [...]}.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/record/preference.h"
#include "common/record/trajectory.h"
#include "replay/datasets/rows/row_form.h"

namespace plumb::replay {

// Why a row cannot be used. Reasons: bad_utf8, bad_json, not_an_object, mixed_format,
// missing_column, wrong_type, number_as_text, tied, no_winner, empty_prompt, empty_completion,
// one_sided, equal_pair, no_shared_prompt, bad_messages.
struct RowProblem {
  std::string reason;
  std::string detail;
};

// Parts of a row that `map` may name.
bool IsRowPart(std::string_view part);
std::string RowParts();  // all, for messages

struct RowParserOptions {
  std::map<std::string, std::string> map;  // part -> column
  std::optional<RowForm> form;             // empty: the first row that has one decides
  // numbers and booleans written as text: taken, else rejected
  bool convert_numbers = false;
  // Rows of a run: each row is read as this kind where it can be, whatever its form, and no row
  // fixes the form. kPrompts takes the prompt out of preference pairs and of dialogues too;
  // kDemonstrations looks past labels. The other kinds are not to be asked for.
  std::optional<RowKind> as;
};

// What was passed over in a row that is used.
struct RowNote {
  const char* what;    // the same text for the same thing: ledgers count by it
  std::string detail;  // of this row; may be empty
};

struct ParsedRow {
  RowForm form = RowForm::kTrl;
  // RowKind::kPrompts, and whenever RowParserOptions::as is; dataset and row are the caller's
  Prompt prompt;
  PreferenceRecord record;  // the other kinds
  std::vector<RowNote> notes;
};

class RowParser {
 public:
  explicit RowParser(RowParserOptions options);
  ~RowParser();
  // REQUIRES: 64 readable bytes behind the text, whatever they hold. The first usable row fixes the
  // form.
  ParsedRow Parse(std::string_view text);
  // The same into `out`, whose memory is used again: rows of one kind, one after the other,
  // allocate next to nothing.
  void Parse(std::string_view text, ParsedRow& out);
  // Of the columns that `map` names for what a row may lack (weight, system, history) one that no
  // row had so far, as a sentence; "": none, or no row was read.
  std::string NeverThere() const;
  std::optional<RowForm> form() const;
  void SetForm(RowForm form);  // of an import that goes on

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plumb::replay
