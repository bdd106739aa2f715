#include "run/session/recipe/usual_truth.h"

#include <algorithm>

#include "common/base/error.h"
#include "reward/part/truth.h"

namespace plumb::run {

int64_t CountTruths(const std::vector<Prompt>& prompts) {
  return std::count_if(prompts.begin(), prompts.end(), [](const Prompt& p) {
    std::string why;
    return !reward::Truths(p, &why).empty();
  });
}

bool AllTruths(const std::vector<Prompt>& prompts) {
  return CountTruths(prompts) == std::ssize(prompts);
}

std::string UsualTruth(const std::vector<Prompt>& prompts) {
  const auto none = [](const Prompt& p) { return p.ground_truth.empty(); };
  if (!std::all_of(prompts.begin(), prompts.end(), none)) return "";
  if (prompts.empty()) return "";
  std::vector<std::string> all = reward::UsualTruths(prompts.front());
  for (const Prompt& prompt : prompts) {
    if (all.empty()) return "";
    const std::vector<std::string> here = reward::UsualTruths(prompt);
    std::erase_if(all, [&](const std::string& name) {
      return std::find(here.begin(), here.end(), name) == here.end();
    });
  }
  return all.empty() ? "" : all.front();
}

replay::ImportedPrompts ImportWithTruths(const std::string& file, replay::ImportOptions options,
                                         std::string& said) {
  const auto known = [](const Prompt& p) { return !p.ground_truth.empty(); };
  replay::ImportedPrompts imported = replay::ImportPrompts(file, options);
  if (std::any_of(imported.prompts.begin(), imported.prompts.end(), known)) return imported;
  const std::string column = UsualTruth(imported.prompts);
  if (!column.empty() && !options.map.contains("answer") && !options.map.contains("ground_truth")) {
    options.map["ground_truth"] = column;
    replay::ImportedPrompts mapped = replay::ImportPrompts(file, options);
    if (AllTruths(mapped.prompts)) {
      said = "; the column '" + column + "' is taken as the right answer (--map answer=" + column +
             ")";
      return mapped;
    }
  }
  throw Error(ErrorCode::kInvalidArgument,
              "no row has a ground truth: name its column with --map answer=COLUMN, judge the "
              "answers by --rewards RECIPE, or rank the rows, if they are pairs, with --pairs",
              file);
}

}  // namespace plumb::run
