#include "run/session/recipe/equal_scores.h"

#include <algorithm>
#include <cstdio>

#include "reward/doors/python.h"

namespace plumb::run {
namespace {

// What a function was given, and what it can be given instead.
std::string FormGiven(const configs::RewardPartConfig& part, bool messages) {
  if (part.kind != "python") return "";
  const reward::PythonOptions options = reward::ReadPythonOptions(part);
  if (options.style == "verl" || options.style == "openrlhf") return "";
  const std::string list = "a list of one message, [{\"role\": \"assistant\", \"content\": TEXT}]";
  if (options.completions == "text" || (options.completions == "auto" && !messages)) {
    return "; a function in TRL's form was given each completion as text" +
           std::string(options.completions == "text"
                           ? ""
                           : " (args = [\"completions=messages\"]: as " + list + ")");
  }
  return "; a function in TRL's form was given each completion as " + list +
         (options.completions == "auto" ? ", because the prompts are messages (data.system_prompt "
                                          "makes them so, too); args = "
                                          "[\"completions=text\"] gives it TEXT alone"
                                        : "");
}

}  // namespace

std::string EqualScores(const configs::RewardPartConfig& part, double value, size_t answers,
                        bool messages) {
  char score[32];
  std::snprintf(score, sizeof score, "%.3f", value);
  return "reward part '" + (part.name.empty() ? part.kind : part.name) + "' gave " + score +
         " to all " + std::to_string(answers) + " answers, from which nothing can be learned" +
         FormGiven(part, messages);
}

std::vector<std::string> PartsWithEqualScores(const configs::Config& config,
                                              std::span<const TrajectoryGroup> groups,
                                              bool messages) {
  std::vector<std::string> lines;
  for (const configs::RewardPartConfig& part : config.reward.parts) {
    const std::string& name = part.name.empty() ? part.kind : part.name;
    std::vector<double> values;
    for (const TrajectoryGroup& group : groups) {
      for (const Trajectory& t : group.trajectories) {
        for (const RewardPart& score : t.rewards) {
          if (score.name == name && score.scope == RewardScope::kTrajectory)
            values.push_back(score.value);
        }
      }
    }
    if (part.weight == 0 || values.size() < 2) continue;
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    if (*least == *most) lines.push_back(EqualScores(part, *least, values.size(), messages));
  }
  return lines;
}

}  // namespace plumb::run
