#include "reward/part/truth.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "common/record/json_text.h"
#include "reward/maths/answer.h"

namespace plumb::reward {
namespace {

using Json = nlohmann::json;
constexpr int kDepth = 64;
constexpr std::string_view kNone = "the prompt has no ground truth to compare with";

Json Parsed(std::string_view text) {
  return TooDeep(text, kDepth) ? Json(Json::value_t::discarded) : Json::parse(text, nullptr, false);
}

// A text, a number, true or false as text; none for what is made of parts, and for null.
std::optional<std::string> Text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number() || value.is_boolean()) return value.dump();
  return std::nullopt;
}

// None where an element has no text.
std::optional<std::vector<std::string>> Texts(const Json& list) {
  std::vector<std::string> out;
  for (const Json& item : list) {
    auto text = Text(item);
    if (!text) return std::nullopt;
    out.push_back(std::move(*text));
  }
  return out;
}

// Whether one of the row's columns, or what verl keeps inside one, is this value.
bool InColumns(const Json& value, const Prompt& prompt) {
  const Json extra = Parsed(prompt.extra_json);
  if (!extra.is_object()) return false;
  for (const auto& [name, column] : extra.items()) {
    if (column == value) return true;
    const bool nested = (name == "reward_model" || name == "reward_spec") && column.is_object();
    if (nested && column.contains("ground_truth") && column["ground_truth"] == value) return true;
  }
  return false;
}

std::string Keys(const Json& object) {
  std::string out;
  for (const auto& [key, ignored] : object.items()) {
    if (out.size() > 200) return out + ", ...";
    out += (out.empty() ? "'" : ", '") + Shown(key, 40) + "'";
  }
  return out;
}

}  // namespace

std::vector<std::string> Truths(const Prompt& prompt, std::string* why, bool quoted) {
  const std::string& truth = prompt.ground_truth;
  if (truth.find_first_not_of(" \t\r\n") == std::string::npos) {
    *why = std::string(kNone) + TruthAdvice(prompt);
    return {};
  }
  if (truth.front() != '[' && truth.front() != '{') return {truth};
  const Json value = Parsed(truth);
  if (!value.is_array() && !value.is_object()) return {truth};
  const bool texts =
      quoted && value.is_array() &&
      std::any_of(value.begin(), value.end(), [](const Json& v) { return v.is_string(); });
  if (!texts && !InColumns(value, prompt)) return {truth};
  if (value.is_object()) {
    *why = "the ground truth is an object with the keys " +
           (value.empty() ? "(none)" : Keys(value)) +
           "; a rule compares with a text or a list of texts: put the right one into a column and "
           "name it with data.map";
    return {};
  }
  const auto out = Texts(value);
  if (!out || out->empty()) {
    *why = value.empty() ? "the ground truth is an empty list"
                         : "the ground truth is a list of lists, objects or nulls; a rule compares "
                           "with a text or a list of texts";
    return {};
  }
  return *out;
}

std::vector<std::string> References(const Prompt& prompt, const std::string& column,
                                    std::string* why) {
  if (column.empty()) return Truths(prompt, why);
  const Json extra = Parsed(prompt.extra_json);
  std::optional<std::vector<std::string>> out;
  if (extra.is_object() && extra.contains(column)) {
    const Json& value = extra[column];
    if (value.is_array()) {
      out = Texts(value);
    } else if (auto text = Text(value)) {
      out = {std::move(*text)};
    }
  }
  if (out && !out->empty()) return *out;
  *why = "the row's column '" + column + "' is no text and no list of texts to compare with";
  return {};
}

std::vector<std::string> UsualTruths(const Prompt& prompt) {
  const Json columns = Parsed(prompt.extra_json);
  std::vector<std::string> out;
  if (!columns.is_object()) return out;
  const auto filled = [](const Json& value) {
    if (value.is_string())
      return value.get_ref<const std::string&>().find_first_not_of(" \t\r\n") != std::string::npos;
    return value.is_number() || value.is_boolean() || (value.is_array() && !value.empty());
  };
  for (const char* name :
       {"answer", "solution", "solutions", "reference_answer", "expected_answer", "final_answer",
        "correct_answer", "gold_answer", "gold", "reference", "target", "answers", "expected"}) {
    const auto column = columns.find(name);
    if (column != columns.end() && filled(*column)) out.emplace_back(name);
  }
  return out;
}

std::string TruthAdvice(const Prompt& prompt) {
  const std::vector<std::string> columns = UsualTruths(prompt);
  if (columns.empty()) return "";
  return "; the column '" + columns[0] + "' looks like one: data.map = { answer = \"" + columns[0] +
         "\" }";
}

std::string_view Compared(std::string_view completion, const std::vector<std::string>& truths) {
  const bool thinks = std::any_of(truths.begin(), truths.end(), [](const std::string& t) {
    return t.find("</think>") != std::string::npos;
  });
  return thinks ? completion : AfterThinking(completion).value_or("");
}

}  // namespace plumb::reward
