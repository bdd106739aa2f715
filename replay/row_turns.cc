#include "replay/row_turns.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include <simdjson.h>

#include "replay/row_detection.h"
#include "replay/share_gpt.h"

namespace plumb::replay {
namespace {

namespace dom = simdjson::dom;

constexpr std::array<std::string_view, 4> kRoles = {"system", "user", "assistant", "tool"};

void ReadMessage(Memory& memory, dom::element item, std::string_view column,
                 std::vector<Message>& messages) {
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
    throw RowProblem{"bad_messages", "every message of '" + std::string(column) +
                                         "' needs the texts 'role' and 'content'"};
  }
  if (std::none_of(kRoles.begin(), kRoles.end(),
                   [&](std::string_view known) { return SameKey(known, role); })) {
    throw RowProblem{"bad_messages", "unknown role '" + std::string(role.substr(0, 40)) +
                                         "' (system, user, assistant, tool)"};
  }
  memory.Append(messages, role, content);
}

}  // namespace

void ReadMessages(Memory& memory, dom::element value, std::string_view column,
                  std::vector<Message>& messages) {
  if (IsShareTurn(value)) {
    AppendShareTurns(value, column, messages);
  } else {
    for (const dom::element item : dom::array(value)) ReadMessage(memory, item, column, messages);
  }
  if (messages.empty()) throw RowProblem{"bad_messages", "no message in '" + std::string(column) + "'"};
}

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

void ReadAnswer(Memory& memory, const Column& column, std::vector<Message>& messages) {
  if (IsShareTurn(column.value)) return AppendShareTurns(column.value, column.name, messages);
  if (column.value.is_object()) return ReadMessage(memory, column.value, column.name, messages);
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

void Precede(Columns& row, std::string& text, std::vector<Message>& prompt) {
  row.UseNulls({"system", "system_prompt", "history"});
  std::vector<Message> before;
  if (const auto system = row.Find("system", {"system", "system_prompt"})) {
    if (system->value.is_string()) {
      row.Use(system->name);
      const std::string_view says(system->value);
      const bool twice =
          !prompt.empty() && prompt.front().role == "system" && !Trimmed(says).empty();
      if (twice && prompt.front().content != says) {
        throw RowProblem{"bad_messages", "two system messages: " + system->Named() +
                                             " and the first of the dialogue"};
      }
      if (!twice && !Trimmed(says).empty()) before.push_back({"system", std::string(says)});
    } else if (row.Mapped("system")) {
      throw RowProblem{"wrong_type", system->Named() + " is no text"};
    }
  }
  if (const auto history = row.Find("history", {"history"});
      history && (history->value.is_array() || row.Mapped("history"))) {
    row.Use(history->name);
    if (!history->value.is_array())
      throw RowProblem{"wrong_type", history->Named() + " is no list"};
    std::vector<Message> turns;
    if (!AppendHistory(history->value, history->name, turns))
      ReadMessages(row.memory(), history->value, history->name, turns);
    const size_t system = !prompt.empty() && prompt.front().role == "system" ? 1 : 0;
    const auto behind = prompt.begin() + static_cast<ptrdiff_t>(system);
    const bool there = prompt.size() >= system + turns.size() &&
                       std::equal(turns.begin(), turns.end(), behind);
    if (!there) {
      std::move(prompt.begin(), behind, std::back_inserter(before));  // it stays in front
      prompt.erase(prompt.begin(), behind);
      std::move(turns.begin(), turns.end(), std::back_inserter(before));
    }
  }
  if (before.empty()) return;
  if (!text.empty()) prompt.push_back({"user", std::exchange(text, "")});
  std::move(prompt.begin(), prompt.end(), std::back_inserter(before));
  prompt = std::move(before);
}

void NotePreceding(const Columns& row, std::vector<RowNote>& notes) {
  const auto system = row.Find("", {"system", "system_prompt"}),
             history = row.Find("", {"history"});
  if ((system && system->value.is_string()) || (history && history->value.is_array())) {
    notes.push_back(
        {"'system' or 'history' beside texts that are whole and no dialogue: left among the other "
         "columns",
         ""});
  }
}

void ReadInstruction(Columns& row, const Column& instruction, std::vector<Message>& messages) {
  row.Use(instruction.name);
  row.UseNulls({"input"});
  std::string user = row.Text(instruction);
  if (Trimmed(user).empty()) throw RowProblem{"empty_prompt", instruction.Named() + " is empty"};
  auto input = row.Find("input", {"input"});
  if (!input) {  // Dolly's name for it; where it is no text it is something else
    const auto context = row.Find("context", {"context"});
    if (context && context->value.is_string()) input = context;
  }
  if (input) {
    row.Use(input->name);
    const std::string more = row.Text(*input);
    if (!Trimmed(more).empty()) user += "\n\n" + more;
  }
  messages.push_back({"user", std::move(user)});
}

void ReadPromptColumns(Columns& row, std::string& text, std::vector<Message>& messages) {
  const auto found = FindPrompt(row);
  const Column column =
      found ? *found : row.Need("prompt", {"prompt", "question", "instruction", "input"});
  if (IsInstruction(row, column)) return ReadInstruction(row, column, messages);
  row.Use(column.name);
  ReadTurns(row.memory(), column, "empty_prompt", text, messages);
}

}  // namespace plumb::replay
