#include "run/session/recipe/recipe_check.h"

#include <algorithm>
#include <cstdio>

#include "common/base/error.h"
#include "configs/paths.h"
#include "configs/recipe_problems.h"
#include "environment/doors/open_environment.h"
#include "reward/doors/code_tests.h"
#include "reward/doors/plugin.h"
#include "reward/doors/python.h"
#include "reward/models/model_part.h"
#include "reward/scorer.h"

namespace plumb::run {
namespace {

void SayPaths(const std::vector<std::string>& notes) {
  for (const std::string& note : notes) std::fprintf(stderr, "plumb: note: %s\n", note.c_str());
}

// Throws what does not go together with agents.
void CheckAgents(const configs::Config& config) {
  const auto refuse = [](const std::string& what) {
    throw Error(ErrorCode::kInvalidArgument, "\"agent\" " + what, "environment.kind");
  };
  if (!config.policy.tasks.empty())
    refuse("and policy.tasks do not go together: an agent's prompts begin with no task");
  if (config.algorithm.advantage == configs::Advantage::kGreedy)
    refuse("has no greedy answer to compare with: take another algorithm.advantage");
}

// Throws what is wrong with one part.
void CheckPart(configs::RewardPartConfig part, bool allow_unsandboxed, Surroundings surroundings) {
  const bool services = part.kind == "http" || part.kind == "judge" || part.kind == "zmq";
  const bool model = part.kind == "reward_model" || part.kind == "perplexity";
  const bool file = part.kind == "python" || part.kind == "plugin" || part.kind == "program";
  if ((model || file) && part.path.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "kind = \"" + part.kind + "\" needs path, the " +
                    (model ? "folder of a model" : "file with the function"),
                "reward part '" + part.name + "'");
  }
  if (model) {
    reward::ReadModelPartOptions(part, /*perplexity=*/part.kind == "perplexity");
    return;
  }
  reward::WithPart({}, part, allow_unsandboxed);
  if (part.kind == "python") reward::ReadPythonOptions(part);
  if (part.kind == "code_tests") reward::ReadCodeTestsOptions(part);
  if (file || part.kind == "code_tests") return;
  if (surroundings == Surroundings::kIgnored) {
    part.api_key_env.clear();
    // Names of files with keys: both or none of them.
    if (services && part.server_key.empty() == part.client_key.empty())
      part.server_key = part.client_key = "";
  }
  reward::HostOptions host;
  host.vocabulary = "of a model that is not read yet";  // zmq: a run has one
  reward::MakeFunction(part, allow_unsandboxed, host);
}

}  // namespace

std::vector<std::string> PartProblems(const configs::RewardConfig& rewards,
                                      Surroundings surroundings, bool kinds) {
  std::vector<std::string> problems;
  if (rewards.parts.empty()) return problems;  // the algorithm says whether it needs any
  problems = reward::RewardProblems(rewards);
  const std::vector<std::string> known = reward::KnownKinds();
  for (configs::RewardPartConfig part : rewards.parts) {
    if (part.kind.empty() && !kinds) continue;
    if (part.name.empty()) part.name = part.kind;
    const std::string place = "reward part '" + part.name + "'";
    if (part.kind.empty()) {
      problems.push_back(place + ": has no kind" + reward::KindsThatThereAre(part.kind));
    } else if (std::find(known.begin(), known.end(), part.kind) == known.end()) {
      problems.push_back(place + ": unknown kind '" + part.kind + "'" +
                         reward::KindsThatThereAre(part.kind));
    } else {
      try {
        CheckPart(part, rewards.allow_unsandboxed, surroundings);
      } catch (const Error& error) {
        problems.emplace_back(error.what());
      }
    }
  }
  return problems;
}

configs::Loaded LoadAndSayPaths(const std::string& path,
                                const std::vector<std::string>& overrides) {
  std::vector<std::string> problems, notes;
  configs::Loaded loaded = configs::ReadRecipe(path, overrides, problems, &notes);
  configs::ThrowProblems(problems);
  SayPaths(notes);
  return loaded;
}

configs::Config PartsAlone(const configs::Loaded& recipe, bool heldout) {
  configs::Config read;
  if (heldout) read.data.eval = recipe.config.data.eval;
  read.data.train = "arithmetic";
  read.reward.parts = recipe.config.reward.parts;
  return read;
}

configs::Loaded CheckedRecipe(const std::string& path, const std::vector<std::string>& overrides,
                              const ReadOf& read_of,
                              const std::function<void(configs::Config&)>& change,
                              Surroundings surroundings) {
  std::vector<std::string> problems, notes;
  configs::Loaded loaded = configs::ReadRecipe(path, overrides, problems, &notes);
  SayPaths(notes);
  if (change) change(loaded.config);
  const configs::Config& config = loaded.config;
  // A key of a part that was misspelt may have been its kind, and is said already.
  if (!configs::IsOffline(config) || config.algorithm.name == configs::AlgorithmName::kDpo) {
    for (const std::string& problem :
         PartProblems(config.reward, surroundings, /*kinds=*/problems.empty()))
      problems.push_back(path + ": " + problem);
  }
  if (const auto kind = config.environment.kind;
      kind != configs::EnvironmentKind::kNone && kind != configs::EnvironmentKind::kCalculator) {
    try {
      environment::CheckEnvironment(config.environment);
      if (kind == configs::EnvironmentKind::kAgent) CheckAgents(config);
    } catch (const Error& error) {
      problems.push_back(path + ": " + error.what());
    }
  }
  const configs::Config read = read_of ? read_of(loaded) : config;
  if (problems.empty()) {
    configs::RefuseMissingFiles(read, path);
    return loaded;
  }
  for (const std::string& missing : configs::MissingFiles(read, path))
    problems.push_back(path + ": " + missing);
  configs::ThrowProblems(problems);
  return loaded;
}

}  // namespace plumb::run
