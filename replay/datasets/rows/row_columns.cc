#include "replay/datasets/rows/row_columns.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "common/base/nearest.h"
#include "common/base/numbers/number_text.h"
#include "common/base/text.h"
#include "common/record/json_text.h"

namespace plumb::replay {

namespace dom = simdjson::dom;

void KeysOnce::Refuse(std::string_view twin) {
  throw RowProblem{"bad_json",
                   "the key '" + std::string(twin.substr(0, 60)) + "' stands twice in one object"};
}

void KeysOnce::EndMany() {
  for (const Key& key : few_) many_.emplace_back(key.data, key.size);
  std::sort(many_.begin(), many_.end());
  const auto twin = std::adjacent_find(many_.begin(), many_.end());
  if (twin != many_.end()) Refuse(*twin);
}

// The parser's depth bound holds here, too.
void RefuseTwins(dom::element value) {
  if (value.is_array()) {
    for (const dom::element item : dom::array(value)) RefuseTwins(item);
    return;
  }
  if (!value.is_object()) return;
  KeysOnce keys;
  for (const auto [key, item] : dom::object(value)) {
    keys.Add(key);
    if (item.is_object() || item.is_array()) RefuseTwins(item);
  }
  keys.End();
}

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
    std::sort(fields.begin(), fields.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
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
  } else if (value.is_int64()) {
    char digits[24];
    out.append(digits, std::to_chars(digits, digits + sizeof(digits), int64_t(value)).ptr);
  } else {
    out += simdjson::minify(value);
  }
}

std::string Canonical(dom::element value) {
  std::string out;
  AppendCanonical(out, value);
  return out;
}

void AppendMessageField(std::string& fields, std::string_view key, dom::element value) {
  if (value.is_null()) return;
  // Whether a message is learned is yes or no; half a weight would have to be honoured, and is not.
  double weight = 0;
  if (SameKey(key, "weight") &&
      !(value.get(weight) == simdjson::SUCCESS && (weight == 0 || weight == 1))) {
    throw RowProblem{"bad_messages", "the weight " + simdjson::minify(value).substr(0, 40) +
                                         " of a message: 0 (not learned) and 1 are taken"};
  }
  if (SameKey(key, "train") && !value.is_bool()) {
    throw RowProblem{"bad_messages", "'train' of a message is " +
                                         simdjson::minify(value).substr(0, 40) +
                                         ": true and false are taken"};
  }
  fields.push_back(fields.empty() ? '{' : ',');
  AppendJsonText(fields, key);
  fields.push_back(':');
  fields += simdjson::minify(value);
}

void Memory::TakeBack(ParsedRow& row) {
  TakeBack(row.prompt.messages), TakeBack(row.record.prompt), TakeBack(row.record.chosen),
      TakeBack(row.record.rejected);
  if (messages.size() > 64) messages.resize(64);
  Prompt& p = row.prompt;
  p.dataset.clear(), p.text.clear(), p.ground_truth.clear(), p.extra_json.clear(), p.tokens.clear();
  p.row = 0, p.weight = 1;
  PreferenceRecord& r = row.record;
  r.dataset.clear(), r.prompt_text.clear(), r.extra_json.clear();
  r.prompt_tokens.clear(), r.chosen_tokens.clear(), r.rejected_tokens.clear();
  row.notes.clear();
  r.kind = PreferenceKind::kPair, r.row = 0, r.desirable = false, r.margin = 0,
  r.has_margin = false, r.weight = 1;
}

void Columns::RefuseOdd(std::string_view part, std::string_view name) const {
  // The digits of a long number say all of it where a text is as good as a number.
  const bool truth = part == "answer" || part == "ground_truth" || part == "label" ||
                     part == "reward_model" || part == "reward_spec";
  for (const OddValue& odd : odd_) {
    if (odd.column != name || (truth && odd.kind == OddKind::kLongNumber)) continue;
    const bool bytes = odd.kind == OddKind::kBadUtf8 || odd.kind == OddKind::kBinary;
    throw RowProblem{bytes ? "bad_utf8" : "bad_json", Describe(odd) + ": " + Advice(odd.kind)};
  }
}

Column Columns::Need(const char* part, std::initializer_list<std::string_view> names) {
  auto found = Find(part, names);
  if (!found) {
    const auto mapped = map_.find(part);
    if (mapped == map_.end())
      throw RowProblem{"missing_column", "no column for '" + std::string(part) +
                                             "'; the row has: " + Names() + NearMisses()};
    throw RowProblem{"missing_column", NoColumn(mapped->second)};
  }
  Use(found->name);
  return *found;
}

double Columns::Number(const Column& column) const {
  double number = 0;
  if (column.value.is_number()) {
    number = double(column.value);
  } else if (column.value.is_string()) {
    const auto parsed = ParseNumber<double>(Trim(std::string_view(column.value)));
    if (!parsed) throw RowProblem{"wrong_type", column.Named() + " is no number"};
    if (!convert_)
      throw RowProblem{
          "number_as_text",
          column.Named() +
              " is a number written as text (`plumb data import --numbers-from-text` takes it)"};
    number = *parsed;
  } else {
    throw RowProblem{"wrong_type", column.Named() + " is no number"};
  }
  if (!std::isfinite(number)) throw RowProblem{"wrong_type", column.Named() + " is not finite"};
  return number;
}

bool Columns::Boolean(const Column& column) const {
  if (column.value.is_bool()) return bool(column.value);
  std::string text;
  if (column.value.is_string()) text = std::string(Trim(std::string_view(column.value)));
  if (column.value.is_number()) text = Canonical(column.value);
  const bool yes = text == "true" || text == "True" || text == "1",
             no = text == "false" || text == "False" || text == "0";
  if (!yes && !no) throw RowProblem{"wrong_type", column.Named() + " is neither true nor false"};
  if (!convert_)
    throw RowProblem{"number_as_text", column.Named() +
                                           " is true or false written as a number or a text "
                                           "(`plumb data import --numbers-from-text` takes it)"};
  return yes;
}

void Columns::AppendRest(std::string& out) const {
  auto& rest = memory_.rest;
  rest.clear();
  for (size_t i = 0; i < fields_.size(); ++i) {
    if (!used_[i]) rest.push_back(fields_[i]);
  }
  if (rest.empty()) return;
  std::sort(rest.begin(), rest.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t i = 0; i < rest.size(); ++i) {
    out.push_back(i == 0 ? '{' : ',');
    AppendJsonText(out, rest[i].first);
    out.push_back(':');
    if (SameKey(rest[i].first, "tools") || SameKey(rest[i].first, "chat_template_kwargs")) {
      out += simdjson::minify(rest[i].second);
    } else {
      AppendCanonical(out, rest[i].second);
    }
  }
  out.push_back('}');
}

std::string Columns::Names() const {
  std::string names;
  for (const auto& [key, value] : fields_) names += (names.empty() ? "" : ", ") + std::string(key);
  return names.empty() ? "none" : names;
}

std::string Columns::NearMisses() const {
  const std::vector<std::string> known = {"prompt",     "chosen",      "rejected",
                                          "completion", "messages",    "question",
                                          "answer",     "instruction", "completions"};
  std::string out;
  for (const auto& [key, value] : fields_) {
    const std::string name(key.substr(0, 100));
    const bool is_known = std::find(known.begin(), known.end(), name) != known.end();
    if (is_known && value.is_null()) out += "; '" + name + "' is null in this row";
    if (is_known || name.size() < 5) continue;
    const std::string meant = NearestName(name, known, 2);
    if (!meant.empty()) {
      const std::string part = meant == "question" ? "prompt" : meant;
      out += "; is '" + name + "' the column '" + meant + "'? (--map " + part + "=" + name +
             ", in a recipe data.map = { " + part + " = \"" + name + "\" })";
    }
  }
  return out;
}

std::string Columns::Meant(std::string_view name) const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : fields_) {
    if (SameKey(key, name)) return " (it is null in this row)";
    keys.emplace_back(key.substr(0, 100));
  }
  return DidYouMean(name, keys);
}

std::string Columns::NoColumn(const std::string& name) const {
  const std::string meant = Meant(name);
  return "no column '" + name + "'" + meant + (meant.ends_with("?") ? " The" : "; the") +
         " row has: " + Names();
}

}  // namespace plumb::replay
