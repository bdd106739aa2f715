// Every name of an option, other systems' among them, and the options that it may mean.
//
// Purpose: what a reader of recipes and the command line say of a name in the wrong place. Thread
// safety: pure functions. Errors: none.
#pragma once

#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "configs/config.h"
#include "configs/fields.h"
#include "configs/value_text.h"

namespace plumb::configs {

inline std::vector<std::string> Words(const char* text) {
  std::istringstream in(text);
  std::vector<std::string> out;
  for (std::string w; in >> w;) out.push_back(w);
  return out;
}

// Names and aliases of one table.
struct Names {
  std::vector<std::string> names;
  std::map<std::string, std::string> canonical;  // alias or name -> name
  template <class Field>
  void operator()(const FieldInfo& info, Field&) {
    names.push_back(info.name);
    canonical[info.name] = info.name;
    for (const std::string& alias : Words(info.aliases)) canonical.emplace(alias, info.name);
  }
};

template <class Table>
Names NamesOf() {
  Table table;
  Names names;
  table.Visit(names);
  return names;
}

// The text of the option that it is given a name of; empty: the table has none of it.
struct TextOf {
  std::string_view name;
  std::string text = {};
  template <class Field>
  void operator()(const FieldInfo& info, Field& field) {
    if constexpr (requires { Text(field); }) {
      if (name == info.name) text = Text(field);
    }
  }
};

template <class Table>
std::string DefaultText(std::string_view name) {
  Table defaults;
  TextOf of{name};
  defaults.Visit(of);
  return of.text;
}

// Every name and alias of every table -> where it belongs ("rollout.samples_per_prompt").
struct Index {
  std::multimap<std::string, std::string> places;
  template <class Table>
  void Section(const char* name, Table&) {
    const Names names = NamesOf<Table>();
    for (const auto& [word, canonical] : names.canonical)
      places.emplace(word, std::string(name) + "." + canonical);
  }
};

// "lr": optimizer.learning_rate first, for that is a run's own; none: it is no option's name.
inline std::vector<std::string> OptionsNamed(const std::string& name) {
  Index index;
  Config().Visit(index);
  std::vector<std::string> options;
  for (auto [at, end] = index.places.equal_range(name); at != end; ++at) {
    const auto first = at->second.starts_with("optimizer.") ? options.begin() : options.end();
    options.insert(first, at->second);
  }
  return options;
}

}  // namespace plumb::configs
