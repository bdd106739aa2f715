#include "configs/checks/option_owners.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "configs/fields.h"

namespace plumb::configs {
namespace {

// The advice of an option: of one that a single algorithm reads it begins with that one's name.
struct Advice {
  std::string_view name;
  std::string_view text = {};
  template <class Field>
  void operator()(const FieldInfo& info, Field&) {
    if (name == info.name) text = info.advice;
  }
};

template <class Table>
std::vector<AlgorithmName> NamedInFront(std::string_view name) {
  Table table;
  Advice advice{name};
  table.Visit(advice);
  const auto owner = FromName<AlgorithmName>(advice.text.substr(0, advice.text.find(':')));
  return owner ? std::vector{*owner} : std::vector<AlgorithmName>();
}

bool Offline(AlgorithmName name) {
  Config config;
  config.algorithm.name = name;
  return IsOffline(config);
}

bool OneOf(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Those that read it; empty: others, or all that draw answers.
std::vector<AlgorithmName> OwnersOf(std::string_view section, std::string_view name) {
  if (section == "critic") return {AlgorithmName::kPpo};
  if (section == "algorithm") return NamedInFront<AlgorithmConfig>(name);
  // A warm start reads the others.
  if (section == "sft" && OneOf(name, {"heldout", "max_tokens", "curriculum", "syntax_penalty"}))
    return {AlgorithmName::kSft};
  if (section != "preference") return {};
  if (OneOf(name, {"batch", "heldout", "max_tokens"}))
    return {AlgorithmName::kDpo, AlgorithmName::kRewardModel};
  const auto owners = NamedInFront<PreferenceConfig>(name);
  return owners.empty() ? std::vector{AlgorithmName::kDpo} : owners;
}

}  // namespace

std::string OwnersUnless(AlgorithmName algorithm, const std::string& option) {
  const size_t dot = option.find('.');
  if (dot == std::string::npos) return "";
  const std::string section = option.substr(0, dot), name = option.substr(dot + 1);
  const auto owners = OwnersOf(section, name);
  const std::string but = "; the recipe's is \"" + NameOf(algorithm) + "\")";
  if (!owners.empty()) {
    if (std::find(owners.begin(), owners.end(), algorithm) != owners.end()) return "";
    std::string list;
    for (const AlgorithmName owner : owners)
      list += (list.empty() ? "" : " or ") + ("\"" + NameOf(owner) + "\"");
    return " (of algorithm.name = " + list + but;
  }
  const bool of_answers = section == "rollout" || (section == "algorithm" && name != "name");
  return of_answers && Offline(algorithm) ? " (of algorithms that draw answers, as \"grpo\"" + but
                                          : "";
}

}  // namespace plumb::configs
