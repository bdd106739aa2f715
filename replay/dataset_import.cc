#include "replay/dataset_import.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "common/error.h"
#include "replay/dialogue.h"
#include "replay/line_reader.h"
#include "replay/strict_json.h"

namespace plumb::replay {
namespace {

using nlohmann::json;

// Why one row cannot be used; caught per row and put into the ledger.
struct Rejected {
  std::string reason;
  std::string detail;
};

constexpr std::array kPromptColumns = {"prompt", "question", "input"};
constexpr std::array kTruthColumns = {"answer", "ground_truth", "label"};
constexpr std::array kNestedTruth = {"reward_model", "reward_spec"};
constexpr std::array kRoles = {"system", "user", "assistant", "tool"};
constexpr std::array kMapKeys = {"prompt", "answer", "ground_truth", "completion", "messages", "weight"};

std::string Columns(const json& row) {
  std::string names;
  for (const auto& [name, value] : row.items()) names += (names.empty() ? "" : ", ") + name;
  return names.empty() ? "none" : names;
}

std::string Trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1));
}

std::vector<Message> ReadMessages(const json& value) {
  std::vector<Message> messages;
  for (const json& item : value) {
    const auto role = item.find("role"), content = item.find("content");
    if (!item.is_object() || role == item.end() || content == item.end() || !role->is_string() || !content->is_string()) {
      throw Rejected{"bad_messages", "every message needs the texts 'role' and 'content'"};
    }
    if (std::find(kRoles.begin(), kRoles.end(), role->get<std::string>()) == kRoles.end()) {
      throw Rejected{"bad_messages", "unknown role '" + role->get<std::string>() + "' (system, user, assistant, tool)"};
    }
    messages.push_back({role->get<std::string>(), content->get<std::string>()});
  }
  if (messages.empty()) throw Rejected{"bad_messages", "no message in the list"};
  return messages;
}

// Which column plays a part: the mapped one, or the first known name that the row has. Empty: none.
template <size_t N>
std::string Column(const json& row, const ImportOptions& options, const char* part, const std::array<const char*, N>& known) {
  if (const auto mapped = options.map.find(part); mapped != options.map.end()) return mapped->second;
  for (const char* name : known) {
    if (row.contains(name)) return name;
  }
  return "";
}

struct Truth {
  std::string text;
  std::string column;   // "" when there is none
  bool gsm8k = false;
};

Truth ReadTruth(const json& row, const ImportOptions& options) {
  std::string column;
  for (const char* part : {"answer", "ground_truth"}) {
    if (const auto mapped = options.map.find(part); mapped != options.map.end()) column = mapped->second;
  }
  const bool asked = !column.empty();
  if (!asked) column = Column(row, options, "answer", kTruthColumns);
  const json* value = nullptr;
  if (!column.empty()) {
    if (!row.contains(column)) throw Rejected{"missing_answer", "no column '" + column + "'; the row has: " + Columns(row)};
    value = &row.at(column);
  } else {
    for (const char* name : kNestedTruth) {
      const auto nested = row.find(name);
      if (nested != row.end() && nested->is_object() && nested->contains("ground_truth")) value = &nested->at("ground_truth");
    }
  }
  if (value == nullptr) return {};
  if (!value->is_string()) return {value->is_null() ? "" : value->dump(), column};
  std::string text = value->get<std::string>();
  if (const size_t mark = text.rfind("####"); mark != std::string::npos) {
    text = Trimmed(std::string_view(text).substr(mark + 4));
    if (text.empty()) throw Rejected{"missing_answer", "nothing follows #### in '" + column + "'"};
    return {text, column, true};
  }
  return {text, column};
}

// system_prompt and prompt_suffix; a text becomes a message where a system message has to stand before it.
void Dress(const ImportOptions& options, std::string& text, std::vector<Message>& messages) {
  if (!options.system_prompt.empty()) {
    if (messages.empty()) messages.push_back({"user", std::exchange(text, "")});
    if (messages.front().role == "system") {
      messages.front().content = options.system_prompt;
    } else {
      messages.insert(messages.begin(), {"system", options.system_prompt});
    }
  }
  if (options.prompt_suffix.empty()) return;
  if (messages.empty()) {
    text += options.prompt_suffix;
    return;
  }
  const auto user = std::find_if(messages.rbegin(), messages.rend(), [](const Message& m) { return m.role == "user"; });
  if (user == messages.rend()) throw Rejected{"bad_messages", "no user message to put prompt_suffix on"};
  user->content += options.prompt_suffix;
}

// The dialogue in one column of a preference pair.
std::vector<Message> ReadDialogue(const json& value, const char* column) {
  if (value.is_array()) return ReadMessages(value);
  if (value.is_string()) {
    if (auto turns = ParseHumanAssistant(value.get<std::string>())) return std::move(*turns);
  }
  throw Rejected{"bad_prompt", std::string("'") + column + "' is neither a list of messages nor a \\n\\nHuman: ... dialogue"};
}

// A pair without a prompt of its own.
bool ImplicitPrompt(const json& row, const ImportOptions& options) {
  return row.contains("chosen") && row.contains("rejected") && Column(row, options, "prompt", kPromptColumns).empty();
}

std::string ReadPromptColumn(const json& row, const ImportOptions& options, std::string& text, std::vector<Message>& messages) {
  const std::string column = Column(row, options, "prompt", kPromptColumns);
  if (column.empty() || !row.contains(column)) {
    throw Rejected{"missing_prompt", (column.empty() ? "no column for the prompt (prompt, question, input)"
                                                     : "no column '" + column + "'") +
                                         std::string("; the row has: ") + Columns(row)};
  }
  const json& value = row.at(column);
  if (value.is_string()) {
    text = value.get<std::string>();
    if (Trimmed(text).empty()) throw Rejected{"empty_prompt", "'" + column + "' is empty"};
  } else if (value.is_array()) {
    messages = ReadMessages(value);
  } else {
    throw Rejected{"bad_prompt", "'" + column + "' is neither a text nor a list of messages"};
  }
  return column;
}

Prompt ReadPromptRow(const json& row, const ImportOptions& options, RowLedger& ledger) {
  Prompt prompt;
  prompt.dataset = options.dataset;
  std::string column;
  const bool implicit = ImplicitPrompt(row, options);
  if (implicit) {
    prompt.messages = SharedPrompt(ReadDialogue(row.at("chosen"), "chosen"), ReadDialogue(row.at("rejected"), "rejected"));
    if (prompt.messages.empty()) throw Rejected{"missing_prompt", "'chosen' and 'rejected' share no user's message"};
    if (ledger.format.empty()) ledger.format = "chosen+rejected";
  } else {
    column = ReadPromptColumn(row, options, prompt.text, prompt.messages);
  }
  const Truth truth = ReadTruth(row, options);
  prompt.ground_truth = truth.text;
  std::string weight_column;
  if (const auto mapped = options.map.find("weight"); mapped != options.map.end()) {
    weight_column = mapped->second;
    const auto value = row.find(weight_column);
    if (value == row.end() || !value->is_number() || !(value->get<double>() >= 0) || value->get<double>() > 1e6) {
      throw Rejected{"bad_weight", "'" + weight_column + "' is not a number in 0 .. 1e6"};
    }
    prompt.weight = value->get<double>();
  }
  json extra = json::object();
  for (const auto& [name, value] : row.items()) {
    // The worked solution of a GSM8K row stays readable for reward functions; the other answers are ground_truth itself.
    if (implicit && (name == "chosen" || name == "rejected")) continue;
    if (name == column || name == weight_column || (name == truth.column && !truth.gsm8k)) continue;
    extra[name] = value;
  }
  if (!extra.empty()) prompt.extra_json = extra.dump();
  Dress(options, prompt.text, prompt.messages);
  if (ledger.format.empty()) ledger.format = truth.gsm8k ? "gsm8k" : "prompt";
  return prompt;
}

std::vector<TextDemonstration> ReadDemonstrationRow(const json& row, const ImportOptions& options, RowLedger& ledger) {
  const std::string conversation = Column(row, options, "messages", std::array{"messages"});
  if (!conversation.empty() && row.contains(conversation) && !row.contains("completion")) {
    if (!row.at(conversation).is_array()) throw Rejected{"bad_messages", "'" + conversation + "' is not a list"};
    std::vector<TextDemonstration> turns;
    std::vector<Message> before;
    for (Message& message : ReadMessages(row.at(conversation))) {
      if (message.role == "assistant") {
        if (before.empty()) throw Rejected{"bad_messages", "the assistant speaks first: there is nothing to answer"};
        TextDemonstration turn{"", before, message.content};
        Dress(options, turn.prompt, turn.messages);
        turns.push_back(std::move(turn));
      }
      before.push_back(std::move(message));
    }
    if (turns.empty()) throw Rejected{"missing_completion", "no assistant message in '" + conversation + "'"};
    if (ledger.format.empty()) ledger.format = "messages";
    return turns;
  }
  TextDemonstration demonstration;
  ReadPromptColumn(row, options, demonstration.prompt, demonstration.messages);
  const std::string column = Column(row, options, "completion", std::array{"completion"});
  if (column.empty() || !row.contains(column)) {
    throw Rejected{"missing_completion", "no column '" + (column.empty() ? std::string("completion") : column) +
                                             "'; the row has: " + Columns(row)};
  }
  const json& value = row.at(column);
  if (value.is_string()) {
    demonstration.completion = value.get<std::string>();
  } else if (value.is_array()) {
    const auto messages = ReadMessages(value);
    if (messages.size() != 1 || messages[0].role != "assistant") {
      throw Rejected{"bad_messages", "'" + column + "' has to be one assistant message"};
    }
    demonstration.completion = messages[0].content;
  } else {
    throw Rejected{"bad_completion", "'" + column + "' is neither a text nor a message"};
  }
  if (demonstration.completion.empty()) throw Rejected{"missing_completion", "'" + column + "' is empty"};
  Dress(options, demonstration.prompt, demonstration.messages);
  if (ledger.format.empty()) ledger.format = "prompt+completion";
  return {std::move(demonstration)};
}

// Fills tokens and applies the policy for what is too long. False: cut (counted by the caller as truncated).
bool Tokenize(const ImportOptions& options, Prompt& prompt, const std::string& where) {
  if (!options.tokenize) return true;
  prompt.tokens = options.tokenize(prompt);
  if (prompt.tokens.empty()) throw Rejected{"empty_prompt", "the prompt has no tokens"};
  const size_t max = static_cast<size_t>(options.max_prompt_tokens);
  if (max == 0 || prompt.tokens.size() <= max) return true;
  const std::string text = std::to_string(prompt.tokens.size()) + " tokens, data.max_prompt_tokens is " + std::to_string(max);
  if (options.overlong == "drop") throw Rejected{"overlong", text};
  if (options.overlong == "error") {
    throw Error(ErrorCode::kInvalidArgument, text + ": raise it, or set data.overlong to drop, left or right", where);
  }
  if (options.overlong == "left") {
    prompt.tokens.erase(prompt.tokens.begin(), prompt.tokens.end() - static_cast<ptrdiff_t>(max));
  } else {
    prompt.tokens.resize(max);
  }
  return false;
}

void CheckOptions(const ImportOptions& options) {
  const auto refuse = [](const std::string& why) { throw Error(ErrorCode::kInvalidArgument, why); };
  constexpr std::array policies = {"error", "drop", "left", "right"};
  if (std::find(policies.begin(), policies.end(), options.overlong) == policies.end()) {
    refuse("data.overlong is '" + options.overlong + "'; it must be error, drop, left or right");
  }
  if (options.max_prompt_tokens < 0 || options.limit < 0) refuse("data.max_prompt_tokens and data.limit must not be negative");
  if (options.max_prompt_tokens > 0 && !options.tokenize) refuse("the length of prompts cannot be checked without a tokenizer");
  for (const auto& [key, column] : options.map) {
    if (std::find(kMapKeys.begin(), kMapKeys.end(), key) == kMapKeys.end()) {
      refuse("data.map has the unknown key '" + key + "'; known: prompt, answer, ground_truth, completion, messages, weight");
    }
  }
}

// Calls use(row, where, ledger) for each row, which says whether the row is used or passed over; what it throws as Rejected goes into the ledger.
template <class Use>
RowLedger ForEachRow(const std::string& path, const ImportOptions& options, Use use) {
  CheckOptions(options);
  RowLedger ledger;
  LineReader lines(path, options.max_line_bytes);
  std::string line, columns;
  while ((options.limit == 0 || ledger.used < options.limit) && lines.Next(line)) {
    if (!lines.too_long() && Trimmed(line).empty()) continue;
    ++ledger.read;
    try {
      if (lines.too_long()) throw Rejected{"line_too_long", "more than " + std::to_string(options.max_line_bytes) + " bytes"};
      if (!IsUtf8(line)) throw Rejected{"bad_utf8", "not valid UTF-8"};
      json row;
      try {
        row = ParseStrictJson(line);
      } catch (const Error& e) {
        throw Rejected{"bad_json", e.message()};
      }
      if (!row.is_object()) throw Rejected{"not_an_object", "a row has to be one JSON object on one line"};
      if (columns.empty()) columns = Columns(row);
      if (use(row, lines.Where(), ledger)) {
        ++ledger.used;
      } else {
        --ledger.read;
        ++ledger.skipped;
      }
    } catch (const Rejected& rejected) {
      ++ledger.rejected[rejected.reason];
      if (ledger.examples.size() < RowLedger::kMaxExamples) {
        ledger.examples.push_back(lines.Where() + ": " + rejected.reason + ": " + rejected.detail);
      }
    }
  }
  PLUMB_CHECK(ledger.read == ledger.used + ledger.TotalRejected(), ledger.Describe());
  if (ledger.used > 0) return ledger;
  if (ledger.read == 0) throw Error(ErrorCode::kInvalidArgument, "the dataset is empty: no rows in the file", path);
  std::string message = "no row of the dataset can be used: " + ledger.Describe();
  if (!columns.empty()) message += "; the first row has the columns " + columns + " (name them with data.map, e.g. prompt = \"...\")";
  for (size_t i = 0; i < std::min<size_t>(ledger.examples.size(), 3); ++i) message += "\n  " + ledger.examples[i];
  throw Error(ErrorCode::kInvalidArgument, message, path);
}

}  // namespace

int64_t RowLedger::TotalRejected() const {
  int64_t total = 0;
  for (const auto& [reason, n] : rejected) total += n;
  return total;
}

std::string RowLedger::Describe() const {
  std::string text = "read " + std::to_string(read) + " = used " + std::to_string(used);
  for (const auto& [reason, n] : rejected) text += " + " + std::to_string(n) + " " + reason;
  if (skipped > 0) text += ", after " + std::to_string(skipped) + " usable rows that were passed over";
  if (truncated > 0) text += " (" + std::to_string(truncated) + " of the used ones cut to length)";
  return text;
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
  imported.ledger = ForEachRow(path, options, [&](const json& row, const std::string& where, RowLedger& ledger) {
    Prompt prompt = ReadPromptRow(row, options, ledger);
    const bool whole = Tokenize(options, prompt, where);
    if (ledger.skipped < options.skip) return false;
    ledger.truncated += !whole;
    prompt.row = imported.prompts.size();
    imported.prompts.push_back(std::move(prompt));
    return true;
  });
  return imported;
}

ImportedDemonstrations ImportDemonstrations(const std::string& path, const ImportOptions& given) {
  ImportOptions options = given;
  options.max_prompt_tokens = 0;  // whoever packs demonstrations knows their whole length
  ImportedDemonstrations imported;
  imported.ledger = ForEachRow(path, options, [&](const json& row, const std::string&, RowLedger& ledger) {
    for (TextDemonstration& d : ReadDemonstrationRow(row, options, ledger)) imported.demonstrations.push_back(std::move(d));
    return true;
  });
  return imported;
}

}  // namespace plumb::replay
