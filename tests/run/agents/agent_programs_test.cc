// run/agents/agent_programs.h: which command an agent is started by, and what is said where its
// Python lacks a module. What a whole run does with it: agent_train_test.cc.
#include "run/agents/agent_programs.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

TEST(AgentProgramsTest, APythonFileRunsInTheInterpreterThatIsNamed) {
  const plumb::testing::TempFolder temp;
  const std::string file = temp / "agent.py";
  RealFileSystem().WriteFileAtomic(file, "import sys\n");
  configs::EnvironmentConfig config;
  config.path = file;
  config.args = {"--level", "python=/bin/sh", "3"};
  const AgentCommand named = ReadAgentCommand(config);
  EXPECT_EQ(named.program, "/bin/sh");
  EXPECT_EQ(named.arguments, (std::vector<std::string>{file, "--level", "3"}));

  config.args = {"3"};
  const AgentCommand usual = ReadAgentCommand(config);  // it is not executable
  EXPECT_TRUE(usual.program.ends_with("/python3")) << usual.program;
  EXPECT_EQ(usual.arguments, (std::vector<std::string>{file, "3"}));

  std::filesystem::permissions(file, std::filesystem::perms::owner_exec,
                               std::filesystem::perm_options::add);
  EXPECT_EQ(ReadAgentCommand(config).program, file);
  EXPECT_EQ(ReadAgentCommand(config).arguments, config.args);

  config.path = "sh";  // no Python file: its arguments are its own
  config.args = {"python=x"};
  EXPECT_EQ(ReadAgentCommand(config).arguments, config.args);
  config.path = file;
  config.args = {"python=/no/such/python"};
  EXPECT_THROW(ReadAgentCommand(config), Error);
}

TEST(AgentProgramsTest, AMissingModuleIsSaidWithWhatToInstall) {
  const std::string traceback =
      "Traceback (most recent call last):\n  File \"a.py\", line 3, in <module>\n    import "
      "openai\n"
      "ModuleNotFoundError: No module named 'openai'";
  const std::string said = MissingModule(traceback, "/venv/bin/python3");
  EXPECT_NE(said.find("/venv/bin/python3 -m pip install openai"), std::string::npos) << said;
  EXPECT_NE(said.find("environment.args = [\"python=venv/bin/python\"]"), std::string::npos);
  EXPECT_EQ(said.find("Traceback"), std::string::npos);
  EXPECT_EQ(MissingModule("ValueError: no", "/usr/bin/python3"), "");
}

}  // namespace
}  // namespace plumb::run
