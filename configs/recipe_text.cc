#include "configs/recipe_text.h"

#include <algorithm>
#include <functional>
#include <sstream>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/nearest.h"
#include "configs/defaults.h"
#include "configs/fields.h"
#include "configs/option_names.h"
#include "configs/value_text.h"

namespace plumb::configs {
namespace {

constexpr size_t kColumns = 100;       // of a commented recipe
constexpr size_t kCommentColumn = 34;  // where its comments begin, if the value leaves room
constexpr size_t kAdviceColumn = 40;   // width that a column of advice is worth having at

struct Printer {
  std::string out, tail;
  template <class Field>
  void operator()(const FieldInfo& info, Field& field) {
    if constexpr (std::is_same_v<Field, std::vector<RewardPartConfig>>) {
      for (RewardPartConfig& part : field) {
        Printer inner;
        part.Visit(inner);
        tail += "\n[[reward.parts]]\n" + inner.out;
      }
    } else {
      out += std::string(info.name) + " = " + Text(field) + "\n";
    }
  }
  template <class Table>
  void Section(const char* name, Table& table) {
    Printer inner;
    table.Visit(inner);
    out += (out.empty() ? "[" : "\n[") + std::string(name) + "]\n" + inner.out + inner.tail;
  }
};

// The names of a choice stand before its advice.
template <class Field>
std::string AdviceOf(const FieldInfo& info) {
  std::string advice = info.advice;
  if constexpr (Choice<Field>)
    advice = ListOfNames<Field>(" | ") + (advice.empty() ? "" : "; ") + advice;
  return advice;
}

// What an advice begins with: the unit, where the value does not show it anyway.
std::string UnitBefore(std::string_view unit) {
  const bool plain = unit == "1" || unit == "name" || unit == "bool";
  return plain ? "" : std::string(unit) + ": ";
}

struct Row {
  std::string key, value, origin, unit, advice;
};

struct Lister {
  const Origins& origins;
  std::string prefix;
  std::vector<Row>& rows;
  template <class Field>
  void operator()(const FieldInfo& info, Field& field) {
    if constexpr (std::is_same_v<Field, std::vector<RewardPartConfig>>) {
      for (size_t i = 0; i < field.size(); ++i) {
        Lister inner{origins, prefix + info.name + "." + std::to_string(i) + ".", rows};
        field[i].Visit(inner);
      }
    } else {
      const auto origin = origins.find(prefix + info.name);
      rows.push_back({prefix + info.name, Text(field),
                      origin == origins.end() ? "default" : origin->second, info.unit,
                      AdviceOf<Field>(info)});
    }
  }
  template <class Table>
  void Section(const char* name, Table& table) {
    Lister inner{origins, std::string(name) + ".", rows};
    table.Visit(inner);
  }
};

std::vector<Row> RowsOf(Config config, const Origins& origins) {  // Visit hands out references
  std::vector<Row> rows;
  Lister lister{origins, "", rows};
  config.Visit(lister);
  return rows;
}

// Characters that a terminal shows: bytes that do not go on with another's.
size_t Width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

// Bytes of the first `width` characters.
size_t Fitting(std::string_view text, size_t width) {
  size_t at = 0, shown = 0;
  for (; at < text.size(); ++at) {
    if ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) continue;
    if (shown++ == width) break;
  }
  return at;
}

// Lines of at most `width` characters, broken at a blank; a word that is longer is cut.
std::vector<std::string> Wrapped(std::string_view text, size_t width) {
  std::vector<std::string> lines;
  while (Width(text) > width) {
    const size_t fits = Fitting(text, width), blank = text.rfind(' ', fits);
    const bool between = blank != std::string_view::npos && blank > 0;
    lines.emplace_back(text.substr(0, between ? blank : fits));
    text.remove_prefix(between ? blank + 1 : fits);
  }
  lines.emplace_back(text);
  return lines;
}

std::string Padded(const std::string& text, size_t width) {
  return text + std::string(width - std::min(width, Width(text)), ' ');
}

// All columns but the advice have the width of their longest entry.
struct Columns {
  size_t key = 3, value = 5, origin = 6, unit = 4;

  explicit Columns(const std::vector<Row>& rows) {
    for (const Row& r : rows) {
      key = std::max(key, Width(r.key));
      value = std::max(value, std::min<size_t>(Width(r.value), 40));
      origin = std::max(origin, Width(r.origin));
      unit = std::max(unit, Width(r.unit));
    }
  }
  size_t before_advice() const { return key + value + origin + unit + 8; }
};

std::string SideBySide(const std::vector<Row>& rows, const Columns& c, size_t width) {
  const size_t room = width - c.before_advice();
  std::string out;
  const auto add = [&](const Row& r) {
    const std::vector<std::string> advice = Wrapped(r.advice, room);
    std::vector<std::string> value = {r.value};
    if (Width(r.value) > c.value) value = Wrapped(r.value, c.value);
    for (size_t i = 0; i < std::max(advice.size(), value.size()); ++i) {
      std::string line = Padded(i == 0 ? r.key : "", c.key + 2) +
                         Padded(i < value.size() ? value[i] : "", c.value + 2) +
                         Padded(i == 0 ? r.origin : "", c.origin + 2) +
                         Padded(i == 0 ? r.unit : "", c.unit + 2) +
                         (i < advice.size() ? advice[i] : "");
      line.erase(line.find_last_not_of(' ') + 1);
      out += line + "\n";
    }
  };
  add({"key", "value", "origin", "unit", "advice"});
  for (const Row& r : rows) add(r);
  return out;
}

std::string Stacked(const std::vector<Row>& rows, size_t width) {
  constexpr size_t kIndent = 4;
  std::string out;
  for (const Row& r : rows) {
    std::vector<std::string> lines = Wrapped(r.key + " = " + r.value, width - kIndent);
    for (size_t i = 0; i < lines.size(); ++i) {
      if (i > 0) lines[i].insert(0, kIndent, ' ');
    }
    const size_t used = Width(lines.back()) + 2 + Width(r.origin);
    if (used <= width) lines.back() += std::string(width - used + 2, ' ') + r.origin;
    else
      for (const std::string& line : Wrapped(r.origin, width - kIndent))
        lines.push_back(std::string(width - Width(line), ' ') + line);
    for (const std::string& line : Wrapped(UnitBefore(r.unit) + r.advice, width - kIndent))
      lines.push_back(std::string(kIndent, ' ') + line);
    for (const std::string& line : lines) out += line + "\n";
  }
  return out;
}

// Lines of "# ..." that fill the recipe's width.
std::string Comment(const std::string& text) {
  std::string out;
  std::istringstream in(text);
  for (std::string paragraph; std::getline(in, paragraph);) {
    if (paragraph.starts_with(" ")) {
      out += "#" + paragraph + "\n";
      continue;
    }
    for (const std::string& line : Wrapped(paragraph, kColumns - 2))
      out += line.empty() ? "#\n" : "# " + line + "\n";
  }
  return out;
}

struct Commenter {
  const std::set<std::string>& keys;
  const std::map<std::string, std::string>& remarks;
  std::string prefix = {};
  std::string out = {}, tail = {};
  bool quiet = false;

  template <class Field>
  void operator()(const FieldInfo& info, Field& field) {
    if constexpr (std::is_same_v<Field, std::vector<RewardPartConfig>>) {
      for (RewardPartConfig& part : field) {
        Commenter inner{keys, remarks, prefix + info.name + "."};
        inner.quiet = &part != field.data();  // the first part has said what each line is for
        part.Visit(inner);
        tail += "\n[[reward.parts]]\n" + inner.out;
      }
    } else {
      if (!keys.contains(prefix + info.name)) return;
      if (prefix == "reward.parts." && Text(field) == DefaultText<RewardPartConfig>(info.name))
        return;
      const std::string entry = std::string(info.name) + " = " + Text(field);
      if (quiet) {
        out += entry + "\n";
        return;
      }
      const size_t column = std::max(kCommentColumn, Width(entry) + 2);
      const bool behind = column + kAdviceColumn <= kColumns;
      const auto advice = Wrapped(UnitBefore(info.unit) + AdviceOf<Field>(info),
                                  kColumns - 2 - (behind ? column : 0));
      if (!behind) {
        for (const std::string& line : advice) out += "# " + line + "\n";
        out += entry + "\n";
        return;
      }
      for (size_t i = 0; i < advice.size(); ++i)
        out += Padded(i == 0 ? entry : "", column) + "# " + advice[i] + "\n";
    }
  }
  template <class Table>
  void Section(const char* name, Table& table) {
    Commenter inner{keys, remarks, std::string(name) + "."};
    table.Visit(inner);
    const auto remark = remarks.find(name);
    if (inner.out.empty() && inner.tail.empty()) return;
    out += "\n" + (remark == remarks.end() ? "" : Comment(remark->second));
    if (!inner.out.empty()) out += "[" + std::string(name) + "]\n" + inner.out;
    out += inner.out.empty() ? inner.tail.substr(1) : inner.tail;
  }
};

}  // namespace

std::string ToToml(const Config& config) {
  Config copy = config;  // Visit hands out references
  Printer printer;
  copy.Visit(printer);
  return printer.out;
}

std::string List(const Loaded& loaded, const ListingOptions& options) {
  std::vector<Row> rows = RowsOf(loaded.config, loaded.origins);
  if (!options.only.empty()) {
    std::vector<std::string> known;
    for (const Row& r : rows) {
      known.push_back(r.key);
      known.push_back(r.key.substr(0, r.key.find('.')));
    }
    const auto named = [&](const Row& r) {
      return std::string_view(r.key).substr(r.key.rfind('.') + 1).starts_with(options.only);
    };
    const auto begins = [&](const Row& r) { return r.key.starts_with(options.only); };
    // "beta": what other systems call so, too.
    const std::vector<std::string> called = OptionsNamed(options.only);
    const auto means = [&](const Row& r) {
      return named(r) || std::find(called.begin(), called.end(), r.key) != called.end();
    };
    // "learning_rate": of whichever section.
    if (std::any_of(rows.begin(), rows.end(), begins)) std::erase_if(rows, std::not_fn(begins));
    else std::erase_if(rows, std::not_fn(means));
    if (rows.empty()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "there is no section and no option that begins with '" + options.only + "'" +
                      DidYouMean(options.only, known));
    }
  }
  if (options.changed) {
    Config defaults = DefaultsOf(loaded.config.algorithm.name);
    defaults.reward.parts.resize(loaded.config.reward.parts.size());
    std::map<std::string, std::string> by_default;
    for (const Row& r : RowsOf(std::move(defaults), {})) by_default[r.key] = r.value;
    by_default["algorithm.name"] = Text(Config().algorithm.name);
    std::erase_if(rows, [&](const Row& r) { return r.value == by_default[r.key]; });
  }
  if (rows.empty()) return "";
  const Columns columns(rows);
  const size_t width = std::max<size_t>(options.width, 20);
  return columns.before_advice() + kAdviceColumn <= width ? SideBySide(rows, columns, width)
                                                          : Stacked(rows, width);
}

std::string CommentedToml(const Config& config, const std::set<std::string>& keys,
                          const std::map<std::string, std::string>& remarks) {
  Config copy = config;  // Visit hands out references
  Commenter commenter{keys, remarks};
  copy.Visit(commenter);
  const auto top = remarks.find("");
  return (top == remarks.end() ? "" : Comment(top->second)) + commenter.out;
}

}  // namespace plumb::configs
