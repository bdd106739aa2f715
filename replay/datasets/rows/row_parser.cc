#include "replay/datasets/rows/row_parser.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
#include <utility>
#include <vector>

#include <simdjson.h>

#include "common/base/error.h"
#include "common/base/json/strict_json.h"
#include "common/base/text.h"
#include "replay/datasets/rows/row_columns.h"
#include "replay/datasets/rows/row_detection.h"
#include "replay/datasets/rows/row_pairs.h"
#include "replay/datasets/rows/row_source.h"
#include "replay/datasets/rows/row_turns.h"

namespace plumb::replay {
namespace {

namespace dom = simdjson::dom;

constexpr std::array kParts = {
    "prompt", "answer",      "ground_truth", "weight",     "chosen", "rejected",
    "margin", "context",     "completions",  "completion", "label",  "messages",
    "text",   "instruction", "input",        "output",     "system", "history",
    "winner", "response_a",  "response_b",   "task"};

// How columns get the names of `parts`.
std::string NameThem(std::initializer_list<const char*> parts) {
  std::string map, table;
  for (const char* part : parts) {
    map += (map.empty() ? "" : ",") + std::string(part) + "=COLUMN";
    table += (table.empty() ? "" : ", ") + std::string(part) + " = \"COLUMN\"";
  }
  return " (name them: --map " + map + ", in a recipe data.map = { " + table + " })";
}

// Why a row has no form that can be read as `as`, and what would give it one.
std::string NoForm(const Columns& row, const std::map<std::string, std::string>& map,
                   std::optional<RowKind> as) {
  const std::string has = "; the row has: " + row.Names();
  for (const auto& [part, column] : map) {
    if (row.Find(part.c_str(), {})) continue;
    const std::string meant = row.Meant(column);
    return "no column '" + column + "'" + meant +
           (meant.ends_with("?") ? " The row has: " + row.Names() : has);
  }
  if (as == RowKind::kDemonstrations) {
    if (row.Has("chosen") && row.Has("rejected")) {
      return "this is a preference pair, which algorithm.name = \"dpo\" and \"reward_model\" train "
             "on, and no demonstration" +
             has +
             " (to imitate the better answers: --map completion=chosen, in a recipe data.map "
             "= { completion = \"chosen\" })";
    }
    if (const auto prompt = FindPrompt(row)) {
      const auto answer = row.Find("", {"answer", "response", "output", "solution", "target"});
      const std::string column = answer ? std::string(answer->name) : "COLUMN";
      return prompt->Named() + " is the prompt, and no column is the completion" + has +
             " (name it: --map completion=" + column +
             ", in a recipe data.map = { completion = \"" + column + "\" })";
    }
  }
  if (as == RowKind::kPairs) {
    if (const auto prompt = FindPrompt(row)) {
      return prompt->Named() + " is the prompt, and no columns are 'chosen' and 'rejected'" + has +
             NameThem({"chosen", "rejected"});
    }
  }
  if (const std::string near = row.NearMisses(); !near.empty())
    return "no known columns" + has + near;
  if (as == RowKind::kPairs)
    return "no known columns" + has + NameThem({"prompt", "chosen", "rejected"});
  if (as == RowKind::kDemonstrations)
    return "no known columns" + has + NameThem({"prompt", "completion"});
  return "no known columns" + has + NameThem({"prompt"});
}

std::string ReadTruth(Columns& row, RowForm form) {
  // What was asked for by name is not replaced by a column that has the usual one.
  for (const char* part : {"answer", "ground_truth"}) {
    if (row.Mapped(part) && !row.Find(part, {})) row.RequireMapped({part});
  }
  auto column = row.Mapped("answer") || !row.Mapped("ground_truth")
                    ? row.Find("answer", {"answer", "ground_truth", "label"})
                    : row.Find("ground_truth", {});
  if (!column) {
    for (const char* name : {"reward_model", "reward_spec"}) {
      const auto nested = row.Find(name, {name});
      dom::element value;
      if (nested && nested->value["ground_truth"].get(value) == simdjson::SUCCESS &&
          !value.is_null()) {
        return value.is_string() ? std::string(std::string_view(value)) : Canonical(value);
      }
    }
    return "";
  }
  // and it stays for reward functions, as the row has it;
  if (!column->value.is_string()) return Canonical(column->value);
  // so do a worked solution and a column of another name.
  if (form != RowForm::kGsm8k && !row.Mapped("answer") && !row.Mapped("ground_truth"))
    row.Use(column->name);
  const std::string_view text(column->value);
  const size_t mark = text.rfind("####");
  if (form != RowForm::kGsm8k || mark == std::string_view::npos) {
    if (form == RowForm::kGsm8k)
      throw RowProblem{"missing_column", "no #### in " + column->Named()};
    return std::string(text);
  }
  const std::string_view answer = Trim(text.substr(mark + 4));
  if (answer.empty())
    throw RowProblem{"missing_column", "nothing follows #### in " + column->Named()};
  return std::string(answer);
}

constexpr double kMaxWeight = 1e6;

// Only by `map`: a column of that name may be anything.
void ReadWeight(Columns& row, double& weight) {
  const auto column = row.Take("weight", {});
  if (!column) return;
  weight = row.Number(*column);
  if (weight < 0 || weight > kMaxWeight)
    throw RowProblem{"wrong_type", column->Named() + " is not in 0 .. 1e6"};
}

void ReadTokenList(const Column& column, const char* name, std::vector<int32_t>& out) {
  dom::array list;
  if (column.value[name].get(list) != simdjson::SUCCESS)
    throw RowProblem{"wrong_type", column.Named() + " has no list '" + std::string(name) + "'"};
  for (const dom::element item : list) {
    int64_t id = 0;
    if (item.get(id) != simdjson::SUCCESS || id < 0 || id > std::numeric_limits<int32_t>::max())
      throw RowProblem{"wrong_type", "'" + std::string(name) + "' of " + column.Named() +
                                         " holds " + simdjson::minify(item).substr(0, 40) +
                                         ", which is no token"};
    out.push_back(static_cast<int32_t>(id));
  }
  if (out.empty())
    throw RowProblem{"wrong_type",
                     "'" + std::string(name) + "' of " + column.Named() + " is empty"};
}

void ReadTokens(Columns& row, PreferenceRecord& record) {
  const auto tokens = row.Take("plumb_tokens", {"plumb_tokens"});
  if (!tokens) return;
  const bool pair = record.kind == PreferenceKind::kPair;
  ReadTokenList(*tokens, "prompt", record.prompt_tokens);
  ReadTokenList(*tokens, pair ? "chosen" : "completion", record.chosen_tokens);
  if (!pair) return;
  ReadTokenList(*tokens, "rejected", record.rejected_tokens);
  if (record.chosen_tokens == record.rejected_tokens)
    throw RowProblem{"equal_pair", "'chosen' and 'rejected' have the same tokens"};
}

// What `plumb data export --form verl` had to nest and to rewrite (replay/datasets/export_row.h) is
// as it was.
void UnnestOwn(Columns& row, Prompt& prompt) {
  const auto info = row.Find("", {"extra_info"});
  dom::object columns, ours;
  std::string_view was;
  if (!info || info->value.get(columns) != simdjson::SUCCESS ||
      columns["plumb"].get(ours) != simdjson::SUCCESS ||
      ours["prompt"].get(was) != simdjson::SUCCESS)
    return;
  double weight = 1;
  if (ours["weight"].get(weight) == simdjson::SUCCESS && weight >= 0 && weight <= kMaxWeight)
    prompt.weight = weight;
  if (was == "text" && prompt.messages.size() == 1) {
    prompt.text = std::move(prompt.messages.front().content);
    prompt.messages.clear();
  }
  for (const char* name : {"data_source", "ability", "reward_model", "extra_info"}) row.Use(name);
  const bool own_index = ours["index"].error() == simdjson::SUCCESS;
  row.Unnest(columns, {"plumb", own_index ? "" : "index"});
}

void ReadPrompt(Columns& row, RowForm form, Prompt& prompt) {
  ReadPromptColumns(row, prompt.text, prompt.messages);
  Precede(row, prompt.text, prompt.messages);
  prompt.ground_truth = ReadTruth(row, form);
  ReadWeight(row, prompt.weight);
  if (form == RowForm::kVerl) UnnestOwn(row, prompt);
  row.AppendRest(prompt.extra_json);
}

// The turns before and from the assistant's first one on; what follows its last one teaches
// nothing. `from_last`: from the assistant's last one on.
void ReadDialogue(Columns& row, PreferenceRecord& record, bool from_last) {
  const Column column = row.Need("messages", {"messages", "conversations", "conversation"});
  if (!column.value.is_array()) throw RowProblem{"wrong_type", column.Named() + " is no list"};
  std::vector<Message> all;
  ReadMessages(row.memory(), column.value, column.name, all);
  while (!all.empty() && all.back().role != "assistant") all.pop_back();
  if (all.empty())
    throw RowProblem{"empty_completion", "no assistant message in " + column.Named()};
  const auto first =
      from_last ? all.end() - 1 : std::find_if(all.begin(), all.end(), [](const Message& m) {
        return m.role == "assistant";
      });
  if (first == all.begin())
    throw RowProblem{"bad_messages", "the assistant speaks first: there is nothing to answer"};
  record.prompt.assign(all.begin(), first);
  record.chosen.assign(first, all.end());
}

void ReadDemonstration(Columns& row, RowForm form, PreferenceRecord& record,
                       std::vector<RowNote>& notes) {
  record.kind = PreferenceKind::kDemonstration;
  if (form == RowForm::kText) {
    ReadAnswer(row.memory(), row.Need("text", {"text"}), record.chosen);
    return NotePreceding(row, notes);
  }
  if (form == RowForm::kMessages) {
    ReadDialogue(row, record, /*from_last=*/false);
  } else {
    if (form == RowForm::kAlpaca) {
      ReadInstruction(row, row.Need("instruction", {"instruction"}), record.prompt);
    } else {
      ReadPromptColumns(row, record.prompt_text, record.prompt);
    }
    ReadAnswer(row.memory(),
               form == RowForm::kAlpaca ? row.Need("output", {"output", "response"})
                                        : row.Need("completion", {"completion"}),
               record.chosen);
  }
  Precede(row, record.prompt_text, record.prompt);
}

// A dialogue that has its answer, as a prompt of a run.
void ReadAnsweredPrompt(Columns& row, ParsedRow& out) {
  PreferenceRecord& record = out.record;
  record.kind = PreferenceKind::kDemonstration;
  ReadDialogue(row, record, /*from_last=*/true);
  Precede(row, record.prompt_text, record.prompt);
  out.prompt.messages = record.prompt;
  out.prompt.ground_truth = ReadTruth(row, RowForm::kPromptAnswer);
  ReadWeight(row, out.prompt.weight);
  row.AppendRest(out.prompt.extra_json);
  out.notes.push_back(
      {"a dialogue that ends with an answer: the turns before it are the prompt, the "
       "answer is left out",
       ""});
}

void ReadJudged(Columns& row, PreferenceRecord& record) {
  record.kind = PreferenceKind::kLabelled;
  if (const auto answer = row.Take("completion", {"completion", "output", "response"})) {
    ReadPromptColumns(row, record.prompt_text, record.prompt);
    ReadAnswer(row.memory(), *answer, record.chosen);
  } else if (row.Find("messages", {"messages", "conversations", "conversation"})) {
    ReadDialogue(row, record, /*from_last=*/true);  // which is what is judged
  } else {
    row.Need("completion", {"completion"});
  }
  Precede(row, record.prompt_text, record.prompt);
  record.desirable = row.Boolean(row.Need("label", {"label", "kto_tag"}));
}

}  // namespace

bool IsRowPart(std::string_view part) {
  return std::find(kParts.begin(), kParts.end(), part) != kParts.end();
}

std::string RowParts() {
  std::string known;
  for (const char* name : kParts) known += (known.empty() ? "" : ", ") + std::string(name);
  return known;
}

struct RowParser::Impl {
  RowParserOptions options;
  dom::parser parser;
  Memory memory;
  std::string mended;                              // a row without its odd values
  std::map<std::string, std::string> never_there;  // column -> what is said of it; "" before rows

  dom::object Parse(std::string_view text, std::vector<OddValue>& odd);
  void Read(Columns& row, ParsedRow& out);
};

RowParser::RowParser(RowParserOptions options) : impl_(std::make_unique<Impl>()) {
  for (const auto& [part, column] : options.map) {
    if (IsRowPart(part) && !column.empty()) continue;
    throw Error(ErrorCode::kInvalidArgument,
                "'" + part + "=" + column +
                    "' (--map, in a recipe data.map) names no part of a row; known: " + RowParts());
  }
  for (const char* part : {"weight", "system", "history"}) {
    const auto mapped = options.map.find(part);
    if (mapped != options.map.end()) impl_->never_there.emplace(mapped->second, "");
  }
  impl_->options = std::move(options);
  if (impl_->parser.allocate(size_t{1} << 16, kMaxJsonDepth) != simdjson::SUCCESS) {
    throw Error(ErrorCode::kIo, "no memory for a parser of rows");
  }
}
RowParser::~RowParser() = default;

std::string RowParser::NeverThere() const {
  return impl_->never_there.empty() ? "" : impl_->never_there.begin()->second;
}
std::optional<RowForm> RowParser::form() const { return impl_->options.form; }
void RowParser::SetForm(RowForm form) { impl_->options.form = form; }

ParsedRow RowParser::Parse(std::string_view text) {
  ParsedRow out;
  Parse(text, out);
  return out;
}

// REQUIRES: as RowParser::Parse. `odd`: what had to be mended.
dom::object RowParser::Impl::Parse(std::string_view text, std::vector<OddValue>& odd) {
  static_assert(simdjson::SIMDJSON_PADDING <= RowSource::kPadding);
  dom::element root;
  auto error = parser.parse(text.data(), text.size(), /*realloc_if_needed=*/false).get(root);
  if (error && error != simdjson::DEPTH_ERROR) {
    odd = MendRow(text, mended);
    mended.reserve(mended.size() + RowSource::kPadding);
    if (!odd.empty() &&
        parser.parse(mended.data(), mended.size(), /*realloc_if_needed=*/false).get(root) ==
            simdjson::SUCCESS)
      error = simdjson::SUCCESS;
  }
  if (error) {
    if (error == simdjson::UTF8_ERROR || !simdjson::validate_utf8(text.data(), text.size())) {
      throw RowProblem{"bad_utf8", "not valid UTF-8"};
    }
    throw RowProblem{"bad_json", error == simdjson::DEPTH_ERROR
                                     ? "nested deeper than " + std::to_string(kMaxJsonDepth)
                                     : std::string(simdjson::error_message(error))};
  }
  dom::object object;
  if (root.get(object) != simdjson::SUCCESS)
    throw RowProblem{"not_an_object", "a row has to be one JSON object"};
  return object;
}

void RowParser::Impl::Read(Columns& row, ParsedRow& out) {
  const auto as = options.as;
  const auto detected = DetectForm(row, as, options.form);
  const auto& fixed = options.form;
  if (!fixed && !detected) throw RowProblem{"missing_column", NoForm(row, options.map, as)};
  out.form = fixed ? *fixed : *detected;
  if (fixed && detected && KindOf(*detected) != KindOf(*fixed)) {
    throw RowProblem{"mixed_format", std::string("the file holds ") + FormName(*fixed) +
                                         " rows, this is one of " + FormName(*detected)};
  }
  const RowKind kind = KindOf(out.form);
  PreferenceRecord& record = out.record;
  // Within a file of prompts each row may name its answer otherwise; GSM8K's marks alone change
  // what is read.
  if (kind == RowKind::kPrompts) return ReadPrompt(row, out.form, out.prompt);
  if (as == RowKind::kPrompts && out.form == RowForm::kMessages)
    return ReadAnsweredPrompt(row, out);
  if (kind == RowKind::kLabelled) {
    ReadJudged(row, record);
  } else if (kind == RowKind::kDemonstrations) {
    ReadDemonstration(row, out.form, record, out.notes);
    // As `plumb data export --rows rollouts` writes them.
    if (as != RowKind::kPrompts && row.Find("", {"lease"}) && row.Find("", {"sample"})) {
      out.notes.push_back(
          {"a sampled answer taken as a demonstration, whatever its reward: training imitates all "
           "of them; leave the bad ones out first, or make pairs of them with `plumb data mine`",
           ""});
    }
  } else if (out.form == RowForm::kNemo) {
    ReadRanked(row, record);
  } else if (out.form == RowForm::kWinner) {
    ReadCompared(row, record);
  } else {
    ReadPair(row, out.form, record, out.notes);
  }
  CheckAnswer(record.chosen, kind == RowKind::kPairs ? "chosen" : "completion", memory.sampled);
  if (record.kind == PreferenceKind::kPair)
    CheckAnswer(record.rejected, "rejected", memory.sampled);
  ReadWeight(row, record.weight);
  ReadTokens(row, record);
  row.AppendRest(record.extra_json);
  if (as != RowKind::kPrompts) return;
  out.prompt.text = record.prompt_text;
  out.prompt.messages = record.prompt;
  out.prompt.extra_json = record.extra_json;
}

void RowParser::Parse(std::string_view text, ParsedRow& out) {
  std::vector<OddValue> odd;
  const dom::object object = impl_->Parse(text, odd);
  impl_->memory.TakeBack(out);
  Columns row(object, impl_->options.map, impl_->options.convert_numbers, impl_->memory, odd);
  for (auto at = impl_->never_there.begin(); at != impl_->never_there.end();) {
    auto& [name, said] = *at;
    const bool there = row.Find("", {name}) || row.HasNull({name});
    if (!there && said.empty()) said = row.NoColumn(name);
    at = there ? impl_->never_there.erase(at) : std::next(at);
  }
  impl_->memory.sampled = row.Find("", {"plumb_tokens"}).has_value();
  impl_->Read(row, out);
  for (const OddValue& value : odd) out.notes.push_back({WhatWasDone(value.kind), Describe(value)});
  if (!impl_->options.form && !impl_->options.as) impl_->options.form = out.form;
}

}  // namespace plumb::replay
