// What a built-in rule is made of: its body and its options from a part's `args`.
//
// Purpose: a family of rules (reward/rules/rouge.h, reward/rules/safety.h, ...) is a file of its
// own that ends in a maker; the table of kinds stands in reward/rules/rules.cc.
//
// Thread safety: bodies are called by several threads at once and must not change what they
// captured. Errors: Refuse() and everything that reads options throw Error(kInvalidArgument) naming
// the part.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "configs/config.h"
#include "reward/part/reward.h"

namespace plumb::reward {

// One answer's score: completion without end tokens, and the whole trajectory for what else a rule
// needs.
using RuleBody = std::function<PartScore(std::string_view text, const Trajectory&, const Prompt&)>;
// All answers of a group at once, for a score that compares them with each other. texts[i] is
// trajectory i's completion without end tokens; returns texts.size() scores.
using GroupRuleBody = std::function<std::vector<PartScore>(
    const std::vector<std::string_view>& texts, const TrajectoryGroup&)>;

// Exactly one of the bodies is set. `content` is what the rule read from files: it is part of the
// digest.
struct RuleParts {
  RuleBody each;
  GroupRuleBody all;
  std::string content;

  template <class F>
  requires std::convertible_to<F, RuleBody> RuleParts(F body, std::string read = "")
      : each(std::move(body)), content(std::move(read)) {}  // NOLINT: implicit
  template <class F>
  requires std::convertible_to<F, GroupRuleBody> RuleParts(F body, std::string read = "")
      : all(std::move(body)), content(std::move(read)) {}  // NOLINT: implicit
};

[[noreturn]] void Refuse(const configs::RewardPartConfig& part, const std::string& message);

// The `args` of a part as name=value; an unknown name is refused with the list of known ones.
class RuleOptions {
 public:
  RuleOptions(const configs::RewardPartConfig& part, std::vector<std::string> known);

  bool has(const std::string& name) const { return values_.contains(name); }
  // The last value given under this name; `fallback` without one.
  std::string Text(const std::string& name, const std::string& fallback = "") const;
  // Every value given under this name, in their order.
  std::vector<std::string> Texts(const std::string& name) const;
  // 0 or 1, 0 when absent (or `fallback`).
  bool Flag(const std::string& name, bool fallback = false) const;
  int64_t Integer(const std::string& name, int64_t fallback, int64_t low, int64_t high) const;
  // A finite number in [low, high].
  double Number(const std::string& name, double fallback, double low, double high) const;
  // One of `choices`; the first when absent.
  std::string Choice(const std::string& name, const std::vector<std::string>& choices) const;
  // Comma-separated, outer white space and empty entries removed.
  std::vector<std::string> List(const std::string& name) const;

 private:
  const configs::RewardPartConfig& part_;  // outlives this: both live during MakeRule() only
  std::map<std::string, std::vector<std::string>> values_;
};

// A whole file, at most 16 MiB. Error(kInvalidArgument) naming the part and the path.
std::string ReadRuleFile(const configs::RewardPartConfig& part, const std::string& path);

}  // namespace plumb::reward
