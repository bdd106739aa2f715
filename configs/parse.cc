// TOML and --set into a Config, every problem collected.
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <limits>
#include <set>
#include <sstream>
#include <type_traits>

#define TOML_EXCEPTIONS 1
// toml++ 3.3 asserts what a recipe can break ("[(a]"), and reports it properly right behind the assertion.
#define TOML_ASSERT(condition) static_cast<void>(0)
#include <toml++/toml.h>

#include "common/error.h"
#include "common/file.h"
#include "common/nearest.h"
#include "configs/config.h"
#include "configs/fields.h"

namespace plumb::configs {
namespace {

constexpr size_t kMaxRecipeBytes = size_t{4} << 20;
constexpr size_t kMaxParts = 1000;    // reward parts
constexpr size_t kMaxProblems = 100;  // said in one message; the others are counted

std::vector<std::string> Words(const char* text) {
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

// Every name and alias of every table -> where it belongs ("rollout.samples_per_prompt").
struct Index {
  std::multimap<std::string, std::string> places;
  template <class Table>
  void Section(const char* name, Table&) {
    const Names names = NamesOf<Table>();
    for (const auto& [word, canonical] : names.canonical) places.emplace(word, std::string(name) + "." + canonical);
  }
};

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
        // A misspelt name is short, and a message full enough: the rest is neither compared nor repeated.
        if (problems_.size() < kMaxProblems) Unknown(Place(key_object.source()), prefix + key.substr(0, 100), names.names, prefix);
        else problems_.emplace_back();
        continue;
      }
      given_as_[prefix + known->second] = key;
      const auto [at, fresh] = given.emplace(known->second, &node);
      if (!fresh) {
        problems_.push_back(Place(node.source()) + ": " + prefix + known->second + " is given twice, once as '" + key +
                            "': keep one of them");
      }
    }
    Assign assign{*this, given, prefix};
    out.Visit(assign);
  }

  void Unknown(const std::string& place, const std::string& key, const std::vector<std::string>& known,
               const std::string& prefix) {
    const std::string last = key.substr(key.rfind('.') + 1);
    // The right name in the wrong table, or in none.
    std::set<std::string> homes;
    for (auto [at, end] = index_.places.equal_range(last); at != end; ++at) homes.insert(at->second);
    if (!homes.empty()) {
      std::string list;
      for (const std::string& home : homes) list += (list.empty() ? "" : " or ") + home;
      problems_.push_back(place + ": unknown key '" + key + "': here it is " + list);
      return;
    }
    const std::string nearest = NearestName(last, known);
    problems_.push_back(place + ": unknown key '" + key + "'" +
                        (nearest.empty() ? "" : ", did you mean '" + prefix + nearest + "'?"));
  }

  std::string Place(const toml::source_region& source) const {
    return override_.empty() ? file_ + ":" + std::to_string(source.begin.line) : "--set " + override_;
  }
  void set_override(const std::string& text) { override_ = text; }
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
      const std::string place = parser.Place(found->second->source());
      parser.origins_[prefix + info.name] = parser.override_.empty() ? place : "--set";
    }
  };

  void Wrong(const toml::node& node, const std::string& key, const char* wanted) {
    std::ostringstream type;
    type << node.type();
    problems_.push_back(Place(node.source()) + ": " + key + " has to be " + wanted + ", not " + type.str());
  }

  void Convert(const toml::node& node, const std::string& key, std::string& out) {
    if (const auto v = node.value_exact<std::string>()) out = *v;
    else Wrong(node, key, "a string in quotes");
  }
  void Convert(const toml::node& node, const std::string& key, bool& out) {
    if (const auto v = node.value_exact<bool>()) out = *v;
    else Wrong(node, key, "true or false");
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
    if (!array) return Wrong(node, key, "a list of strings");
    out.clear();
    for (const toml::node& element : *array) {
      out.emplace_back();
      Convert(element, key, out.back());
    }
  }
  void Convert(const toml::node& node, const std::string& key, std::map<std::string, std::string>& out) {
    const toml::table* table = node.as_table();
    if (!table) return Wrong(node, key, "a table of strings");
    for (const auto& [name, value] : *table) Convert(value, key + "." + std::string(name.str()), out[std::string(name.str())]);
  }
  void Convert(const toml::node& node, const std::string& key, std::vector<RewardPartConfig>& out) {
    const toml::array* array = node.as_array();
    if (!array) return Wrong(node, key, "a list of tables, [[reward.parts]]");
    if (array->size() > kMaxParts) {
      problems_.push_back(Place(node.source()) + ": " + key + " has " + std::to_string(array->size()) + " entries, more than " + std::to_string(kMaxParts));
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
  std::map<std::string, std::string> given_as_;
  Origins& origins_;
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

void ReadRoot(const toml::table& root, Parser& parser, std::vector<std::string>& problems, Config& config) {
  SectionNames known;
  config.Visit(known);
  for (const auto& [key, node] : root) {
    const std::string name(key.str());
    if (std::find(known.names.begin(), known.names.end(), name) == known.names.end()) {
      parser.Unknown(parser.Place(key.source()), name.substr(0, 100), known.names, "");
    } else if (!node.is_table()) {
      problems.push_back(parser.Place(node.source()) + ": " + name + " has to be a table, [" + name + "]");
    }
  }
  Sections sections{parser, root};
  config.Visit(sections);
}

// "a.b=c" as a TOML document. A value that is not TOML by itself is taken as a string.
toml::table ParseOverride(const std::string& key, const std::string& value) {
  std::vector<std::string> path;
  std::istringstream in(key);
  for (std::string part; std::getline(in, part, '.');) path.push_back(part);
  std::string head;
  for (size_t i = 0; i < path.size(); ++i) head += (i ? "." : "") + path[i];
  try {
    return toml::parse(head + " = " + value);
  } catch (const toml::parse_error&) {
    std::ostringstream quoted;
    quoted << toml::value<std::string>(value);
    return toml::parse(head + " = " + quoted.str());
  }
}

// --set reward.parts.N.key=value reaches into the list.
bool OverridePart(const std::string& key, const std::string& value, Parser& parser, std::vector<std::string>& problems,
                  Config& config) {
  const std::string prefix = "reward.parts.";
  if (key.rfind(prefix, 0) != 0) return false;
  const size_t dot = key.find('.', prefix.size());
  const std::string number = key.substr(prefix.size(), dot == std::string::npos ? dot : dot - prefix.size());
  if (dot == std::string::npos || number.empty() || number.size() > 4 ||
      !std::all_of(number.begin(), number.end(), [](unsigned char c) { return std::isdigit(c); })) {
    problems.push_back("--set " + key + ": use reward.parts.NUMBER.KEY=VALUE");
    return true;
  }
  const size_t index = static_cast<size_t>(std::strtoul(number.c_str(), nullptr, 10));
  if (index >= config.reward.parts.size()) {
    problems.push_back("--set " + key + ": the recipe has " + std::to_string(config.reward.parts.size()) + " reward parts");
    return true;
  }
  parser.Read(ParseOverride(key.substr(dot + 1), value), key.substr(0, dot + 1), config.reward.parts[index]);
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

// Options whose usual value depends on algorithm.name; what the recipe says stays. The origin names the algorithm.
struct AlgorithmDefaults {
  Origins& origins;
  template <class Value>
  void Set(const AlgorithmConfig& a, const char* key, Value& field, const Value& value) {
    if (origins.emplace(std::string("algorithm.") + key, "default of " + a.name).second) field = value;
  }
  void Apply(AlgorithmConfig& a) {
    const auto set_text = [&](const char* key, std::string& field, const char* value) { Set<std::string>(a, key, field, value); };
    const auto kl_in_reward = [&] {
      set_text("kl_estimator", a.kl_estimator, "k1");
      set_text("kl_placement", a.kl_placement, "reward");
    };
    if (a.name == "ppo") {
      Set(a, "dual_clip", a.dual_clip, 3.0);
      Set(a, "entropy_coef", a.entropy_coef, 0.01);
      Set(a, "reward_clip", a.reward_clip, 10.0);
      Set(a, "kl_coef", a.kl_coef, 0.05);
      kl_in_reward();
    } else if (a.name == "dr_grpo") {
      Set(a, "advantage_std", a.advantage_std, false);
      set_text("aggregation", a.aggregation, "constant");
    } else if (a.name == "dapo") {
      Set(a, "clip_high", a.clip_high, 0.28);
      Set(a, "dual_clip", a.dual_clip, 10.0);
      Set(a, "refill_rounds", a.refill_rounds, int64_t{9});  // ten rounds in all
    } else if (a.name == "gspo") {
      set_text("ratio", a.ratio, "sequence");
      set_text("aggregation", a.aggregation, "sequence");
      Set(a, "clip_low", a.clip_low, 3e-4);
      Set(a, "clip_high", a.clip_high, 4e-4);
    } else if (a.name == "rloo") {
      set_text("advantage", a.advantage, "leave_one_out");
      set_text("ratio", a.ratio, "product");
      set_text("aggregation", a.aggregation, "sequence");
      Set(a, "kl_coef", a.kl_coef, 0.05);
      kl_in_reward();
    } else if (a.name == "reinforce++") {
      set_text("advantage", a.advantage, "batch");
      Set(a, "skip_equal_groups", a.skip_equal_groups, false);
      Set(a, "kl_coef", a.kl_coef, 0.05);
      kl_in_reward();
    } else if (a.name == "cispo") {
      set_text("objective", a.objective, "cispo");
      Set(a, "clip_low", a.clip_low, 1.0);
      Set(a, "clip_high", a.clip_high, 4.0);
    }
  }
};

// Names of other systems that say more, or something else, than ours.
void ResolveForeignNames(const Parser& parser, Origins& origins, std::vector<std::string>& problems, Config& config) {
  // TRL's epsilon, verl's clip_ratio and OpenRLHF's eps_clip bound both sides; epsilon_high and its like only the upper one.
  const std::string low = parser.GivenAs("algorithm.clip_low");
  const bool both_sides = low == "epsilon" || low == "clip_ratio" || low == "cliprange" || low == "eps_clip";
  if (both_sides && parser.GivenAs("algorithm.clip_high").empty()) {
    config.algorithm.clip_high = config.algorithm.clip_low;
    origins["algorithm.clip_high"] = origins["algorithm.clip_low"] + ", " + low;
  }
  // verl counts a minibatch in prompts.
  if (parser.GivenAs("algorithm.minibatches") == "ppo_mini_batch_size") {
    const int64_t prompts = config.rollout.prompts_per_step, size = config.algorithm.minibatches;
    if (size < 1 || prompts % size != 0) {
      problems.push_back("algorithm.ppo_mini_batch_size = " + std::to_string(size) + " has to divide rollout.prompts_per_step = " +
                         std::to_string(prompts) + ": it is the number of prompts of one update");
      config.algorithm.minibatches = 1;  // so that nothing else is said about it
      return;
    }
    config.algorithm.minibatches = prompts / size;
    origins["algorithm.minibatches"] += ", ppo_mini_batch_size = " + std::to_string(size);
  }
}

}  // namespace

Loaded ParseRecipe(const std::string& text, const std::string& name, const std::vector<std::string>& overrides) {
  Loaded loaded;
  std::vector<std::string> problems;
  Parser parser(name, loaded.origins, problems);
  try {
    ReadRoot(toml::parse(text, name), parser, problems, loaded.config);
  } catch (const toml::parse_error& e) {
    throw Error(ErrorCode::kInvalidArgument, std::string("not valid TOML: ") + std::string(e.description()),
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
        ReadRoot(ParseOverride(key, value), parser, problems, loaded.config);
      }
    } catch (const toml::parse_error& e) {
      problems.push_back("--set " + item + ": " + std::string(e.description()));
    }
    parser.set_override("");
  }
  ResolveForeignNames(parser, loaded.origins, problems, loaded.config);
  AlgorithmDefaults defaults_of_algorithm{loaded.origins};
  defaults_of_algorithm.Apply(loaded.config.algorithm);
  for (std::string& problem : Validate(loaded.config)) problems.push_back(name + ": " + problem);
  if (!problems.empty()) {
    std::string all = problems.size() == 1 ? "" : std::to_string(problems.size()) + " problems:";
    for (size_t i = 0; i < std::min(problems.size(), kMaxProblems); ++i) all += (problems.size() == 1 ? "" : "\n  ") + problems[i];
    if (problems.size() > kMaxProblems) all += "\n  and " + std::to_string(problems.size() - kMaxProblems) + " more";
    throw Error(ErrorCode::kInvalidArgument, all);
  }
  DefaultOrigins defaults{loaded.origins, ""};
  loaded.config.Visit(defaults);
  return loaded;
}

Loaded LoadRecipe(const std::string& path, const std::vector<std::string>& overrides) {
  if (!std::filesystem::exists(path)) {
    throw Error(ErrorCode::kNotFound, "there is no such recipe; the ones that ship are in configs/", path);
  }
  return ParseRecipe(RealFileSystem().ReadFile(path, kMaxRecipeBytes), path, overrides);
}

}  // namespace plumb::configs
