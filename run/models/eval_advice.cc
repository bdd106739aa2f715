#include "run/models/eval_advice.h"

#include <optional>

#include "common/base/error.h"
#include "run/session/run_folder.h"

namespace plumb::run {
namespace {

constexpr char kPairsSay[] = "FILE --pairs: how well it tells the better answers";
constexpr char kPerplexitySays[] = "FILE --perplexity: how expected its answers are";

std::optional<configs::Config> RecipeOf(const std::string& run) {
  try {
    return configs::LoadRecipe(RunFolder{run}.config()).config;
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::string ByData(RunMeasure measure) {
  return measure == RunMeasure::kPairs        ? kPairsSay
         : measure == RunMeasure::kPerplexity ? kPerplexitySays
                                              : "";
}

}  // namespace

RunMeasure MeasureOf(const configs::Config& config) {
  if (!config.run.stages.empty()) return RunMeasure::kNone;  // each stage has its own
  if (config.algorithm.name == configs::AlgorithmName::kSft) return RunMeasure::kPerplexity;
  if (configs::IsOffline(config)) return RunMeasure::kPairs;
  return config.reward.parts.empty() ? RunMeasure::kNone : RunMeasure::kRewards;
}

std::string OtherMeasure(const std::string& run) {
  const auto config = RecipeOf(run);
  if (!config) return "";
  const RunMeasure measure = MeasureOf(*config);
  const std::string says = measure == RunMeasure::kRewards
                               ? "--rewards " + RunFolder{run}.config() + ": by the run's"
                               : ByData(measure);
  return says.empty() ? "" : " (" + says + ")";
}

std::string OwnMeasure(const std::string& run) {
  const auto config = RecipeOf(run);
  if (!config) return "";
  const RunMeasure measure = MeasureOf(*config);
  if (measure == RunMeasure::kRewards && !config->data.eval.empty())
    return "; --recipe " + RunFolder{run}.config() +
           " asks the run's own held-out prompts as it does";
  const std::string says = ByData(measure);
  return says.empty() ? "" : "; " + says;
}

}  // namespace plumb::run
