// Which tools there are, and that each has a schema of its own name.
#include "environment/tools/tool.h"

#include <gtest/gtest.h>

#include "environment/calls/tool_table.h"

namespace plumb::environment {
namespace {

TEST(BuiltInToolNames, AreThoseOfTheirSchemas) {
  configs::EnvironmentConfig config;
  config.tools = ToolNames();
  config.corpus = PLUMB_SOURCE_DIR "/examples/environments/corpus.jsonl";
  const ToolSetup setup = PrepareTools(config, {});
  std::string schemas;
  const auto tools = MakeTools(config, setup);
  ASSERT_EQ(tools.size(), ToolNames().size());
  for (size_t i = 0; i < tools.size(); ++i) {
    EXPECT_EQ(tools[i]->name(), ToolNames()[i]);
    const ToolTable table("[" + tools[i]->schema() + "]");
    EXPECT_EQ(table.names(), std::vector<std::string>{ToolNames()[i]});
  }
}

}  // namespace
}  // namespace plumb::environment
