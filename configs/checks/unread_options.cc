#include "configs/checks/unread_options.h"

#include <algorithm>
#include <utility>

#include "configs/fields.h"
#include "configs/value_text.h"

namespace plumb::configs {
namespace {

bool ReadsPreference(AlgorithmName name) {
  return name == AlgorithmName::kDpo || name == AlgorithmName::kRewardModel;
}

struct ValuesOf {
  std::vector<std::pair<std::string, std::string>> all;
  template <class Field>
  void operator()(const FieldInfo& info, Field& field) {
    all.emplace_back(info.name, Text(field));
  }
};

}  // namespace

void SayUnread(const Config& config, std::vector<std::string>& notes) {
  // A recipe with stages passes what it says on to those that read it.
  if (ReadsPreference(config.algorithm.name) || !config.run.stages.empty()) return;
  PreferenceConfig given = config.preference, none;
  ValuesOf now, usual;
  given.Visit(now);
  none.Visit(usual);
  for (size_t i = 0; i < now.all.size(); ++i) {
    const auto& [name, value] = now.all[i];
    if (value == usual.all[i].second) continue;
    notes.push_back("preference." + name + " = " + value + " is not read: algorithm.name = \"" +
                    NameOf(config.algorithm.name) + "\" learns from no pairs" +
                    (name == "beta" ? "; the weight of its KL to the reference is "
                                      "algorithm.kl_coef"
                                    : ""));
  }
}

std::vector<std::string> OwnFirst(std::vector<std::string> options, AlgorithmName algorithm) {
  const auto rank = [&](const std::string& option) {
    const std::string section = option.substr(0, option.find('.'));
    if (section == "optimizer") return 0;
    if (section == "preference") return ReadsPreference(algorithm) ? 1 : 4;
    if (section == "sft") return algorithm == AlgorithmName::kSft ? 1 : 3;
    return section == "algorithm" ? 2 : 3;
  };
  std::stable_sort(options.begin(), options.end(),
                   [&](const std::string& a, const std::string& b) { return rank(a) < rank(b); });
  return options;
}

}  // namespace plumb::configs
