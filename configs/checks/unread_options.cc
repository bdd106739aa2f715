#include "configs/checks/unread_options.h"

#include <algorithm>
#include <utility>

#include "configs/defaults.h"
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

namespace {

// Of training without rollouts: what cuts a batch of answers, and what draws them.
void SayUnreadOffline(const Config& config, std::vector<std::string>& notes) {
  const std::string name = NameOf(config.algorithm.name);
  const Config usual = DefaultsOf(config.algorithm.name);
  const char* const batch =
      config.algorithm.name == AlgorithmName::kSft ? "sft.batch" : "preference.batch";
  if (config.algorithm.epochs != usual.algorithm.epochs) {
    notes.push_back("algorithm.epochs = " + std::to_string(config.algorithm.epochs) +
                    " is not read: \"" + name + "\" passes over its rows as often as run.steps x " +
                    batch + " needs them; for N passes run.steps = N x rows / " + batch);
  }
  RolloutConfig given = config.rollout, none = usual.rollout;
  ValuesOf now, then;
  given.Visit(now);
  none.Visit(then);
  for (size_t i = 0; i < now.all.size(); ++i) {
    const auto& [option, value] = now.all[i];
    if (value != then.all[i].second)
      notes.push_back("rollout." + option + " = " + value + " is not read: \"" + name +
                      "\" learns from rows and draws no answers");
  }
}

}  // namespace

void SayUnread(const Config& config, std::vector<std::string>& notes) {
  if (IsOffline(config) && config.run.stages.empty()) SayUnreadOffline(config, notes);
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
  const bool offline = ReadsPreference(algorithm) || algorithm == AlgorithmName::kSft;
  if (offline) {  // epochs of TRL, which here cut a batch of answers
    std::replace(options.begin(), options.end(), std::string("algorithm.epochs"),
                 std::string("run.steps, which counts updates: N passes are N x rows / ") +
                     (algorithm == AlgorithmName::kSft ? "sft.batch" : "preference.batch"));
  }
  std::stable_sort(options.begin(), options.end(),
                   [&](const std::string& a, const std::string& b) { return rank(a) < rank(b); });
  return options;
}

}  // namespace plumb::configs
