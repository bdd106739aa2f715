#include "environment/tools/tool.h"

#include <algorithm>

#include "common/base/error.h"
#include "environment/tools/arithmetic_games.h"
#include "environment/tools/calculator_tool.h"
#include "environment/tools/python_tool.h"
#include "environment/tools/search_tool.h"

namespace plumb::environment {

const std::vector<std::string>& ToolNames() {
  static const std::vector<std::string> names = {"calculator", "python", "search", "countdown",
                                                 "guess_number"};
  return names;
}

void CheckTools(const configs::EnvironmentConfig& config) {
  const auto refuse = [](const std::string& what) {
    throw Error(ErrorCode::kInvalidArgument, what, "environment.tools");
  };
  std::string all;
  for (const std::string& name : ToolNames()) all += (all.empty() ? "" : ", ") + name;
  if (config.tools.empty()) refuse("kind = \"tools\" needs at least one of " + all);
  for (size_t i = 0; i < config.tools.size(); ++i) {
    const std::string& name = config.tools[i];
    if (std::find(ToolNames().begin(), ToolNames().end(), name) == ToolNames().end())
      refuse("there is no tool '" + name + "'; there are " + all);
    if (std::find(config.tools.begin(), config.tools.begin() + static_cast<ptrdiff_t>(i), name) !=
        config.tools.begin() + static_cast<ptrdiff_t>(i)) {
      refuse("'" + name + "' stands there twice");
    }
  }
  const bool search =
      std::find(config.tools.begin(), config.tools.end(), "search") != config.tools.end();
  if (search && config.corpus.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "the tool search needs environment.corpus, a file with one text a line (.jsonl: "
                "objects with \"text\" and, if you like, \"title\")",
                "environment.corpus");
  }
  if (!search && !config.corpus.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "is read by the tool search only, which environment.tools does not name",
                "environment.corpus");
  }
}

ToolSetup PrepareTools(const configs::EnvironmentConfig& config, const SandboxOptions& sandbox) {
  CheckTools(config);
  ToolSetup setup{.sandbox = sandbox, .index = nullptr};
  if (!config.corpus.empty()) setup.index = OpenSearchIndex(config.corpus);
  return setup;
}

std::vector<std::unique_ptr<Tool>> MakeTools(const configs::EnvironmentConfig& config,
                                             const ToolSetup& setup) {
  std::vector<std::unique_ptr<Tool>> tools;
  for (const std::string& name : config.tools) {
    if (name == "calculator") tools.push_back(MakeCalculatorTool());
    if (name == "python") tools.push_back(MakePythonTool(setup.sandbox));
    if (name == "search") tools.push_back(MakeSearchTool(setup.index));
    if (name == "countdown") tools.push_back(MakeCountdown());
    if (name == "guess_number") tools.push_back(MakeGuessNumber());
  }
  return tools;
}

}  // namespace plumb::environment
