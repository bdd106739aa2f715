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

}  // namespace

std::string MissingTruths(const std::string& part, const std::vector<std::string>& truths,
                          std::span<const Prompt* const> prompts) {
  for (const std::string& name : truths) {
    const auto lacks = [&](const Prompt* p) { return Lacks(*p, name); };
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
    try {
      const auto function = reward::MakeFunction(part, rewards.allow_unsandboxed);
      const std::string note = MissingTruths(part.name, function->truths(), all);
      if (!note.empty()) notes.push_back(note);
    } catch (const Error&) {
      // It may run on another machine than this one; where it does not, the scorer will say why.
      notes.push_back(
          "some prompts have no ground truth; whether reward part '" + part.name +
          "' takes one is not known, because its function cannot be started in this process");
    }
  }
  return notes;
}

}  // namespace plumb::run
