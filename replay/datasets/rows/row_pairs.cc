#include "replay/datasets/rows/row_pairs.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include <simdjson.h>

#include "common/base/text.h"
#include "replay/datasets/rows/dialogue.h"
#include "replay/datasets/rows/row_detection.h"
#include "replay/datasets/rows/row_turns.h"

namespace plumb::replay {
namespace {

namespace dom = simdjson::dom;

// What was sampled may differ in its tokens alone; those are compared where they are read.
void RequireDifferent(Columns& row, const PreferenceRecord& record) {
  if (!row.memory().sampled && record.chosen == record.rejected)
    throw RowProblem{"equal_pair", "'chosen' and 'rejected' are the same"};
}

void SplitDialogues(std::vector<Message> chosen, std::vector<Message> rejected,
                    PreferenceRecord& record) {
  if (chosen == rejected) throw RowProblem{"equal_pair", "'chosen' and 'rejected' are the same"};
  record.prompt = SharedPrompt(chosen, rejected);
  if (record.prompt.empty())
    throw RowProblem{"no_shared_prompt", "'chosen' and 'rejected' share no user's message"};
  const auto shared = static_cast<ptrdiff_t>(record.prompt.size());
  record.chosen.assign(chosen.begin() + shared, chosen.end());
  record.rejected.assign(rejected.begin() + shared, rejected.end());
  if (record.chosen.empty() || record.rejected.empty()) {
    throw RowProblem{"one_sided", std::string("nothing follows the prompt in '") +
                                      (record.chosen.empty() ? "chosen'" : "rejected'")};
  }
}

void ReadPairColumns(Columns& row, Column& chosen, Column& rejected) {
  const auto c = row.Take("chosen", {"chosen"}), r = row.Take("rejected", {"rejected"});
  if (!c && !r)
    throw RowProblem{"missing_column", "neither 'chosen' nor 'rejected'; the row has: " +
                                           row.Names() + row.NearMisses()};
  if (!c || !r)
    throw RowProblem{"one_sided", std::string("no column for '") + (c ? "rejected'" : "chosen'") +
                                      row.NearMisses()};
  for (const auto& [column, other] : {std::pair(*c, *r), std::pair(*r, *c)}) {
    const bool empty = column.value.is_string()
                           ? Trim(std::string_view(column.value)).empty()
                           : column.value.is_array() && dom::array(column.value).size() == 0;
    const bool other_empty = other.value.is_string() && Trim(std::string_view(other.value)).empty();
    if (empty && !row.memory().sampled)
      throw RowProblem{other_empty ? "empty_completion" : "one_sided",
                       column.Named() + " is empty"};
  }
  chosen = *c;
  rejected = *r;
}

// Both as plain text: the prompt is the beginning they share, cut after a blank or a line end so
// that no word is torn.
void SplitTexts(const Columns& row, std::string_view chosen, std::string_view rejected,
                PreferenceRecord& record) {
  if (chosen == rejected) throw RowProblem{"equal_pair", "'chosen' and 'rejected' are the same"};
  size_t same = static_cast<size_t>(
      std::mismatch(chosen.begin(), chosen.end(), rejected.begin(), rejected.end()).first -
      chosen.begin());
  while (same > 0 && chosen[same - 1] != ' ' && chosen[same - 1] != '\n') --same;
  if (Trim(chosen.substr(0, same)).empty())
    throw RowProblem{"no_shared_prompt",
                     "'chosen' and 'rejected' do not begin alike" + row.NearMisses()};
  record.prompt_text = std::string(chosen.substr(0, same));
  record.chosen = {{"assistant", std::string(chosen.substr(same))}};
  record.rejected = {{"assistant", std::string(rejected.substr(same))}};
  if (Trim(chosen.substr(same)).empty() || Trim(rejected.substr(same)).empty()) {
    throw RowProblem{"one_sided", "one of 'chosen' and 'rejected' is the beginning of the other"};
  }
}

// From `margin` alone, or as `map` says: what the loss then asks for is another objective than
// plain DPO.
void ReadMargin(Columns& row, RowForm form, PreferenceRecord& record, std::vector<RowNote>& notes) {
  auto column = row.Take("margin", {"margin"});
  if (!column && row.Mapped("margin")) {
    const std::string& name = row.MappedTo("margin");
    for (size_t minus = name.find('-'); minus != std::string::npos;
         minus = name.find('-', minus + 1)) {
      const std::string_view left = Trim(std::string_view(name).substr(0, minus)),
                             right = Trim(std::string_view(name).substr(minus + 1));
      const auto a = row.Find("minuend", {left}), b = row.Find("subtrahend", {right});
      if (!a || !b) continue;
      record.margin = row.Number(*a) - row.Number(*b);
      record.has_margin = true;
      if (!std::isfinite(record.margin))
        throw RowProblem{"wrong_type", a->Named() + " - " + b->Named() + " is not finite"};
      return;
    }
    row.Need("margin", {});
  }
  if (column) {
    record.margin = row.Number(*column);
    record.has_margin = true;
  } else if (form == RowForm::kUltraFeedback) {
    notes.push_back(
        {"score_chosen and score_rejected left among the other columns: no margin without "
         "--map margin=score_chosen-score_rejected, in a recipe data.map",
         ""});
  }
}

// Whether a verdict names the column of an answer: all of its name, its end behind the last '_', or
// model_ and that end. Where columns do not end in numbers of their own, the first is also a and 0.
bool Names(std::string_view verdict, std::string_view column, bool first) {
  const std::string_view end = column.substr(column.rfind('_') + 1);
  const std::string_view side =
      verdict.starts_with("model_") ? verdict.substr(std::strlen("model_")) : verdict;
  if (verdict == column || side == end) return true;
  const bool numbered = !end.empty() && std::isdigit(static_cast<unsigned char>(end.back())) != 0;
  return !numbered && (side == (first ? "a" : "b") || verdict == (first ? "0" : "1"));
}

bool IsTie(std::string_view verdict) {
  for (const std::string_view begin : {"tie", "both"}) {
    if (verdict.starts_with(begin)) return true;
  }
  for (const std::string_view whole : {"draw", "neither", "none", "equal", "same", "0.5"}) {
    if (verdict == whole) return true;
  }
  return false;
}

}  // namespace

void ReadPair(Columns& row, RowForm form, PreferenceRecord& record, std::vector<RowNote>& notes) {
  Column chosen, rejected;
  ReadPairColumns(row, chosen, rejected);
  const bool lists = chosen.value.is_array() && rejected.value.is_array();
  const bool whole = form == RowForm::kHhRlhf || form == RowForm::kImplicit;
  if (form == RowForm::kHhRlhf) {
    const auto a = ParseHumanAssistant(row.Text(chosen)),
               b = ParseHumanAssistant(row.Text(rejected));
    if (!a || !b)
      throw RowProblem{"bad_messages",
                       std::string("'") + (a ? "rejected" : "chosen") +
                           "' is no \\n\\nHuman: ... \\n\\nAssistant: ... dialogue"};
    SplitDialogues(*a, *b, record);
  } else if (whole && lists) {
    std::vector<Message> a, b;
    ReadMessages(row.memory(), chosen.value, "chosen", a);
    ReadMessages(row.memory(), rejected.value, "rejected", b);
    SplitDialogues(std::move(a), std::move(b), record);
  } else if (whole) {
    SplitTexts(row, row.Text(chosen), row.Text(rejected), record);
  } else {
    ReadPromptColumns(row, record.prompt_text, record.prompt);
    ReadAnswer(row.memory(), chosen, record.chosen);
    ReadAnswer(row.memory(), rejected, record.rejected);
    RequireDifferent(row, record);
    // UltraFeedback's lists hold the prompt again: a dialogue cannot begin with the assistant's
    // answer only.
    if (lists && record.chosen.front().role != "assistant") {
      record.prompt_text.clear();
      std::vector<Message> column = std::move(record.prompt);
      SplitDialogues(std::move(record.chosen), std::move(record.rejected), record);
      // Where the lists hold the end of the column only (no system message, no earlier turns), the
      // column says more.
      const auto& shared = record.prompt;
      if (column.size() > shared.size() &&
          std::equal(shared.rbegin(), shared.rend(), column.rbegin()))
        record.prompt = std::move(column);
    }
  }
  if (whole && record.prompt.empty()) NotePreceding(row, notes);
  else Precede(row, record.prompt_text, record.prompt);
  ReadMargin(row, form, record, notes);
}

void ReadRanked(Columns& row, PreferenceRecord& record) {
  ReadTurns(row.memory(), row.Need("context", {"context"}), "empty_prompt", record.prompt_text,
            record.prompt);
  const Column completions = row.Need("completions", {"completions"});
  if (!completions.value.is_array())
    throw RowProblem{"wrong_type", completions.Named() + " is no list"};
  struct Ranked {
    double rank = 0;
    size_t times = 0;
    dom::element completion;
  };
  Ranked best, worst;
  for (const dom::element item : dom::array(completions.value)) {
    dom::element rank, completion;
    if (item["rank"].get(rank) != simdjson::SUCCESS ||
        item["completion"].get(completion) != simdjson::SUCCESS) {
      throw RowProblem{"missing_column",
                       "every entry of " + completions.Named() + " needs 'rank' and 'completion'"};
    }
    const double r = row.Number({"rank", rank});
    if (best.times == 0 || r < best.rank) best = {r, 0, completion};
    if (worst.times == 0 || r > worst.rank) worst = {r, 0, completion};
    best.times += r == best.rank;
    worst.times += r == worst.rank;
  }
  if (best.times == 0 || best.rank == worst.rank)
    throw RowProblem{"one_sided", "no two completions of different rank"};
  if (best.times > 1 || worst.times > 1) {
    throw RowProblem{"wrong_type", std::string("several completions share the ") +
                                       (best.times > 1 ? "lowest" : "highest") + " rank"};
  }
  ReadAnswer(row.memory(), {"completion", best.completion}, record.chosen);
  ReadAnswer(row.memory(), {"completion", worst.completion}, record.rejected);
  RequireDifferent(row, record);
  Precede(row, record.prompt_text, record.prompt);
}

void ReadCompared(Columns& row, PreferenceRecord& record) {
  const auto sides = FindSides(row);
  const auto winner = FindWinner(row);
  if (sides && !winner && row.HasNull({"winner", "better_response_id", "preferred"}))
    throw RowProblem{"no_winner", "the column of the winner is null"};
  if (!sides || !winner) {
    throw RowProblem{
        "missing_column",
        "a comparison needs response_a, response_b and winner; the row has: " + row.Names()};
  }
  for (const Column* column : {&sides->a, &sides->b, &*winner}) row.Use(column->name);
  std::string verdict = winner->value.is_string()
                            ? std::string(Trim(std::string_view(winner->value)))
                            : Canonical(winner->value);
  std::transform(verdict.begin(), verdict.end(), verdict.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (verdict.size() == 3 && verdict.ends_with(".0")) verdict.resize(1);  // a table's whole number
  const bool a = Names(verdict, sides->a.name, /*first=*/true),
             b = Names(verdict, sides->b.name, /*first=*/false);
  if (!a && !b) {
    if (IsTie(verdict)) throw RowProblem{"tied", winner->Named() + " is '" + verdict + "'"};
    throw RowProblem{"wrong_type",
                     winner->Named() + " is '" + verdict.substr(0, 40) + "' and names neither " +
                         sides->a.Named() + " nor " + sides->b.Named() +
                         " (their names, ends, model_ and end; of a and b: 0 and 1; tie)"};
  }
  const Column &best = a ? sides->a : sides->b, &worst = a ? sides->b : sides->a;
  ReadAnswer(row.memory(), best, record.chosen);
  ReadAnswer(row.memory(), worst, record.rejected);
  RequireDifferent(row, record);
  if (record.chosen.front().role != "assistant") {
    SplitDialogues(std::move(record.chosen), std::move(record.rejected), record);
  } else {
    ReadPromptColumns(row, record.prompt_text, record.prompt);
  }
  Precede(row, record.prompt_text, record.prompt);
}

}  // namespace plumb::replay
