#include "replay/row_parser.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include <simdjson.h>

#include "common/error.h"
#include "replay/dialogue.h"
#include "replay/row_columns.h"
#include "replay/row_source.h"
#include "replay/strict_json.h"

namespace plumb::replay {
namespace {

namespace dom = simdjson::dom;

constexpr std::array<std::string_view, 4> kRoles = {"system", "user", "assistant", "tool"};
constexpr std::array kParts = {"prompt",  "answer", "ground_truth", "weight",      "chosen",      "rejected", "margin",
                               "context", "completions", "completion", "label", "messages", "text", "instruction",
                               "input",   "output"};

void ReadMessages(Memory& memory, dom::element value, std::string_view column, std::vector<Message>& messages) {
  for (const dom::element item : dom::array(value)) {
    dom::object message;
    std::string_view role, content;
    bool has_role = false, has_content = false;
    if (item.get(message) == simdjson::SUCCESS) {
      for (const auto [key, part] : message) {
        if (SameKey(key, "role")) has_role = part.get(role) == simdjson::SUCCESS;
        if (SameKey(key, "content")) has_content = part.get(content) == simdjson::SUCCESS;
      }
    }
    if (!has_role || !has_content) {
      throw RowProblem{"bad_messages", "every message of '" + std::string(column) + "' needs the texts 'role' and 'content'"};
    }
    if (std::none_of(kRoles.begin(), kRoles.end(), [&](std::string_view known) { return SameKey(known, role); })) {
      throw RowProblem{"bad_messages", "unknown role '" + std::string(role.substr(0, 40)) + "' (system, user, assistant, tool)"};
    }
    memory.Append(messages, role, content);
  }
  if (messages.empty()) throw RowProblem{"bad_messages", "no message in '" + std::string(column) + "'"};
}

// A text or a list of messages, whichever the column holds.
void ReadTurns(Memory& memory, const Column& column, const char* empty_reason, std::string& text, std::vector<Message>& messages) {
  if (column.value.is_string()) {
    const std::string_view whole(column.value);
    if (Trimmed(whole).empty()) throw RowProblem{empty_reason, column.Named() + " is empty"};
    text.assign(whole);
  } else if (column.value.is_array()) {
    ReadMessages(memory, column.value, column.name, messages);
  } else {
    throw RowProblem{"wrong_type", column.Named() + " is neither a text nor a list of messages"};
  }
}

// An answer: a text becomes one assistant's message.
void ReadAnswer(Memory& memory, const Column& column, std::vector<Message>& messages) {
  if (!column.value.is_string()) {
    std::string none;
    return ReadTurns(memory, column, "empty_completion", none, messages);
  }
  const std::string_view text(column.value);
  if (Trimmed(text).empty()) throw RowProblem{"empty_completion", column.Named() + " is empty"};
  memory.Append(messages, "assistant", text);
}

void CheckAnswer(const std::vector<Message>& answer, const char* what) {
  if (answer.empty()) throw RowProblem{"empty_completion", std::string("nothing follows the prompt in '") + what + "'"};
  if (answer.back().role != "assistant") {
    throw RowProblem{"bad_messages", std::string("'") + what + "' does not end with the assistant"};
  }
  if (Trimmed(answer.back().content).empty()) throw RowProblem{"empty_completion", std::string("'") + what + "' is empty"};
}

std::string ReadTruth(Columns& row, RowForm form) {
  auto column = row.Find("answer", {"answer", "ground_truth", "label"});
  if (!column) column = row.Find("ground_truth", {"ground_truth"});
  if (!column) row.RequireMapped({"answer", "ground_truth"});
  if (!column) {
    for (const char* name : {"reward_model", "reward_spec"}) {
      const auto nested = row.Find("", {name});
      dom::element value;
      if (nested && nested->value["ground_truth"].get(value) == simdjson::SUCCESS && !value.is_null()) {
        return value.is_string() ? std::string(std::string_view(value)) : Canonical(value);
      }
    }
    return "";
  }
  if (!column->value.is_string()) return Canonical(column->value);  // and it stays for reward functions, as the row has it;
  // so do a worked solution and a column of another name.
  if (form != RowForm::kGsm8k && !row.Mapped("answer") && !row.Mapped("ground_truth")) row.Use(column->name);
  const std::string_view text(column->value);
  const size_t mark = text.rfind("####");
  if (form != RowForm::kGsm8k || mark == std::string_view::npos) {
    if (form == RowForm::kGsm8k) throw RowProblem{"missing_column", "no #### in " + column->Named()};
    return std::string(text);
  }
  const std::string_view answer = Trimmed(text.substr(mark + 4));
  if (answer.empty()) throw RowProblem{"missing_column", "nothing follows #### in " + column->Named()};
  return std::string(answer);
}

void ReadPrompt(Columns& row, RowForm form, Prompt& prompt) {
  const Column column = row.Need("prompt", {"prompt", "question", "input"});
  ReadTurns(row.memory(), column, "empty_prompt", prompt.text, prompt.messages);
  prompt.ground_truth = ReadTruth(row, form);
  if (const auto weight = row.Find("weight", {})) {
    row.Use(weight->name);
    prompt.weight = row.Number(*weight);
    if (prompt.weight < 0 || prompt.weight > 1e6) throw RowProblem{"wrong_type", weight->Named() + " is not in 0 .. 1e6"};
  }
  row.AppendRest(prompt.extra_json);
}

void RequireDifferent(const PreferenceRecord& record) {
  if (record.chosen == record.rejected) throw RowProblem{"equal_pair", "'chosen' and 'rejected' are the same"};
}

void SplitDialogues(std::vector<Message> chosen, std::vector<Message> rejected, PreferenceRecord& record) {
  if (chosen == rejected) throw RowProblem{"equal_pair", "'chosen' and 'rejected' are the same"};
  record.prompt = SharedPrompt(chosen, rejected);
  if (record.prompt.empty()) throw RowProblem{"no_shared_prompt", "'chosen' and 'rejected' share no user's message"};
  const auto shared = static_cast<ptrdiff_t>(record.prompt.size());
  record.chosen.assign(chosen.begin() + shared, chosen.end());
  record.rejected.assign(rejected.begin() + shared, rejected.end());
  if (record.chosen.empty() || record.rejected.empty()) {
    throw RowProblem{"one_sided", std::string("nothing follows the prompt in '") + (record.chosen.empty() ? "chosen'" : "rejected'")};
  }
}

void ReadPairColumns(Columns& row, Column& chosen, Column& rejected) {
  const auto c = row.Take("chosen", {"chosen"}), r = row.Take("rejected", {"rejected"});
  if (!c && !r) throw RowProblem{"missing_column", "neither 'chosen' nor 'rejected'; the row has: " + row.Names()};
  if (!c || !r) throw RowProblem{"one_sided", std::string("no column for '") + (c ? "rejected'" : "chosen'")};
  for (const auto& [column, other] : {std::pair(*c, *r), std::pair(*r, *c)}) {
    const bool empty = column.value.is_string() ? Trimmed(std::string_view(column.value)).empty()
                                                : column.value.is_array() && dom::array(column.value).size() == 0;
    const bool other_empty = other.value.is_string() && Trimmed(std::string_view(other.value)).empty();
    if (empty) throw RowProblem{other_empty ? "empty_completion" : "one_sided", column.Named() + " is empty"};
  }
  chosen = *c;
  rejected = *r;
}

// Both as plain text: the prompt is the beginning they share, cut after a blank or a line end so that no word is torn.
void SplitTexts(std::string_view chosen, std::string_view rejected, PreferenceRecord& record) {
  if (chosen == rejected) throw RowProblem{"equal_pair", "'chosen' and 'rejected' are the same"};
  size_t same = static_cast<size_t>(std::mismatch(chosen.begin(), chosen.end(), rejected.begin(), rejected.end()).first - chosen.begin());
  while (same > 0 && chosen[same - 1] != ' ' && chosen[same - 1] != '\n') --same;
  if (Trimmed(chosen.substr(0, same)).empty()) throw RowProblem{"no_shared_prompt", "'chosen' and 'rejected' do not begin alike"};
  record.prompt_text = std::string(chosen.substr(0, same));
  record.chosen = {{"assistant", std::string(chosen.substr(same))}};
  record.rejected = {{"assistant", std::string(rejected.substr(same))}};
  if (Trimmed(chosen.substr(same)).empty() || Trimmed(rejected.substr(same)).empty()) {
    throw RowProblem{"one_sided", "one of 'chosen' and 'rejected' is the beginning of the other"};
  }
}

void ReadPair(Columns& row, RowForm form, PreferenceRecord& record) {
  Column chosen, rejected;
  ReadPairColumns(row, chosen, rejected);
  const bool lists = chosen.value.is_array() && rejected.value.is_array();
  if (form == RowForm::kHhRlhf) {
    const auto a = ParseHumanAssistant(row.Text(chosen)), b = ParseHumanAssistant(row.Text(rejected));
    if (!a || !b) throw RowProblem{"bad_messages", std::string("'") + (a ? "rejected" : "chosen") + "' is no \\n\\nHuman: ... \\n\\nAssistant: ... dialogue"};
    SplitDialogues(*a, *b, record);
  } else if (form == RowForm::kImplicit) {
    if (lists) {
      std::vector<Message> a, b;
      ReadMessages(row.memory(), chosen.value, "chosen", a);
      ReadMessages(row.memory(), rejected.value, "rejected", b);
      SplitDialogues(std::move(a), std::move(b), record);
    } else {
      SplitTexts(row.Text(chosen), row.Text(rejected), record);
    }
  } else {
    const Column prompt = row.Need("prompt", {"prompt", "question", "input"});
    ReadTurns(row.memory(), prompt, "empty_prompt", record.prompt_text, record.prompt);
    ReadAnswer(row.memory(), chosen, record.chosen);
    ReadAnswer(row.memory(), rejected, record.rejected);
    RequireDifferent(record);
    // UltraFeedback's lists hold the prompt again: a dialogue cannot begin with the assistant's answer only.
    if (lists && record.chosen.front().role != "assistant") {
      record.prompt_text.clear();
      SplitDialogues(std::move(record.chosen), std::move(record.rejected), record);
    }
  }
  if (const auto margin = row.Take("margin", {"margin"})) {
    record.margin = row.Number(*margin);
    record.has_margin = true;
  } else if (const auto a = row.Find("", {"score_chosen"}), b = row.Find("", {"score_rejected"}); a && b) {
    record.margin = row.Number(*a) - row.Number(*b);
    if (!std::isfinite(record.margin)) throw RowProblem{"wrong_type", "'score_chosen' - 'score_rejected' is not finite"};
    record.has_margin = true;
  }
}

// NeMo: the completion of the lowest rank against that of the highest.
void ReadRanked(Columns& row, PreferenceRecord& record) {
  ReadTurns(row.memory(), row.Need("context", {"context"}), "empty_prompt", record.prompt_text, record.prompt);
  const Column completions = row.Need("completions", {"completions"});
  if (!completions.value.is_array()) throw RowProblem{"wrong_type", completions.Named() + " is no list"};
  struct Ranked {
    double rank = 0;
    size_t times = 0;
    dom::element completion;
  };
  Ranked best, worst;
  for (const dom::element item : dom::array(completions.value)) {
    dom::element rank, completion;
    if (item["rank"].get(rank) != simdjson::SUCCESS || item["completion"].get(completion) != simdjson::SUCCESS) {
      throw RowProblem{"missing_column", "every entry of " + completions.Named() + " needs 'rank' and 'completion'"};
    }
    const double r = row.Number({"rank", rank});
    if (best.times == 0 || r < best.rank) best = {r, 0, completion};
    if (worst.times == 0 || r > worst.rank) worst = {r, 0, completion};
    best.times += r == best.rank;
    worst.times += r == worst.rank;
  }
  if (best.times == 0 || best.rank == worst.rank) throw RowProblem{"one_sided", "no two completions of different rank"};
  if (best.times > 1 || worst.times > 1) {
    throw RowProblem{"wrong_type", std::string("several completions share the ") + (best.times > 1 ? "lowest" : "highest") + " rank"};
  }
  ReadAnswer(row.memory(), {"completion", best.completion}, record.chosen);
  ReadAnswer(row.memory(), {"completion", worst.completion}, record.rejected);
  RequireDifferent(record);
}

void ReadDemonstration(Columns& row, RowForm form, PreferenceRecord& record) {
  record.kind = PreferenceKind::kDemonstration;
  if (form == RowForm::kMessages) {
    const Column column = row.Need("messages", {"messages"});
    if (!column.value.is_array()) throw RowProblem{"wrong_type", column.Named() + " is no list"};
    std::vector<Message> all;
    ReadMessages(row.memory(), column.value, column.name, all);
    const auto first = std::find_if(all.begin(), all.end(), [](const Message& m) { return m.role == "assistant"; });
    if (first == all.end()) throw RowProblem{"empty_completion", "no assistant message in " + column.Named()};
    if (first == all.begin()) throw RowProblem{"bad_messages", "the assistant speaks first: there is nothing to answer"};
    record.prompt.assign(all.begin(), first);
    record.chosen.assign(first, all.end());
    while (record.chosen.back().role != "assistant") record.chosen.pop_back();  // an unanswered end teaches nothing
  } else if (form == RowForm::kText) {
    ReadAnswer(row.memory(), row.Need("text", {"text"}), record.chosen);
  } else if (form == RowForm::kAlpaca) {
    const Column instruction = row.Need("instruction", {"instruction"});
    std::string user = row.Text(instruction);
    if (Trimmed(user).empty()) throw RowProblem{"empty_prompt", instruction.Named() + " is empty"};
    if (const auto input = row.Take("input", {"input"})) {
      const std::string text = row.Text(*input);
      if (!Trimmed(text).empty()) user += "\n\n" + text;
    }
    record.prompt = {{"user", std::move(user)}};
    ReadAnswer(row.memory(), row.Need("output", {"output"}), record.chosen);
  } else {
    ReadTurns(row.memory(), row.Need("prompt", {"prompt", "question", "input"}), "empty_prompt", record.prompt_text, record.prompt);
    ReadAnswer(row.memory(), row.Need("completion", {"completion"}), record.chosen);
  }
}

// Of a row with a column for the prompt.
RowForm DetectPrompt(const Columns& row, std::string_view prompt) {
  if (row.Find("", {"reward_spec"}) || row.Find("", {"env_class"})) return RowForm::kSkyRl;
  if (row.Find("", {"reward_model"}) || row.Find("", {"data_source"})) return RowForm::kVerl;
  if (const auto answer = row.Find("answer", {"answer"})) {
    const bool worked = answer->value.is_string() && std::string_view(answer->value).find("####") != std::string_view::npos;
    return worked ? RowForm::kGsm8k : RowForm::kPromptAnswer;
  }
  if (row.Has("label")) return prompt == "input" ? RowForm::kOpenRlhf : RowForm::kSlime;
  if (row.Has("ground_truth")) return RowForm::kPromptAnswer;
  return prompt == "input" ? RowForm::kOpenRlhf : RowForm::kTrl;
}

std::optional<RowForm> DetectDemonstration(const Columns& row) {
  if (row.Has("completion")) return RowForm::kPromptCompletion;
  if (row.Has("instruction") && row.Has("output")) return RowForm::kAlpaca;
  if (row.Has("messages")) return RowForm::kMessages;
  if (row.Has("text")) return RowForm::kText;
  return std::nullopt;
}

std::optional<RowForm> Detect(const Columns& row, std::optional<RowKind> as) {
  const auto prompt = row.Find("prompt", {"prompt", "question", "input"});
  if (as == RowKind::kPrompts && (prompt || row.Mapped("prompt"))) return DetectPrompt(row, prompt ? prompt->name : "");
  if (as == RowKind::kDemonstrations) return DetectDemonstration(row);
  if (row.Has("chosen") || row.Has("rejected")) {
    if (row.Find("", {"score_chosen"}) && row.Find("", {"score_rejected"})) return RowForm::kUltraFeedback;
    if (prompt) return RowForm::kPreference;
    const auto side = row.Find("chosen", {"chosen", "rejected"});
    const bool human = side && side->value.is_string() && std::string_view(side->value).starts_with("\n\nHuman:");
    return human ? RowForm::kHhRlhf : RowForm::kImplicit;
  }
  if (row.Has("completions") && row.Has("context")) return RowForm::kNemo;
  if (as == RowKind::kPrompts) return std::nullopt;
  if (row.Has("completion")) return row.Has("label") ? RowForm::kKto : RowForm::kPromptCompletion;
  if (prompt && !(row.Has("instruction") && row.Has("output"))) return DetectPrompt(row, prompt->name);
  return DetectDemonstration(row);
}

}  // namespace

struct RowParser::Impl {
  RowParserOptions options;
  dom::parser parser;
  Memory memory;
};

RowParser::RowParser(RowParserOptions options) : impl_(std::make_unique<Impl>()) {
  for (const auto& [part, column] : options.map) {
    if (std::find(kParts.begin(), kParts.end(), part) != kParts.end() && !column.empty()) continue;
    std::string known;
    for (const char* name : kParts) known += (known.empty() ? "" : ", ") + std::string(name);
    throw Error(ErrorCode::kInvalidArgument, "--map: '" + part + "=" + column + "' names no part of a row; known: " + known);
  }
  impl_->options = std::move(options);
  if (impl_->parser.allocate(size_t{1} << 16, kMaxJsonDepth) != simdjson::SUCCESS) {
    throw Error(ErrorCode::kIo, "no memory for a parser of rows");
  }
}
RowParser::~RowParser() = default;

std::optional<RowForm> RowParser::form() const { return impl_->options.form; }
void RowParser::SetForm(RowForm form) { impl_->options.form = form; }

ParsedRow RowParser::Parse(std::string_view text) {
  ParsedRow out;
  Parse(text, out);
  return out;
}

void RowParser::Parse(std::string_view text, ParsedRow& out) {
  static_assert(simdjson::SIMDJSON_PADDING <= RowSource::kPadding);
  dom::element root;
  if (const auto error = impl_->parser.parse(text.data(), text.size(), /*realloc_if_needed=*/false).get(root)) {
    if (error == simdjson::UTF8_ERROR || !simdjson::validate_utf8(text.data(), text.size())) {
      throw RowProblem{"bad_utf8", "not valid UTF-8"};
    }
    throw RowProblem{"bad_json", error == simdjson::DEPTH_ERROR ? "nested deeper than " + std::to_string(kMaxJsonDepth)
                                                                 : std::string(simdjson::error_message(error))};
  }
  dom::object object;
  if (root.get(object) != simdjson::SUCCESS) throw RowProblem{"not_an_object", "a row has to be one JSON object"};
  impl_->memory.TakeBack(out);
  Columns row(object, impl_->options.map, impl_->options.convert_numbers, impl_->memory);
  const auto as = impl_->options.as;
  const auto detected = Detect(row, as);
  const auto& fixed = impl_->options.form;
  if (!fixed && !detected) {
    throw RowProblem{"unknown_form", "no known columns; the row has: " + row.Names() + " (name them with --map, e.g. prompt=COLUMN)"};
  }
  out.form = fixed ? *fixed : *detected;
  if (fixed && detected && KindOf(*detected) != KindOf(*fixed)) {
    throw RowProblem{"mixed_format", std::string("the file holds ") + FormName(*fixed) + " rows, this is one of " + FormName(*detected)};
  }
  PreferenceRecord& record = out.record;
  switch (KindOf(out.form)) {
    case RowKind::kPrompts:
      // Within a file of prompts each row may name its answer otherwise; GSM8K's marks alone change what is read.
      ReadPrompt(row, out.form, out.prompt);
      break;
    case RowKind::kPairs:
      if (out.form == RowForm::kNemo) {
        ReadRanked(row, record);
      } else {
        ReadPair(row, out.form, record);
      }
      break;
    case RowKind::kLabelled:
      record.kind = PreferenceKind::kLabelled;
      ReadTurns(row.memory(), row.Need("prompt", {"prompt", "question", "input"}), "empty_prompt", record.prompt_text, record.prompt);
      ReadAnswer(row.memory(), row.Need("completion", {"completion"}), record.chosen);
      record.desirable = row.Boolean(row.Need("label", {"label"}));
      break;
    case RowKind::kDemonstrations:
      ReadDemonstration(row, out.form, record);
      break;
  }
  if (KindOf(out.form) != RowKind::kPrompts) {
    CheckAnswer(record.chosen, KindOf(out.form) == RowKind::kPairs ? "chosen" : "completion");
    if (record.kind == PreferenceKind::kPair) CheckAnswer(record.rejected, "rejected");
    row.AppendRest(record.extra_json);
  }
  if (as == RowKind::kPrompts && KindOf(out.form) != RowKind::kPrompts) {
    out.prompt.text = record.prompt_text;
    out.prompt.messages = record.prompt;
    out.prompt.extra_json = record.extra_json;
  }
  if (!fixed && !as) impl_->options.form = out.form;
}

}  // namespace plumb::replay
