#include "run/session/recipe/equal_scores.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>

#include "reward/doors/python.h"

namespace plumb::run {
namespace {

// The parameters of each function that a Python file defines, by name: "prompts, completions".
std::map<std::string, std::string> Definitions(const std::string& path) {
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::map<std::string, std::string> out;
  for (size_t at = 0; (at = text.find("def ", at)) != std::string::npos;) {
    at += 4;
    const size_t open = text.find('(', at);
    if (open == std::string::npos) break;
    int depth = 1;
    size_t end = open + 1;
    for (; end < text.size() && depth > 0; ++end) depth += (text[end] == '(') - (text[end] == ')');
    out[text.substr(at, open - at)] = text.substr(open + 1, end - open - 1);
  }
  return out;
}

// As reward/doors/python_runner.py tells the styles apart, as far as a look at the file can: what
// is imported or made in it is not taken for one of TRL's.
bool IsOfTrl(const configs::RewardPartConfig& part, const reward::PythonOptions& options) {
  if (options.style != "auto") return options.style == "trl";
  const std::map<std::string, std::string> functions = Definitions(part.path);
  const auto takes = [](const std::string& parameters) {
    const auto has = [&](const char* name) { return parameters.find(name) != std::string::npos; };
    return (has("completions") || has("completion_ids")) && !has("solution_str") && !has("queries");
  };
  std::vector<std::string> names = {"compute_score", "reward_func"};
  if (!options.function.empty()) names = {options.function};
  for (const std::string& name : names) {
    const auto found = functions.find(name);
    if (found != functions.end()) return takes(found->second);
  }
  return options.function.empty() &&
         std::any_of(functions.begin(), functions.end(),
                     [&](const auto& f) { return !f.first.starts_with("_") && takes(f.second); });
}

// What a function of TRL's was given where that is a list, and what it can be given instead.
std::string FormGiven(const configs::RewardPartConfig& part, double value, bool messages) {
  if (part.kind != "python") return "";
  const reward::PythonOptions options = reward::ReadPythonOptions(part);
  if (options.completions == "text" || (options.completions == "auto" && !messages)) return "";
  if (!IsOfTrl(part, options)) return "";
  const std::string because = options.completions == "auto"
                                  ? ", because the prompts are messages (data.system_prompt makes "
                                    "them so, too)"
                                  : "";
  // A function that finds nothing seldom gives more than 0.
  return std::string(value > 0 ? "; if they are not equally good: " : "; ") +
         "a function in TRL's form was given each completion as a list of one message, "
         "[{\"role\": \"assistant\", \"content\": TEXT}]" +
         because + "; args = [\"completions=text\"] gives it TEXT alone";
}

}  // namespace

std::string EqualScores(const configs::RewardPartConfig& part, double value, size_t answers,
                        bool messages, bool right) {
  char score[32];
  std::snprintf(score, sizeof score, "%.3f", value);
  const std::string said = "reward part '" + (part.name.empty() ? part.kind : part.name) +
                           "' gave " + score + " to all " + std::to_string(answers) + " answers";
  if (right && value > 0)
    return said + ", and all of them are right: a wrong one among them shows whether it is told";
  return said + ", from which nothing can be learned" + FormGiven(part, value, messages);
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
