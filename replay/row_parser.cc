#include "replay/row_parser.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <initializer_list>
#include <utility>
#include <vector>

#include <simdjson.h>

#include "common/error.h"
#include "replay/dialogue.h"
#include "replay/json_text.h"
#include "replay/line_reader.h"
#include "replay/strict_json.h"

namespace plumb::replay {
namespace {

namespace dom = simdjson::dom;

constexpr std::array kRoles = {"system", "user", "assistant", "tool"};
constexpr std::array kParts = {"prompt",  "answer", "ground_truth", "weight",      "chosen",      "rejected", "margin",
                               "context", "completions", "completion", "label", "messages", "text", "instruction",
                               "input",   "output"};

std::string_view Trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

// The parser's depth bound holds here, too.
void RefuseTwins(dom::element value) {
  if (value.is_array()) {
    for (const dom::element item : dom::array(value)) RefuseTwins(item);
    return;
  }
  if (!value.is_object()) return;
  const auto refuse = [](std::string_view twin) {
    throw RowProblem{"bad_json", "the key '" + std::string(twin.substr(0, 60)) + "' stands twice in one object"};
  };
  // Messages have two keys, rows a few: no memory for them.
  std::array<std::string_view, 16> few;
  std::vector<std::string_view> many;
  size_t n = 0;
  for (const auto [key, item] : dom::object(value)) {
    if (n < few.size()) {
      for (size_t i = 0; i < n; ++i) {
        if (few[i] == key) refuse(key);
      }
      few[n++] = key;
    } else {
      many.push_back(key);
    }
    if (item.is_object() || item.is_array()) RefuseTwins(item);
  }
  if (many.empty()) return;
  many.insert(many.end(), few.begin(), few.end());
  std::sort(many.begin(), many.end());
  const auto twin = std::adjacent_find(many.begin(), many.end());
  if (twin != many.end()) refuse(*twin);
}

// Without blanks and with the keys of every object in order: rows that say the same give the same text.
void AppendCanonical(std::string& out, dom::element value) {
  if (value.is_string()) {
    AppendJsonText(out, std::string_view(value));
  } else if (value.is_array()) {
    out.push_back('[');
    bool first = true;
    for (const dom::element item : dom::array(value)) {
      if (!first) out.push_back(',');
      first = false;
      AppendCanonical(out, item);
    }
    out.push_back(']');
  } else if (value.is_object()) {
    std::vector<std::pair<std::string_view, dom::element>> fields;
    for (const auto [key, item] : dom::object(value)) fields.emplace_back(key, item);
    std::sort(fields.begin(), fields.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    out.push_back('{');
    bool first = true;
    for (const auto& [key, item] : fields) {
      if (!first) out.push_back(',');
      first = false;
      AppendJsonText(out, key);
      out.push_back(':');
      AppendCanonical(out, item);
    }
    out.push_back('}');
  } else {
    out += simdjson::minify(value);
  }
}

std::string Minified(dom::element value) {
  std::string out;
  AppendCanonical(out, value);
  return out;
}

struct Column {
  std::string name;
  dom::element value;
};

// The columns of one row, and which of them have been understood.
class Columns {
 public:
  Columns(dom::object row, const std::map<std::string, std::string>& map, bool convert) : row_(row), map_(map), convert_(convert) {}

  // The mapped column of `part`, else the first of `names` that the row has; a column that is null counts as absent.
  std::optional<Column> Find(const char* part, std::initializer_list<const char*> names) const {
    if (const auto mapped = map_.find(part); mapped != map_.end()) return At(mapped->second);
    for (const char* name : names) {
      if (auto column = At(name)) return column;
    }
    return std::nullopt;
  }
  bool Has(const char* part) const { return Find(part, {part}).has_value(); }

  Column Need(const char* part, std::initializer_list<const char*> names) {
    auto found = Find(part, names);
    if (!found) {
      const auto mapped = map_.find(part);
      const std::string want = mapped != map_.end() ? "'" + mapped->second + "'" : "for '" + std::string(part) + "'";
      throw RowProblem{"missing_column", "no column " + want + "; the row has: " + Names()};
    }
    Use(found->name);
    return *found;
  }
  std::optional<Column> Take(const char* part, std::initializer_list<const char*> names) {
    auto found = Find(part, names);
    if (found) Use(found->name);
    return found;
  }
  void Use(const std::string& name) { used_.push_back(name); }
  bool Mapped(const char* part) const { return map_.contains(part); }
  // A column that was asked for by name and is not there is no optional one.
  void RequireMapped(std::initializer_list<const char*> parts) {
    for (const char* part : parts) {
      if (Mapped(part)) Need(part, {});
    }
  }

  std::string Text(const Column& column) const {
    if (!column.value.is_string()) throw RowProblem{"wrong_type", "'" + column.name + "' is no text"};
    return std::string(std::string_view(column.value));
  }

  double Number(const Column& column) const {
    double number = 0;
    if (column.value.is_number()) {
      number = double(column.value);
    } else if (column.value.is_string()) {
      const std::string_view text = Trimmed(std::string_view(column.value));
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
      const bool whole = error == std::errc() && end == text.data() + text.size();
      if (!whole) throw RowProblem{"wrong_type", "'" + column.name + "' is no number"};
      if (!convert_) throw RowProblem{"number_as_text", "'" + column.name + "' is a number written as text"};
    } else {
      throw RowProblem{"wrong_type", "'" + column.name + "' is no number"};
    }
    if (!std::isfinite(number)) throw RowProblem{"wrong_type", "'" + column.name + "' is not finite"};
    return number;
  }

  bool Boolean(const Column& column) const {
    if (column.value.is_bool()) return bool(column.value);
    std::string text;
    if (column.value.is_string()) text = std::string(Trimmed(std::string_view(column.value)));
    if (column.value.is_number()) text = Minified(column.value);
    const bool yes = text == "true" || text == "True" || text == "1", no = text == "false" || text == "False" || text == "0";
    if (!yes && !no) throw RowProblem{"wrong_type", "'" + column.name + "' is neither true nor false"};
    if (!convert_) throw RowProblem{"number_as_text", "'" + column.name + "' is true or false written as a number or a text"};
    return yes;
  }

  // What was not used, sorted by name, as one JSON object; "" when nothing is left.
  std::string Rest() const {
    std::vector<std::pair<std::string_view, dom::element>> rest;
    for (const auto [key, value] : row_) {
      if (std::find(used_.begin(), used_.end(), key) == used_.end()) rest.emplace_back(key, value);
    }
    if (rest.empty()) return "";
    std::sort(rest.begin(), rest.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::string out = "{";
    for (const auto& [key, value] : rest) {
      if (out.size() > 1) out.push_back(',');
      AppendJsonText(out, key);
      out.push_back(':');
      AppendCanonical(out, value);
    }
    return out + "}";
  }
  std::string Names() const {
    std::string names;
    for (const auto [key, value] : row_) names += (names.empty() ? "" : ", ") + std::string(key);
    return names.empty() ? "none" : names;
  }

 private:
  std::optional<Column> At(const std::string& name) const {
    dom::element value;
    if (row_.at_key(name).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
    return Column{name, value};
  }
  dom::object row_;
  const std::map<std::string, std::string>& map_;
  const bool convert_;
  std::vector<std::string> used_;
};

std::vector<Message> ReadMessages(dom::element value, const std::string& column) {
  std::vector<Message> messages;
  for (const dom::element item : dom::array(value)) {
    std::string_view role, content;
    if (item["role"].get(role) != simdjson::SUCCESS || item["content"].get(content) != simdjson::SUCCESS) {
      throw RowProblem{"bad_messages", "every message of '" + column + "' needs the texts 'role' and 'content'"};
    }
    if (std::find(kRoles.begin(), kRoles.end(), role) == kRoles.end()) {
      throw RowProblem{"bad_messages", "unknown role '" + std::string(role.substr(0, 40)) + "' (system, user, assistant, tool)"};
    }
    messages.push_back({std::string(role), std::string(content)});
  }
  if (messages.empty()) throw RowProblem{"bad_messages", "no message in '" + column + "'"};
  return messages;
}

// A text or a list of messages.
void ReadTurns(const Column& column, const char* empty_reason, std::string& text, std::vector<Message>& messages) {
  if (column.value.is_string()) {
    text = std::string(std::string_view(column.value));
    if (Trimmed(text).empty()) throw RowProblem{empty_reason, "'" + column.name + "' is empty"};
  } else if (column.value.is_array()) {
    messages = ReadMessages(column.value, column.name);
  } else {
    throw RowProblem{"wrong_type", "'" + column.name + "' is neither a text nor a list of messages"};
  }
}

// An answer: a text becomes one assistant's message.
std::vector<Message> ReadAnswer(const Column& column) {
  std::string text;
  std::vector<Message> messages;
  ReadTurns(column, "empty_completion", text, messages);
  if (messages.empty()) messages.push_back({"assistant", std::move(text)});
  return messages;
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
        return value.is_string() ? std::string(std::string_view(value)) : Minified(value);
      }
    }
    return "";
  }
  if (form != RowForm::kGsm8k) row.Use(column->name);  // a worked solution stays readable for reward functions
  if (!column->value.is_string()) return Minified(column->value);
  const std::string_view text(column->value);
  const size_t mark = text.rfind("####");
  if (form != RowForm::kGsm8k || mark == std::string_view::npos) {
    if (form == RowForm::kGsm8k) throw RowProblem{"missing_column", "no #### in '" + column->name + "'"};
    return std::string(text);
  }
  const std::string_view answer = Trimmed(text.substr(mark + 4));
  if (answer.empty()) throw RowProblem{"missing_column", "nothing follows #### in '" + column->name + "'"};
  return std::string(answer);
}

void ReadPrompt(Columns& row, RowForm form, Prompt& prompt) {
  const Column column = row.Need("prompt", {"prompt", "question", "input"});
  ReadTurns(column, "empty_prompt", prompt.text, prompt.messages);
  prompt.ground_truth = ReadTruth(row, form);
  if (const auto weight = row.Find("weight", {})) {
    row.Use(weight->name);
    prompt.weight = row.Number(*weight);
    if (prompt.weight < 0 || prompt.weight > 1e6) throw RowProblem{"wrong_type", "'" + weight->name + "' is not in 0 .. 1e6"};
  }
  prompt.extra_json = row.Rest();
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
    if (empty) throw RowProblem{other_empty ? "empty_completion" : "one_sided", "'" + column.name + "' is empty"};
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
      SplitDialogues(ReadMessages(chosen.value, "chosen"), ReadMessages(rejected.value, "rejected"), record);
    } else {
      SplitTexts(row.Text(chosen), row.Text(rejected), record);
    }
  } else {
    const Column prompt = row.Need("prompt", {"prompt", "question", "input"});
    ReadTurns(prompt, "empty_prompt", record.prompt_text, record.prompt);
    record.chosen = ReadAnswer(chosen);
    record.rejected = ReadAnswer(rejected);
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
    record.has_margin = true;
  }
}

// NeMo: the completion of rank 0 against that of rank 1.
void ReadRanked(Columns& row, PreferenceRecord& record) {
  ReadTurns(row.Need("context", {"context"}), "empty_prompt", record.prompt_text, record.prompt);
  const Column completions = row.Need("completions", {"completions"});
  if (!completions.value.is_array()) throw RowProblem{"wrong_type", "'" + completions.name + "' is no list"};
  std::array<std::optional<dom::element>, 2> by_rank;
  for (const dom::element item : dom::array(completions.value)) {
    dom::element rank, completion;
    if (item["rank"].get(rank) != simdjson::SUCCESS || item["completion"].get(completion) != simdjson::SUCCESS) {
      throw RowProblem{"missing_column", "every entry of '" + completions.name + "' needs 'rank' and 'completion'"};
    }
    const double r = row.Number({"rank", rank});
    if (r != 0 && r != 1) continue;
    auto& place = by_rank[r == 0 ? 0 : 1];
    if (place) throw RowProblem{"wrong_type", "two completions have rank " + std::to_string(r == 0 ? 0 : 1)};
    place = completion;
  }
  if (!by_rank[0] || !by_rank[1]) throw RowProblem{"one_sided", "no completion of rank " + std::string(by_rank[0] ? "1" : "0")};
  record.chosen = ReadAnswer({"completion", *by_rank[0]});
  record.rejected = ReadAnswer({"completion", *by_rank[1]});
  RequireDifferent(record);
}

void ReadDemonstration(Columns& row, RowForm form, PreferenceRecord& record) {
  record.kind = PreferenceKind::kDemonstration;
  if (form == RowForm::kMessages) {
    const Column column = row.Need("messages", {"messages"});
    if (!column.value.is_array()) throw RowProblem{"wrong_type", "'" + column.name + "' is no list"};
    std::vector<Message> all = ReadMessages(column.value, column.name);
    const auto first = std::find_if(all.begin(), all.end(), [](const Message& m) { return m.role == "assistant"; });
    if (first == all.end()) throw RowProblem{"empty_completion", "no assistant message in '" + column.name + "'"};
    if (first == all.begin()) throw RowProblem{"bad_messages", "the assistant speaks first: there is nothing to answer"};
    record.prompt.assign(all.begin(), first);
    record.chosen.assign(first, all.end());
    while (record.chosen.back().role != "assistant") record.chosen.pop_back();  // an unanswered end teaches nothing
  } else if (form == RowForm::kText) {
    record.chosen = ReadAnswer(row.Need("text", {"text"}));
  } else if (form == RowForm::kAlpaca) {
    const Column instruction = row.Need("instruction", {"instruction"});
    std::string user = row.Text(instruction);
    if (Trimmed(user).empty()) throw RowProblem{"empty_prompt", "'" + instruction.name + "' is empty"};
    if (const auto input = row.Take("input", {"input"})) {
      const std::string text = row.Text(*input);
      if (!Trimmed(text).empty()) user += "\n\n" + text;
    }
    record.prompt = {{"user", std::move(user)}};
    record.chosen = ReadAnswer(row.Need("output", {"output"}));
  } else {
    ReadTurns(row.Need("prompt", {"prompt", "question", "input"}), "empty_prompt", record.prompt_text, record.prompt);
    record.chosen = ReadAnswer(row.Need("completion", {"completion"}));
  }
}

// Of a row with a column for the prompt.
RowForm DetectPrompt(const Columns& row, const std::string& prompt) {
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

class Hash {
 public:
  void Add(std::string_view bytes) {
    Mix(std::hash<std::string_view>{}(bytes));
    Mix(bytes.size());
  }
  void Mix(uint64_t v) {
    state_ = (state_ ^ v) * 0x9E3779B97F4A7C15u;
    state_ ^= state_ >> 29;
  }
  void Add(const std::vector<Message>& messages) {
    Mix(messages.size());
    for (const Message& m : messages) Add(m.role), Add(m.content);
  }
  void Add(const std::vector<int32_t>& tokens) {
    Add(std::string_view(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(int32_t)));
  }
  uint64_t value() const { return state_; }

 private:
  uint64_t state_ = 0x2545F4914F6CDD1Du;
};

}  // namespace

struct RowParser::Impl {
  RowParserOptions options;
  dom::parser parser;
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

ParsedRow RowParser::Parse(const std::string& text) {
  PLUMB_CHECK(text.capacity() >= text.size() + simdjson::SIMDJSON_PADDING, "a row without room behind it");
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
  RefuseTwins(root);
  Columns row(object, impl_->options.map, impl_->options.convert_numbers);
  const auto as = impl_->options.as;
  const auto detected = Detect(row, as);
  ParsedRow out;
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
      ReadTurns(row.Need("prompt", {"prompt", "question", "input"}), "empty_prompt", record.prompt_text, record.prompt);
      record.chosen = ReadAnswer(row.Need("completion", {"completion"}));
      record.desirable = row.Boolean(row.Need("label", {"label"}));
      break;
    case RowKind::kDemonstrations:
      ReadDemonstration(row, out.form, record);
      break;
  }
  if (KindOf(out.form) != RowKind::kPrompts) {
    CheckAnswer(record.chosen, KindOf(out.form) == RowKind::kPairs ? "chosen" : "completion");
    if (record.kind == PreferenceKind::kPair) CheckAnswer(record.rejected, "rejected");
    record.extra_json = row.Rest();
  }
  if (as == RowKind::kPrompts && KindOf(out.form) != RowKind::kPrompts) {
    out.prompt.text = record.prompt_text;
    out.prompt.messages = record.prompt;
    out.prompt.extra_json = record.extra_json;
  }
  if (!fixed && !as) impl_->options.form = out.form;
  return out;
}

uint64_t Fingerprint(const Prompt& prompt) {
  Hash hash;
  hash.Add(prompt.text), hash.Add(prompt.messages), hash.Add(prompt.ground_truth), hash.Add(prompt.extra_json);
  hash.Mix(std::hash<double>{}(prompt.weight));
  return hash.value();
}

uint64_t Fingerprint(const PreferenceRecord& record) {
  Hash hash;
  hash.Mix(static_cast<uint64_t>(record.kind) * 4 + (record.desirable ? 2u : 0u) + (record.has_margin ? 1u : 0u));
  hash.Mix(std::hash<double>{}(record.margin));
  hash.Mix(std::hash<double>{}(record.weight));
  hash.Add(record.prompt_text), hash.Add(record.prompt), hash.Add(record.chosen), hash.Add(record.rejected);
  hash.Add(record.extra_json);
  hash.Add(record.prompt_tokens), hash.Add(record.chosen_tokens), hash.Add(record.rejected_tokens);
  return hash.value();
}

}  // namespace plumb::replay
