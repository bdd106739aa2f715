// TOML and --set into a Config, every problem collected.
#include <algorithm>
#include <cctype>
#include <limits>
#include <set>
#include <sstream>
#include <type_traits>
#include <utility>

#include "common/base/error.h"
#include "common/base/nearest.h"
#include "common/base/text.h"
#include "configs/checks/adapter_asked_for.h"
#include "configs/checks/option_owners.h"
#include "configs/checks/unread_options.h"
#include "configs/checks/unusual_values.h"
#include "configs/config.h"
#include "configs/defaults.h"
#include "configs/fields.h"
#include "configs/foreign/foreign_meaning.h"
#include "configs/foreign/foreign_paths.h"
#include "configs/foreign/foreign_values.h"
#include "configs/foreign/set_names.h"
#include "configs/foreign/taken_names.h"
#include "configs/foreign/toml_table.h"
#include "configs/foreign/what_else.h"
#include "configs/foreign_names.h"
#include "configs/option_names.h"
#include "configs/recipe_problems.h"
#include "configs/value_text.h"

namespace plumb::configs {
namespace {

constexpr size_t kMaxParts = 1000;    // reward parts
constexpr size_t kMaxProblems = 100;  // said in one message; the others are counted

class Parser {
 public:
  Parser(std::string file, Origins& origins, std::vector<std::string>& problems)
      : file_(std::move(file)), origins_(origins), problems_(problems) {
    Config().Visit(index_);
  }

  template <class Table>
  void Read(const toml::table& in, const std::string& prefix, Table& out) {
    const Names names = NamesOf<Table>();
    std::map<std::string, const toml::node*> given;
    for (const auto& [key_object, node] : in) {
      const std::string key(key_object.str());
      const auto known = names.canonical.find(key);
      if (known == names.canonical.end()) {
        // A misspelt name is short: the rest of a long one is neither compared nor repeated.
        if (problems_.size() < kMaxProblems)
          Unknown(Place(key_object.source()), prefix + key.substr(0, 100), names.names, prefix);
        else problems_.emplace_back();
        continue;
      }
      const std::string first = std::exchange(given_as_[prefix + known->second], key);
      if (!given.emplace(known->second, &node).second) {
        problems_.push_back(Place(node.source()) + ": " + prefix + known->second +
                            " is given twice, as '" + first + "' and as '" + key +
                            "': keep one of them");
      }
    }
    Assign assign{*this, given, prefix};
    out.Visit(assign);
  }

  void Unknown(const std::string& place, const std::string& key,
               const std::vector<std::string>& known, const std::string& prefix) {
    const std::string last = key.substr(key.rfind('.') + 1);
    if (const std::string here = ForeignKey(key); !here.empty()) {
      problems_.push_back(place + ": unknown key '" + key + "': here " + here);
      return;
    }
    // The right name in the wrong table, or in none.
    std::set<std::string> homes;
    for (auto [at, end] = index_.places.equal_range(last); at != end; ++at)
      homes.insert(at->second);
    // Of an adapter, which has to be asked for, too.
    if (homes.size() == 1 && (homes.contains("policy.rank") || homes.contains("policy.alpha"))) {
      problems_.push_back(place + ": unknown key '" + key + "': here " + ForeignKey("lora_rank"));
      return;
    }
    if (!homes.empty()) {
      std::string list;
      for (const std::string& home : OwnFirst({homes.begin(), homes.end()}, algorithm_))
        list += (list.empty() ? "" : " or ") + home + OwnersUnless(algorithm_, home);
      problems_.push_back(place + ": unknown key '" + key + "': here it is " + list);
      return;
    }
    if (const std::string here = ForeignKey(last); !here.empty()) {
      problems_.push_back(place + ": unknown key '" + key + "': here " + here);
      return;
    }
    // Of this table first; of all tables, aliases too, where that is much nearer.
    std::vector<std::string> words;
    for (const auto& [word, home] : index_.places) words.push_back(word);
    const size_t near = std::max<size_t>(2, last.size() / 3);
    std::string meant = NearestName(last, known);
    const std::string anywhere = NearestName(last, words, std::max<size_t>(2, last.size() / 4));
    if (!anywhere.empty() && EditDistance(last, anywhere) + 1 < EditDistance(last, meant)) {
      std::set<std::string> places;
      for (auto [at, end] = index_.places.equal_range(anywhere); at != end; ++at)
        places.insert(at->second);
      meant.clear();
      for (const std::string& home : places) meant += (meant.empty() ? "" : "' or '") + home;
      meant += places.begin()->ends_with("." + anywhere) ? "'" : "' ('" + anywhere + "' elsewhere)";
    } else if (EditDistance(last, meant) > near) {
      meant.clear();
    } else if (!meant.empty()) {
      meant = prefix + meant + "'";
    }
    std::string there;  // nothing is near: what there is to choose from, once
    if (meant.empty()) {
      for (const std::string& name : known)
        there += (there.empty() ? "; known here: " : ", ") + name;
      if (!listed_.insert(there).second) there.clear();
    }
    problems_.push_back(place + ": unknown key '" + key + "'" +
                        (meant.empty() ? there : ", did you mean '" + meant + "?"));
  }

  std::string Place(const toml::source_region& source) const {
    return override_.empty() ? file_ + ":" + std::to_string(source.begin.line)
                             : "--set " + override_;
  }
  void set_override(const std::string& text) { override_ = text; }
  // Where the option that a problem speaks of was given, and first of all on the command line: that
  // is what was typed last. The file, where none was.
  std::string PlaceOf(const std::string& problem) const {
    std::pair<bool, size_t> first = {true, std::string::npos};  // of the file, at
    std::string place = file_;
    for (const auto& [key, given] : places_) {
      const std::pair now(!given.starts_with("--set"), MentionOf(key, problem));
      if (now.second == std::string::npos || now >= first) continue;
      first = now;
      place = given;
    }
    return place;
  }
  const GivenNames& given_as() const { return given_as_; }
  const TakenNames& names_taken() const { return names_taken_; }
  void set_algorithm(AlgorithmName name) { algorithm_ = name; }
  // The name that the last mention of an option used; empty: it was not given.
  std::string GivenAs(const std::string& key) const {
    const auto found = given_as_.find(key);
    return found == given_as_.end() ? "" : found->second;
  }

 private:
  struct Assign {
    Parser& parser;
    const std::map<std::string, const toml::node*>& given;
    const std::string& prefix;
    template <class Field>
    void operator()(const FieldInfo& info, Field& field) {
      const auto found = given.find(info.name);
      if (found == given.end()) return;
      parser.Convert(*found->second, prefix + info.name, field);
      const std::string place = parser.Place(found->second->source()), option = prefix + info.name;
      parser.names_taken_.Take(option, prefix + parser.GivenAs(option), parser.override_);
      parser.origins_[prefix + info.name] = parser.override_.empty() ? place : "--set";
      parser.places_[prefix + info.name] = place;
      // A table's names are each an option of their own, and a list of parts has none.
      if constexpr (requires { Text(field); } && !IsMap<Field>) {
        if (!parser.override_.empty()) parser.SetAs(prefix + info.name, Text(field));
      }
    }
  };

  template <class Field>
  static constexpr bool IsMap = std::is_same_v<Field, std::map<std::string, std::string>>;

  void SetAs(const std::string& option, const std::string& value) {
    const std::string wrong = set_names_.Give(option, value, override_);
    if (!wrong.empty()) problems_.push_back("--set " + override_ + ": " + wrong);
  }

  // npos: only a part of another name, or not at all.
  static size_t MentionOf(const std::string& key, const std::string& text) {
    const auto within = [&](size_t at) {
      if (at >= text.size()) return false;
      const auto c = static_cast<unsigned char>(text[at]);
      return std::isalnum(c) != 0 || c == '_';
    };
    for (size_t at = text.find(key); at != std::string::npos; at = text.find(key, at + 1)) {
      const size_t end = at + key.size();
      const bool goes_on =
          within(end) || (end < text.size() && text[end] == '.' && within(end + 1));
      if (!goes_on && (at == 0 || (!within(at - 1) && text[at - 1] != '.'))) return at;
    }
    return std::string::npos;
  }

  // A number that is too large comes as a text, too, where it is given by --set.
  std::string DigitsInQuotes(const std::string& digits) const {
    const bool fits = digits.size() < 19;
    return (override_.empty() && fits ? std::string() : " of at most 64 bits") +
           (fits ? ", without quotes: " + digits : "");
  }
  // Of an option under a name of another system that has values of its own: that it has not this
  // one. `also`: what else it takes.
  bool NotTheirs(const toml::node& node, const std::string& key, std::string name,
                 const std::string& also) {
    const std::string there = GivenAs(key), table = key.substr(0, key.find('.'));
    const std::vector<std::string> values = ForeignValuesOf(table, there);
    if (values.empty()) return false;
    name.resize(std::min<size_t>(name.size(), 100));
    std::string list;
    for (const std::string& value : values) list += (list.empty() ? "" : ", ") + value;
    const std::string meant = DidYouMean(name, values);
    problems_.push_back(Place(node.source()) + ": " + table + "." + there + " = \"" + name +
                        "\" is not known" + (meant.empty() ? ": use" : meant + " Use") +
                        " one of " + list + "; or " + also);
    return true;
  }
  void Wrong(const toml::node& node, const std::string& key, const std::string& wanted) {
    std::ostringstream type;
    type << node.type();
    const auto text = node.value_exact<std::string>();  // --set takes what is no TOML for a text
    const bool digits =
        text && !text->empty() &&
        text->find_first_not_of("0123456789", text->starts_with('-') ? 1 : 0) == std::string::npos;
    const std::string foreign = text ? ForeignValue(key, *text) : "";
    problems_.push_back(Place(node.source()) + ": " + key + " has to be " + wanted +
                        (digits ? DigitsInQuotes(*text) : ", not " + type.str()) +
                        (foreign.empty() ? "" : ": " + foreign));
  }

  void Convert(const toml::node& node, const std::string& key, std::string& out) {
    const auto v = node.value_exact<std::string>();
    if (!v) return Wrong(node, key, "a string in quotes");
    // Behind it a path would be cut, and another file taken.
    if (v->find('\0') != std::string::npos)
      problems_.push_back(Place(node.source()) + ": " + key + " holds the character NUL (\\u0000)");
    else out = *v;
  }
  // TRL's log_completions is true or false: all answers, or what is logged anyway.
  void Convert(const toml::node& node, const std::string& key, SampleLog& out) {
    if (GivenAs(key) != "log_completions") return Convert<SampleLog>(node, key, out);
    bool all = false;
    Convert(node, key, all);
    out = all ? SampleLog::kAll : SampleLog::kSome;
  }
  template <Choice E>
  void Convert(const toml::node& node, const std::string& key, E& out) {
    std::string name;
    const size_t before = problems_.size();
    Convert(node, key, name);
    if (problems_.size() > before) return;
    if (const auto value = FromName<E>(name)) {
      out = *value;
      return;
    }
    const std::vector<std::string> names(kNames<E>.begin(), kNames<E>.end());
    if (const std::string foreign = ForeignValue(key, name); !foreign.empty()) {
      problems_.push_back(Place(node.source()) + ": " + key + " = \"" + name +
                          "\" is not known here: " + foreign);
      return;
    }
    if (NotTheirs(node, key, name, key + ", " + ListOfNames<E>())) return;
    name.resize(std::min<size_t>(name.size(), 100));
    const std::string meant = DidYouMean(name, names);
    problems_.push_back(Place(node.source()) + ": " + key + " = \"" + name + "\" is not known" +
                        (meant.empty() ? ": use" : meant + " Use") + " one of " + ListOfNames<E>());
  }
  void Convert(const toml::node& node, const std::string& key, bool& out) {
    if (const auto v = node.value_exact<bool>()) {
      out = *v;
      return;
    }
    const auto text = node.value_exact<std::string>();
    if (!text || !NotTheirs(node, key, *text, "true or false")) Wrong(node, key, "true or false");
  }
  void Convert(const toml::node& node, const std::string& key, int64_t& out) {
    if (const auto v = node.value_exact<int64_t>()) out = *v;
    else Wrong(node, key, "a whole number");
  }
  void Convert(const toml::node& node, const std::string& key, uint64_t& out) {
    const auto v = node.value_exact<int64_t>();
    if (v && *v >= 0) out = static_cast<uint64_t>(*v);
    else Wrong(node, key, "a whole number >= 0");
  }
  void Convert(const toml::node& node, const std::string& key, double& out) {
    if (const auto v = node.value_exact<double>()) out = *v;
    else if (const auto i = node.value_exact<int64_t>()) out = static_cast<double>(*i);
    else Wrong(node, key, "a number");
  }
  void Convert(const toml::node& node, const std::string& key, std::vector<std::string>& out) {
    const toml::array* array = node.as_array();
    if (!array) {
      const auto one = node.value_exact<std::string>();
      std::ostringstream list;  // what was meant, as it is written
      if (one) list << toml::array(one->substr(0, 100));
      return Wrong(node, key, "a list of strings, " + (one ? list.str() : "[\"a\", \"b\"]"));
    }
    out.clear();
    for (const toml::node& element : *array) {
      out.emplace_back();
      Convert(element, key, out.back());
    }
  }
  void Convert(const toml::node& node, const std::string& key,
               std::map<std::string, std::string>& out) {
    const toml::table* table = node.as_table();
    if (!table) return Wrong(node, key, "a table of strings (with --set: " + key + ".name=value)");
    for (const auto& [name, value] : *table)
      Convert(value, key + "." + std::string(name.str()), out[std::string(name.str())]);
  }
  void Convert(const toml::node& node, const std::string& key, std::vector<RewardPartConfig>& out) {
    const toml::array* array = node.as_array();
    if (!array) return Wrong(node, key, "a list of tables, [[reward.parts]]");
    if (array->size() > kMaxParts) {
      problems_.push_back(Place(node.source()) + ": " + key + " has " +
                          std::to_string(array->size()) + " entries, more than " +
                          std::to_string(kMaxParts));
      return;
    }
    out.clear();
    for (const toml::node& element : *array) {
      out.emplace_back();
      if (const toml::table* table = element.as_table()) {
        Read(*table, key + "." + std::to_string(out.size() - 1) + ".", out.back());
      } else {
        Wrong(element, key, "a table");
      }
    }
  }

  const std::string file_;
  std::string override_;
  Index index_;
  GivenNames given_as_;
  SetNames set_names_;
  TakenNames names_taken_;
  AlgorithmName algorithm_ = AlgorithmConfig().name;
  std::map<std::string, std::string> places_;
  Origins& origins_;
  std::set<std::string> listed_;  // the names of tables that were said
  std::vector<std::string>& problems_;
};

// One table of the top level.
struct Sections {
  Parser& parser;
  const toml::table& root;
  template <class Table>
  void Section(const char* name, Table& table) {
    const toml::node* node = root.get(name);
    if (node && node->is_table()) parser.Read(*node->as_table(), std::string(name) + ".", table);
  }
};

struct SectionNames {
  std::vector<std::string> names;
  template <class Table>
  void Section(const char* name, Table&) {
    names.emplace_back(name);
  }
};

void ReadRoot(toml::table root, Parser& parser, ForeignMentions& mentions,
              std::vector<std::string>& problems, Config& config) {
  MoveForeignPaths(
      root,
      {.place = [&](const toml::source_region& source) { return parser.Place(source); },
       .unknown = [&](const std::string& place,
                      const std::string& key) { parser.Unknown(place, key, {}, ""); }},
      mentions, problems);
  const auto algorithm = root["algorithm"]["name"].value<std::string>();
  parser.set_algorithm(
      FromName<AlgorithmName>(algorithm.value_or("")).value_or(config.algorithm.name));
  SectionNames known;
  config.Visit(known);
  for (const auto& [key, node] : root) {
    const std::string name(key.str());
    if (std::find(known.names.begin(), known.names.end(), name) == known.names.end()) {
      parser.Unknown(parser.Place(key.source()), name.substr(0, 100), known.names, "");
    } else if (!node.is_table()) {
      problems.push_back(parser.Place(node.source()) + ": " + name + " has to be a table, [" +
                         name + "]");
    }
  }
  Sections sections{parser, root};
  config.Visit(sections);
}

// toml++ bounds how deep values nest but not the parts of a dotted key, and takes tables apart by
// recursion: a megabyte of "a." overflows the stack. No key here has more than three parts; text
// without a comma, bracket or sign has no thousand dots.
void RefuseEndlessKeys(std::string_view text, const std::string& where) {
  constexpr size_t kMaxDots = 1000;
  size_t dots = 0;
  for (const char c : text) {
    if (c == '.') {
      if (++dots > kMaxDots)
        throw Error(
            ErrorCode::kInvalidArgument,
            "not valid TOML here: a key of more than " + std::to_string(kMaxDots) + " parts",
            where);
    } else if (!std::isalnum(static_cast<unsigned char>(c)) &&
               std::string_view("_-\"' \t").find(c) == std::string_view::npos) {
      dots = 0;
    }
  }
}

// "a.b=c" as a TOML document. A value that is not TOML by itself is taken as a string, but for
// Python's way to write true and false, as other systems' command lines have it.
toml::table ParseOverride(const std::string& key, const std::string& value) {
  RefuseEndlessKeys(key + "=" + value, "--set");
  std::vector<std::string> path;
  std::istringstream in(key);
  for (std::string part; std::getline(in, part, '.');) path.push_back(part);
  std::string head;
  for (size_t i = 0; i < path.size(); ++i) head += (i ? "." : "") + path[i];
  try {
    return toml::parse(head + " = " +
                       (value == "True"    ? "true"
                        : value == "False" ? "false"
                                           : value));
  } catch (const toml::parse_error&) {
    std::ostringstream quoted;
    quoted << toml::value<std::string>(value);
    return toml::parse(head + " = " + quoted.str());
  }
}

// What numbers there are, and that of the part that `name` names.
std::string NumbersOfParts(const std::string& name, const std::vector<RewardPartConfig>& parts) {
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!name.empty() &&
        (parts[i].name == name || (parts[i].name.empty() && parts[i].kind == name)))
      return "; numbers begin at 0, part '" + name.substr(0, 100) + "' is reward.parts." +
             std::to_string(i);
  }
  return "; numbers begin at 0, the recipe has " + std::to_string(parts.size()) +
         (parts.size() == 1 ? " part" : " parts");
}

// --set reward.parts.N.key=value reaches into the list; the number behind the last makes a new one.
bool OverridePart(const std::string& key, const std::string& value, Parser& parser,
                  std::vector<std::string>& problems, Config& config) {
  const std::string prefix = "reward.parts.";
  if (key.rfind(prefix, 0) != 0) return false;
  const size_t dot = key.find('.', prefix.size());
  const std::string number =
      key.substr(prefix.size(), dot == std::string::npos ? dot : dot - prefix.size());
  if (dot == std::string::npos || number.empty() || number.size() > 4 ||
      !std::all_of(number.begin(), number.end(), [](unsigned char c) { return std::isdigit(c); })) {
    problems.push_back("--set " + key + ": use reward.parts.NUMBER.KEY=VALUE" +
                       NumbersOfParts(number, config.reward.parts));
    return true;
  }
  const size_t index = static_cast<size_t>(std::strtoul(number.c_str(), nullptr, 10));
  const size_t parts = config.reward.parts.size();
  if (index > parts) {
    problems.push_back("--set " + key + ": the recipe has " + std::to_string(parts) +
                       " reward parts; the next one is reward.parts." + std::to_string(parts));
    return true;
  }
  if (index == parts) config.reward.parts.emplace_back();
  parser.Read(ParseOverride(key.substr(dot + 1), value), key.substr(0, dot + 1),
              config.reward.parts[index]);
  return true;
}

struct DefaultOrigins {
  Origins& origins;
  std::string prefix;
  template <class Field>
  void operator()(const FieldInfo& info, Field&) {
    origins.emplace(prefix + info.name, "default");
  }
  template <class Table>
  void Section(const char* name, Table& table) {
    DefaultOrigins inner{origins, std::string(name) + "."};
    table.Visit(inner);
  }
};

}  // namespace

void ThrowProblems(const std::vector<std::string>& problems, ErrorCode code) {
  if (problems.empty()) return;
  std::string all = problems.size() == 1 ? "" : std::to_string(problems.size()) + " problems:";
  for (size_t i = 0; i < std::min(problems.size(), kMaxProblems); ++i)
    all += (problems.size() == 1 ? "" : "\n  ") + problems[i];
  if (problems.size() > kMaxProblems)
    all += "\n  and " + std::to_string(problems.size() - kMaxProblems) + " more";
  throw Error(code, all);
}

Loaded ParseRecipe(const std::string& text, const std::string& name,
                   const std::vector<std::string>& overrides, std::vector<std::string>& problems,
                   std::vector<std::string>* notes) {
  RefuseEndlessKeys(text, name);
  Loaded loaded;
  Parser parser(name, loaded.origins, problems);
  ForeignMentions mentions;
  try {
    ReadRoot(toml::parse(text, name), parser, mentions, problems, loaded.config);
  } catch (const toml::parse_error& e) {
    throw Error(ErrorCode::kInvalidArgument,
                "not valid TOML: " + std::string(e.description()) + WhatElse(text, name),
                name + ":" + std::to_string(e.source().begin.line));
  }
  for (const std::string& item : overrides) {
    const size_t eq = item.find('=');
    if (eq == std::string::npos || eq == 0) {
      problems.push_back("--set " + item + ": use section.key=value");
      continue;
    }
    const std::string key = item.substr(0, eq), value = item.substr(eq + 1);
    parser.set_override(item);
    try {
      if (!OverridePart(key, value, parser, problems, loaded.config)) {
        ReadRoot(ParseOverride(key, value), parser, mentions, problems, loaded.config);
      }
    } catch (const toml::parse_error& e) {
      problems.push_back("--set " + item + ": " + std::string(e.description()));
    }
    parser.set_override("");
  }
  ResolveForeignNames(parser.given_as(), mentions, loaded.origins, problems, loaded.config);
  ApplyAlgorithmDefaults(loaded.config.algorithm, loaded.origins);
  std::vector<std::string> wrong = Validate(loaded.config);
  if (const std::string problem = AdapterNotAskedFor(loaded); !problem.empty())
    wrong.push_back(problem);
  for (const std::string& problem : wrong)
    problems.push_back(parser.PlaceOf(problem) + ": " + problem);
  if (notes && problems.empty()) {
    parser.names_taken().Say(*notes);
    SayUnread(loaded.config, *notes);
    SayUnusual(loaded.config, *notes);
  }
  DefaultOrigins defaults{loaded.origins, ""};
  loaded.config.Visit(defaults);
  return loaded;
}

Loaded ParseRecipe(const std::string& text, const std::string& name,
                   const std::vector<std::string>& overrides) {
  std::vector<std::string> problems;
  Loaded loaded = ParseRecipe(text, name, overrides, problems);
  ThrowProblems(problems);
  return loaded;
}

}  // namespace plumb::configs
