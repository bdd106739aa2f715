#include "replay/datasets/rows/dataset_import.h"

#include <algorithm>
#include <utility>

#include <simdjson.h>

#include "common/base/error.h"
#include "common/record/json_text.h"
#include "common/record/task_tokens.h"
#include "replay/datasets/rows/dialogue.h"
#include "replay/datasets/rows/row_parser.h"
#include "replay/datasets/rows/row_source.h"

namespace plumb::replay {
namespace {

using configs::OverlongPolicy;

// From now on the message's content is the text that it holds, whatever the row wrote there (null,
// parts). REQUIRES: fields_json as common/record/trajectory.h has it.
void TakeContentAsText(Message& message) {
  if (!message.fields_json.starts_with("{\"content\":")) return;
  simdjson::dom::parser parser;
  const simdjson::dom::object fields = parser.parse(message.fields_json);
  std::string rest;
  for (const auto [key, value] : fields) {
    if (key == "content") continue;
    rest.push_back(rest.empty() ? '{' : ',');
    AppendJsonText(rest, key);
    rest.push_back(':');
    rest += simdjson::minify(value);
  }
  if (!rest.empty()) rest.push_back('}');
  message.fields_json = std::move(rest);
}

// system_prompt and prompt_suffix; a text becomes a message where a system message has to stand
// before it. True: another system message of the row's own was replaced.
bool Dress(const ImportOptions& options, std::string& text, std::vector<Message>& messages) {
  bool replaced = false;
  if (!options.system_prompt.empty()) {
    if (messages.empty()) messages.push_back({"user", std::exchange(text, "")});
    if (messages.front().role == "system") {
      TakeContentAsText(messages.front());
      replaced = messages.front().content != options.system_prompt;
      messages.front().content = options.system_prompt;
    } else {
      messages.insert(messages.begin(), {"system", options.system_prompt});
    }
  }
  if (options.prompt_suffix.empty()) return replaced;
  if (messages.empty()) {
    text += options.prompt_suffix;
    return replaced;
  }
  const auto user = std::find_if(messages.rbegin(), messages.rend(),
                                 [](const Message& m) { return m.role == "user"; });
  if (user == messages.rend())
    throw RowProblem{"bad_messages", "no user message to put prompt_suffix on"};
  TakeContentAsText(*user);
  user->content += options.prompt_suffix;
  return replaced;
}

// One demonstration for each turn of the assistant. `replaced`: set where Dress replaced a system
// message.
std::vector<TextDemonstration> Turns(PreferenceRecord record, const ImportOptions& options,
                                     bool& replaced) {
  std::vector<TextDemonstration> turns;
  std::vector<Message> before = std::move(record.prompt);
  for (Message& message : record.chosen) {
    if (message.role == "assistant" && IsLearned(message)) {
      TextDemonstration turn{record.prompt_text, before,    message.content, message.fields_json,
                             record.extra_json,  record.row};
      replaced |= Dress(options, turn.prompt, turn.messages);
      turns.push_back(std::move(turn));
    }
    before.push_back(std::move(message));
  }
  return turns;
}

// Fills tokens and applies the policy for what is too long. False: cut (counted by the caller as
// truncated).
bool Tokenize(const ImportOptions& options, Prompt& prompt, const std::string& where) {
  if (!options.tokenize) return true;
  try {
    prompt.tokens = options.tokenize(prompt);
  } catch (const Error& e) {  // what the chat template refuses, for example: of which row
    if (options.skip_untokenizable && e.code() == ErrorCode::kInvalidArgument)
      throw RowProblem{"untokenizable", e.message()};
    throw Error(e.code(), e.message(), where + (e.where().empty() ? "" : " (" + e.where() + ")"));
  }
  if (prompt.tokens.empty()) throw RowProblem{"empty_prompt", "the prompt has no tokens"};
  const size_t max = static_cast<size_t>(options.max_prompt_tokens);
  if (max == 0 || prompt.tokens.size() <= max) return true;
  const std::string bound = options.max_prompt_bound.empty()
                                ? "data.max_prompt_tokens is " + std::to_string(max)
                                : options.max_prompt_bound;
  const std::string text = std::to_string(prompt.tokens.size()) + " tokens, " + bound;
  if (options.overlong == OverlongPolicy::kDrop) throw RowProblem{"overlong", text};
  if (options.overlong == OverlongPolicy::kError) {
    throw Error(ErrorCode::kInvalidArgument,
                text + ": make room for it, or set data.overlong to drop, left or right", where);
  }
  if (options.overlong == OverlongPolicy::kLeft) {
    CutFront(max, prompt.tokens);
  } else {
    prompt.tokens.resize(max);
  }
  return false;
}

void CheckOptions(const ImportOptions& options) {
  const auto refuse = [](const std::string& why) { throw Error(ErrorCode::kInvalidArgument, why); };
  if (options.max_prompt_tokens < 0 || options.limit < 0)
    refuse("data.max_prompt_tokens and data.limit must not be negative");
  if (options.max_prompt_tokens > 0 && !options.tokenize)
    refuse("the length of prompts cannot be checked without a tokenizer");
  for (const auto& [key, column] : options.map) {
    if (!IsRowPart(key)) refuse("data.map has the unknown key '" + key + "'; known: " + RowParts());
  }
}

// As a prompt of a run. False: it is passed over.
bool TakePrompt(const ImportOptions& options, Prompt& prompt, const std::string& where,
                ImportedPrompts& imported) {
  RowLedger& ledger = imported.ledger;
  const bool replaced = Dress(options, prompt.text, prompt.messages);
  const bool whole = Tokenize(options, prompt, where);
  if (ledger.skipped < options.skip) return false;
  ledger.truncated += !whole;
  ledger.system_replaced += replaced;
  prompt.dataset = options.dataset;
  prompt.row = imported.prompts.size();
  imported.prompts.push_back(std::move(prompt));
  return true;
}

// Reads the row and gives it to use(row), which says whether it is used or passed over; what either
// throws as RowProblem goes into the ledger.
template <class Read, class Use>
void TakeRow(RowLedger& ledger, const std::string& where, const Read& read, const Use& use) {
  ++ledger.read;
  try {
    ParsedRow row = read();
    const RowForm form = row.form;
    std::string shown = ledger.samples.size() < RowLedger::kSamples ? ShownRow(row) : "";
    const std::vector<RowNote> notes = std::move(row.notes);
    const bool used = use(row);
    if (ledger.format.empty()) ledger.format = FormName(form);
    if (used) {
      ++ledger.used;
      ledger.notes.Add(notes, where);
      if (!shown.empty()) ledger.samples.push_back(std::move(shown));
    } else {
      --ledger.read;
      ++ledger.skipped;
    }
  } catch (const RowProblem& problem) {
    ledger.Reject(problem, where);
  }
}

// Calls use(row, where) for each row of the file, as TakeRow does.
template <class Use>
void ForEachRow(const std::string& path, const ImportOptions& options, RowKind kind,
                RowLedger& ledger, const Use& use) {
  CheckOptions(options);
  const auto source = RowSource::Open(path, options.max_line_bytes);
  RowParser parser(
      {.map = options.map, .form = {}, .convert_numbers = source->all_text(), .as = kind});
  SourceRow row;
  while ((options.limit == 0 || ledger.used < options.limit) && source->Next(row)) {
    if (row.blank) continue;
    const std::string where = path + ":" + std::to_string(row.number);
    const auto read = [&] {
      CheckReadable(row, options.max_line_bytes);
      return parser.Parse(row.text);
    };
    TakeRow(ledger, where, read, [&](ParsedRow& parsed) { return use(parsed, where); });
  }
  ledger.RequireUsed(path);
  // Held-out rows need no weights, and share the map of those that have them.
  if (const std::string column = parser.NeverThere(); options.dataset != "eval" && !column.empty())
    throw Error(ErrorCode::kInvalidArgument, column + "; data.map names it, and no row has it",
                path);
}

}  // namespace

void CheckReadable(const SourceRow& row, size_t max_bytes) {
  if (row.too_long)
    throw RowProblem{"line_too_long", "more than " + std::to_string(max_bytes) + " bytes"};
  if (!row.problem.empty()) throw RowProblem{"bad_csv", row.problem};
}

void RowLedger::Reject(const RowProblem& problem, const std::string& where) {
  ++rejected[problem.reason];
  if (examples.size() < kMaxExamples)
    examples.push_back(where + ": " + problem.reason + ": " + problem.detail);
}

void RowLedger::RequireUsed(const std::string& path) const {
  PLUMB_CHECK(read == used + TotalRejected(), Describe());
  if (used > 0) return;
  if (read == 0)
    throw Error(ErrorCode::kInvalidArgument, "the dataset is empty: no rows in the file", path);
  std::string message = "no row of the dataset can be used: " + Describe();
  // Most rows say it of themselves.
  const bool said = !examples.empty() && examples.front().find("--map ") != std::string::npos;
  if (rejected.contains("missing_column") && !said)
    message += " (name other columns: --map prompt=COLUMN, in a recipe data.map)";
  for (size_t i = 0; i < std::min<size_t>(examples.size(), 3); ++i) message += "\n  " + examples[i];
  const auto bad_json = rejected.find("bad_json");
  if (bad_json != rejected.end() && bad_json->second == read)
    message += "\n  " + WhatAFileHolds(path);
  throw Error(ErrorCode::kInvalidArgument, message, path);
}

int64_t RowLedger::TotalRejected() const {
  int64_t total = 0;
  for (const auto& [reason, n] : rejected) total += n;
  return total;
}

std::string RowLedger::Describe() const {
  std::string text = "read " + std::to_string(read) + " = used " + std::to_string(used);
  for (const auto& [reason, n] : rejected) text += " + " + std::to_string(n) + " " + reason;
  if (skipped > 0)
    text += ", after " + std::to_string(skipped) + " usable rows that were passed over";
  if (system_replaced > 0)
    text += " (" + std::to_string(system_replaced) +
            " with a system message of their own, replaced by the given one)";
  if (truncated > 0) text += " (" + std::to_string(truncated) + " of the used ones cut to length)";
  return text;
}

std::string RowLedger::LeftOut() const {
  if (rejected.empty()) return "";
  std::string why;
  for (const auto& [reason, n] : rejected)
    why += (why.empty() ? "" : ", ") + std::to_string(n) + " " + reason;
  return std::to_string(TotalRejected()) + " of " + std::to_string(read) + " rows were left out (" +
         why + "), the first: " + examples.front();
}

std::vector<std::string> RowLedger::Notes(const std::string& file) const {
  std::vector<std::string> lines = {file + ": " + format + ", " + Describe()};
  for (size_t i = 0; i < samples.size(); ++i)
    lines.push_back("  row " + std::to_string(i + 1) + ": " + samples[i]);
  for (const std::string& note : notes.Describe()) lines.push_back("  note: " + note);
  for (const std::string& example : examples) lines.push_back("  " + example);
  return lines;
}

ImportOptions ImportOptionsOf(const configs::DataConfig& data, const std::string& dataset) {
  ImportOptions options;
  options.dataset = dataset;
  options.map = data.map;
  options.system_prompt = data.system_prompt;
  options.prompt_suffix = data.prompt_suffix;
  options.limit = dataset == "eval" ? data.eval_prompts : data.limit;
  options.skip = dataset == "eval" ? data.eval_skip : 0;
  options.max_prompt_tokens = data.max_prompt_tokens;
  options.overlong = data.overlong;
  return options;
}

ImportedPrompts ImportPrompts(const std::string& path, const ImportOptions& options) {
  ImportedPrompts imported;
  ForEachRow(path, options, RowKind::kPrompts, imported.ledger,
             [&](ParsedRow& row, const std::string& where) {
               return TakePrompt(options, row.prompt, where, imported);
             });
  return imported;
}

ImportedPrompts TakePrompts(const std::string& path, const ImportOptions& options, uint64_t rows,
                            const std::function<Prompt(uint64_t)>& read) {
  CheckOptions(options);
  ImportedPrompts imported;
  RowLedger& ledger = imported.ledger;
  ledger.format = "prompts of a store";
  for (uint64_t i = 0; i < rows && (options.limit == 0 || ledger.used < options.limit); ++i) {
    const std::string where = path + ", row " + std::to_string(i + 1);
    const auto parsed = [&] {
      ParsedRow row;
      row.prompt = read(i);
      return row;
    };
    TakeRow(ledger, where, parsed,
            [&](ParsedRow& row) { return TakePrompt(options, row.prompt, where, imported); });
  }
  ledger.RequireUsed(path);
  return imported;
}

ImportedDemonstrations ImportDemonstrations(const std::string& path, const ImportOptions& given) {
  ImportOptions options = given;
  options.max_prompt_tokens = 0;  // whoever packs demonstrations knows their whole length
  ImportedDemonstrations imported;
  RowLedger& ledger = imported.ledger;
  ForEachRow(path, options, RowKind::kDemonstrations, ledger,
             [&](ParsedRow& row, const std::string&) {
               bool replaced = false;
               row.record.row = static_cast<uint64_t>(ledger.used);
               auto turns = Turns(std::move(row.record), options, replaced);
               if (turns.empty()) {
                 throw RowProblem{"nothing_to_learn",
                                  "every turn of the assistant has weight 0 or train false"};
               }
               for (TextDemonstration& d : turns) imported.demonstrations.push_back(std::move(d));
               ledger.system_replaced += replaced;
               return true;
             });
  return imported;
}

std::vector<TextDemonstration> DemonstrationsOf(PreferenceRecord record,
                                                const ImportOptions& options) {
  bool replaced = false;
  const std::string where = "row " + std::to_string(record.row);
  try {
    return Turns(std::move(record), options, replaced);
  } catch (const RowProblem& problem) {
    throw Error(ErrorCode::kInvalidArgument, problem.reason + ": " + problem.detail, where);
  }
}

}  // namespace plumb::replay
