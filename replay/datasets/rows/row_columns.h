// The columns of one row of JSON: found by name, by `map` or by habit, and what is left over of
// them.
//
// Purpose: replay/datasets/rows/row_parser.cc asks here for columns and says what a row means.
// Thread safety: none; one Memory a parser.
// Ownership: views point into the parser's document and end with the next row. Errors: RowProblem.
#pragma once

#include <cstring>
#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <simdjson.h>

#include "replay/datasets/rows/odd_values.h"
#include "replay/datasets/rows/row_parser.h"

namespace plumb::replay {

// Of two keys: most that differ do so in length or first letter, and then nothing is called.
inline bool SameKey(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         (a.empty() || (a.front() == b.front() && std::memcmp(a.data(), b.data(), b.size()) == 0));
}

// The keys of one object. RowProblem where one stands twice, from Add or from End.
class KeysOnce {
 public:
  void Add(std::string_view key) {
    if (n_ == kFew) return many_.push_back(key);
    for (size_t i = 0; i < n_; ++i) {
      if (SameKey({few_[i].data, few_[i].size}, key)) Refuse(key);
    }
    few_[n_++] = {key.data(), key.size()};
  }
  void End() {
    if (!many_.empty()) EndMany();
  }

 private:
  void EndMany();
  [[noreturn]] static void Refuse(std::string_view twin);
  // Messages have two keys, rows a few: for them no memory is asked for, and none is cleared.
  static constexpr size_t kFew = 16;
  struct Key {
    const char* data;
    size_t size;
  };
  Key few_[kFew];  // the first n_
  size_t n_ = 0;
  std::vector<std::string_view> many_;
};
// in no object of it, however deep, may a key stand twice
void RefuseTwins(simdjson::dom::element value);

// Appends a key of a message, but for one that is null, to the JSON object of its further fields
// (common/record/trajectory.h), which is not closed yet. RowProblem for a `weight` or `train` that
// says neither yes nor no.
void AppendMessageField(std::string& fields, std::string_view key, simdjson::dom::element value);

// Without blanks and with the keys of every object in order: rows that say the same give the same
// text.
void AppendCanonical(std::string& out, simdjson::dom::element value);
std::string Canonical(simdjson::dom::element value);

struct Column {
  std::string_view name;
  simdjson::dom::element value;
  std::string Named() const { return "'" + std::string(name) + "'"; }  // for messages
};

// What a row needs for a moment; kept from row to row, so that a row like the one before asks for
// no memory.
struct Memory {
  std::vector<std::pair<std::string_view, simdjson::dom::element>> fields, rest;
  std::vector<bool> used;
  std::vector<Message> messages;  // of rows gone by, for their strings
  std::string message_fields;     // of the message that is read
  // The row has the tokens of its answers: one may be nothing but its end, and two may differ in
  // their tokens alone.
  bool sampled = false;

  void Append(std::vector<Message>& to, std::string_view role, std::string_view content) {
    if (messages.empty()) messages.emplace_back();
    to.push_back(std::move(messages.back()));
    messages.pop_back();
    to.back().role.assign(role);
    to.back().content.assign(content);
    to.back().fields_json.clear();
  }
  void TakeBack(std::vector<Message>& from) {
    for (Message& message : from) messages.push_back(std::move(message));
    from.clear();
  }
  void TakeBack(ParsedRow& row);  // leaves it as a new one
};

// The columns of one row, and which of them have been understood.
class Columns {
 public:
  // RowProblem where a key stands twice, however deep. `odd`: what was mended in the row.
  Columns(simdjson::dom::object row, const std::map<std::string, std::string>& map, bool convert,
          Memory& memory, std::span<const OddValue> odd = {})
      : memory_(memory),
        fields_(memory.fields),
        map_(map),
        convert_(convert),
        used_(memory.used),
        odd_(odd) {
    fields_.clear();
    KeysOnce keys;
    for (const auto [key, value] : row) {
      keys.Add(key);
      RefuseTwins(value);
      fields_.emplace_back(key, value);
    }
    keys.End();
    used_.assign(fields_.size(), false);
  }
  Memory& memory() { return memory_; }

  // The mapped column of `part`, else the first of `names` that the row has; a column that is null
  // counts as absent. RowProblem where it holds an odd value, unless nobody will read it (`part` is
  // "").
  std::optional<Column> Find(const char* part,
                             std::initializer_list<std::string_view> names) const {
    if (!map_.empty()) {
      if (const auto mapped = map_.find(part); mapped != map_.end())
        return Asked(part, mapped->second);
    }
    for (const std::string_view name : names) {
      if (auto column = Asked(part, name)) return column;
    }
    return std::nullopt;
  }
  bool Has(const char* part) const { return Find(part, {part}).has_value(); }
  // A column of one of these names is there, and is null in this row.
  bool HasNull(std::initializer_list<std::string_view> names) const {
    for (const auto& [key, value] : fields_) {
      for (const std::string_view name : names) {
        if (value.is_null() && SameKey(key, name)) return true;
      }
    }
    return false;
  }

  // RowProblem missing_column; used from then on
  Column Need(const char* part, std::initializer_list<std::string_view> names);
  std::optional<Column> Take(const char* part, std::initializer_list<std::string_view> names) {
    auto found = Find(part, names);
    if (found) Use(found->name);
    return found;
  }
  void Use(std::string_view name) {
    for (size_t i = 0; i < fields_.size(); ++i) {
      if (SameKey(fields_[i].first, name)) used_[i] = true;
    }
  }
  // Columns of these names that are null: they are understood, there is nothing in them.
  void UseNulls(std::initializer_list<std::string_view> names) {
    for (size_t i = 0; i < fields_.size(); ++i) {
      if (!fields_[i].second.is_null()) continue;
      for (const std::string_view name : names) {
        if (SameKey(fields_[i].first, name)) used_[i] = true;
      }
    }
  }
  // The columns of `object`, but for those of `without`, become columns of the row, where it has
  // none of the name that is not understood yet. They are what AppendRest appends; Find may still
  // give the one that was there first.
  void Unnest(simdjson::dom::object object, std::initializer_list<std::string_view> without) {
    const size_t own = fields_.size();
    for (const auto [key, value] : object) {
      bool taken = false;
      for (const std::string_view name : without) taken = taken || SameKey(key, name);
      for (size_t i = 0; i < own; ++i)
        taken = taken || (!used_[i] && SameKey(key, fields_[i].first));
      if (taken) continue;
      fields_.emplace_back(key, value);
      used_.push_back(false);
    }
  }
  bool Mapped(const char* part) const { return map_.contains(part); }
  const std::string& MappedTo(const char* part) const { return map_.at(part); }  // REQUIRES: Mapped
  // A column that was asked for by name and is not there is no optional one.
  void RequireMapped(std::initializer_list<const char*> parts) {
    for (const char* part : parts) {
      if (Mapped(part)) Need(part, {});
    }
  }

  std::string Text(const Column& column) const {
    if (!column.value.is_string()) throw RowProblem{"wrong_type", column.Named() + " is no text"};
    return std::string(std::string_view(column.value));
  }
  double Number(const Column& column) const;  // finite
  bool Boolean(const Column& column) const;
  // Appends what was not used, sorted by name, as one JSON object; nothing when nothing is left.
  // What the chat template gets to see of it (`tools`, `chat_template_kwargs`) keeps the order of
  // its keys: the template may write them as they stand.
  void AppendRest(std::string& out) const;
  std::string Names() const;  // for messages
  // Why a row may lack a column that it seems to have, for the end of a message: it is null, or its
  // name nearly is one that is known. "": neither.
  std::string NearMisses() const;
  // What became of a column that was asked for and not found: ", did you mean 'prompt'?" of those
  // that the row has, or that it is null.
  std::string Meant(std::string_view name) const;
  // "no column 'promt', did you mean 'prompt'? The row has: prompt"
  std::string NoColumn(const std::string& name) const;

 private:
  std::optional<Column> At(std::string_view name) const {
    for (const auto& [key, value] : fields_) {
      if (SameKey(key, name))
        return value.is_null() ? std::nullopt : std::optional<Column>({key, value});
    }
    return std::nullopt;
  }
  std::optional<Column> Asked(const char* part, std::string_view name) const {
    if (!odd_.empty() && *part != 0) RefuseOdd(part, name);
    return At(name);
  }
  void RefuseOdd(std::string_view part, std::string_view name) const;
  Memory& memory_;
  std::vector<std::pair<std::string_view, simdjson::dom::element>>& fields_;
  const std::map<std::string, std::string>& map_;
  const bool convert_;
  std::vector<bool>& used_;
  const std::span<const OddValue> odd_;
};

}  // namespace plumb::replay
