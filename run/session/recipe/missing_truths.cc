#include "run/session/recipe/missing_truths.h"

#include <algorithm>
#include <memory>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "reward/part/reward.h"
#include "reward/part/truth.h"
#include "reward/scorer.h"

namespace plumb::run {
namespace {

using nlohmann::json;

bool Lacks(const Prompt& prompt, const std::string& name) {
  if (!prompt.ground_truth.empty()) return false;
  const json columns = json::parse(prompt.extra_json, nullptr, /*allow_exceptions=*/false);
  return !columns.is_object() || !columns.contains(name) || columns[name].is_null();
}

// Every answer would be scored with nothing where the function wants something.
void CheckRequired(const std::string& part, const std::vector<reward::TruthName>& truths,
                   const std::vector<Prompt>& prompts) {
  for (const auto& [name, required] : truths) {
    if (!required) continue;
    const auto lacks = [&, &name = name](const Prompt& p) { return Lacks(p, name); };
    if (!std::all_of(prompts.begin(), prompts.end(), lacks)) continue;
    const std::string likely = reward::TruthAdvice(prompts.front());
    throw Error(ErrorCode::kInvalidArgument,
                "no row has a ground truth or a column '" + name +
                    "', and the function takes it as a parameter without a default" +
                    (likely.empty() ? ": name the column that is meant, data.map = { answer = "
                                      "\"COLUMN\" }, or give the parameter a default"
                                    : likely),
                "reward part '" + part + "'");
  }
}

}  // namespace

std::string MissingTruths(const std::string& part, const std::vector<reward::TruthName>& truths,
                          std::span<const Prompt* const> prompts) {
  for (const auto& [name, required] : truths) {
    const auto lacks = [&, &name = name](const Prompt* p) { return Lacks(*p, name); };
    const auto lacking = std::count_if(prompts.begin(), prompts.end(), lacks);
    if (lacking == 0) continue;
    const Prompt& first = **std::find_if(prompts.begin(), prompts.end(), lacks);
    return std::to_string(lacking) + " of " + std::to_string(prompts.size()) +
           (prompts.size() == 1 ? " prompt has" : " prompts have") +
           " no ground truth, which reward part '" + part + "' takes as '" + name +
           "': it scores their answers with nothing to compare them with" +
           reward::TruthAdvice(first);
  }
  return "";
}

std::vector<std::string> TruthsMissedByPython(const configs::RewardConfig& rewards,
                                              const std::vector<Prompt>& prompts) {
  std::vector<std::string> notes;
  if (std::none_of(prompts.begin(), prompts.end(),
                   [](const Prompt& p) { return p.ground_truth.empty(); }))
    return notes;
  std::vector<const Prompt*> all;
  for (const Prompt& prompt : prompts) all.push_back(&prompt);
  for (configs::RewardPartConfig part : rewards.parts) {
    if (part.kind != "python") continue;
    if (part.name.empty()) part.name = part.kind;
    std::vector<reward::TruthName> truths;
    try {
      truths = reward::MakeFunction(part, rewards.allow_unsandboxed)->truths();
    } catch (const Error&) {
      // It may run on another machine than this one; where it does not, the scorer will say why.
      notes.push_back(
          "some prompts have no ground truth; whether reward part '" + part.name +
          "' takes one is not known, because its function cannot be started in this process");
    }
    CheckRequired(part.name, truths, prompts);
    const std::string note = MissingTruths(part.name, truths, all);
    if (!note.empty()) notes.push_back(note);
  }
  return notes;
}

}  // namespace plumb::run
