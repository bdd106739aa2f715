#include "replay/datasets/rows/row_turns.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include <simdjson.h>

#include "common/base/text.h"
#include "replay/datasets/rows/dialogue.h"
#include "replay/datasets/rows/row_detection.h"
#include "replay/datasets/rows/share_gpt.h"

namespace plumb::replay {
namespace {

namespace dom = simdjson::dom;

constexpr std::array<std::string_view, 7> kRoles = {"system", "developer", "user",   "assistant",
                                                    "tool",   "function",  "ipython"};

// The texts of `content` in a row: of a text, of a list of parts, or none of null. RowProblem where
// a part is no text.
void AppendContent(std::string& out, dom::element value, std::string_view column) {
  const auto refuse = [&](const std::string& what) {
    throw RowProblem{
        "bad_messages",
        what + " in 'content' of a message of '" + std::string(column) +
            "': it may be a text, null or a list of {\"type\": \"text\", \"text\": ...}"};
  };
  if (value.is_string()) {
    out.append(std::string_view(value));
  } else if (value.is_array()) {
    for (const dom::element part : dom::array(value)) {
      std::string_view type = "text", text;
      if (part.get(text) != simdjson::SUCCESS) {
        if (part["type"].get(type) == simdjson::SUCCESS && type != "text")
          refuse("a part of type '" + std::string(type.substr(0, 40)) + "'");
        if (part["text"].get(text) != simdjson::SUCCESS) refuse("a part without a text");
      }
      out.append(text);
    }
  } else if (!value.is_null()) {
    refuse("neither a text nor parts");
  }
}

// Whose messages are their content: an assistant's may be calls of tools alone.
bool IsSaid(std::string_view role) {
  return SameKey("user", role) || SameKey("system", role) || SameKey("developer", role);
}

// Appends a message with all that it says. What is null counts as absent, and an absent content as
// null where something else is said by who need not say it in words.
void ReadMessage(Memory& memory, dom::element item, std::string_view column,
                 std::vector<Message>& messages) {
  dom::object message;
  std::string_view role;
  dom::element content;
  bool has_role = false, has_content = false;
  std::string& fields = memory.message_fields;
  fields.clear();
  if (item.get(message) == simdjson::SUCCESS) {
    for (const auto [key, part] : message) {
      if (SameKey(key, "role")) {
        has_role = part.get(role) == simdjson::SUCCESS;
      } else if (SameKey(key, "content")) {
        content = part;
        has_content = true;
      } else {
        AppendMessageField(fields, key, part);
      }
    }
  }
  const bool silent = !has_content || content.is_null();
  if (!has_role || (silent && (fields.empty() || IsSaid(role)))) {
    throw RowProblem{"bad_messages", "every message of '" + std::string(column) +
                                         "' needs the texts 'role' and 'content'"};
  }
  if (std::none_of(kRoles.begin(), kRoles.end(),
                   [&](std::string_view known) { return SameKey(known, role); })) {
    std::string known;
    for (const std::string_view name : kRoles)
      known += (known.empty() ? "" : ", ") + std::string(name);
    throw RowProblem{"bad_messages",
                     "unknown role '" + std::string(role.substr(0, 40)) + "' (" + known + ")"};
  }
  memory.Append(messages, role, "");
  Message& out = messages.back();
  if (!silent) AppendContent(out.content, content, column);
  if (!silent && content.is_string()) {
    if (!fields.empty()) out.fields_json.append(fields).push_back('}');
    return;
  }
  out.fields_json = "{\"content\":";
  out.fields_json += silent ? "null" : simdjson::minify(content);
  if (!fields.empty()) out.fields_json.append(",").append(fields, 1);
  out.fields_json.push_back('}');
}

}  // namespace

void ReadMessages(Memory& memory, dom::element value, std::string_view column,
                  std::vector<Message>& messages) {
  if (IsShareTurn(value)) {
    AppendShareTurns(value, column, messages);
  } else {
    for (const dom::element item : dom::array(value)) ReadMessage(memory, item, column, messages);
  }
  if (messages.empty())
    throw RowProblem{"bad_messages", "no message in '" + std::string(column) + "'"};
}

void ReadTurns(Memory& memory, const Column& column, const char* empty_reason, std::string& text,
               std::vector<Message>& messages) {
  if (column.value.is_string()) {
    const std::string_view whole(column.value);
    if (Trim(whole).empty()) throw RowProblem{empty_reason, column.Named() + " is empty"};
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
  if (!memory.sampled && Trim(text).empty())
    throw RowProblem{"empty_completion", column.Named() + " is empty"};
  memory.Append(messages, "assistant", text);
}

void CheckAnswer(const std::vector<Message>& answer, const char* what, bool may_be_empty) {
  if (answer.empty())
    throw RowProblem{"empty_completion",
                     std::string("nothing follows the prompt in '") + what + "'"};
  if (answer.back().role != "assistant") {
    throw RowProblem{"bad_messages", std::string("'") + what + "' does not end with the assistant"};
  }
  if (!may_be_empty && Trim(answer.back().content).empty() && !CallsTools(answer.back())) {
    throw RowProblem{"empty_completion", std::string("'") + what + "' is empty"};
  }
}

void Precede(Columns& row, std::string& text, std::vector<Message>& prompt) {
  row.UseNulls({"system", "system_prompt", "history"});
  if (const auto tools = row.Find("", {"tools"});
      tools && tools->value.is_string() && Trim(std::string_view(tools->value)).empty()) {
    row.Use(tools->name);  // ShareGPT's way to say that there are none
  }
  std::vector<Message> before;
  if (const auto system = row.Find("system", {"system", "system_prompt"})) {
    if (system->value.is_string()) {
      row.Use(system->name);
      const std::string_view says(system->value);
      const bool twice = !prompt.empty() && prompt.front().role == "system" && !Trim(says).empty();
      if (twice && prompt.front().content != says) {
        throw RowProblem{"bad_messages", "two system messages: " + system->Named() +
                                             " and the first of the dialogue"};
      }
      if (!twice && !Trim(says).empty()) before.push_back({"system", std::string(says)});
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
    const bool there =
        prompt.size() >= system + turns.size() && std::equal(turns.begin(), turns.end(), behind);
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
  if (Trim(user).empty()) throw RowProblem{"empty_prompt", instruction.Named() + " is empty"};
  auto input = row.Find("input", {"input"});
  if (!input) {  // Dolly's name for it; where it is no text it is something else
    const auto context = row.Find("context", {"context"});
    if (context && context->value.is_string()) input = context;
  }
  if (input) {
    row.Use(input->name);
    const std::string more = row.Text(*input);
    if (!Trim(more).empty()) user += "\n\n" + more;
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
