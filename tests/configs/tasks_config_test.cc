// Recipes with policy.tasks: what they need, and what contradicts them.
#include <gtest/gtest.h>

#include "common/base/error.h"
#include "configs/config.h"

namespace plumb::configs {
namespace {

constexpr char kTasks[] = R"([model]
path = "m"
[policy]
adapter = "lora"
adapters = 3
tasks = ["code", "sums"]
[data]
train = "rows.jsonl"
map = { task = "kind" }
[algorithm]
name = "sft"
)";

std::string ProblemsOf(const std::vector<std::string>& overrides,
                       const std::string& text = kTasks) {
  try {
    ParseRecipe(text, "r.toml", overrides);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(TasksConfigTest, AdaptersAndTasksGoTogether) {
  EXPECT_EQ(ProblemsOf({}), "");
  EXPECT_EQ(ProblemsOf({"run.device=cuda"}), "");
  EXPECT_EQ(ProblemsOf({"policy.adapters=1", "policy.task_tokens=8"}), "");
  for (const auto& [set, sentence] : std::vector<std::pair<std::string, std::string>>{
           {"policy.tasks=[]", "policy.adapters are weighed by the task of a row"},
           {"policy.adapter=none", "policy.tasks needs policy.adapter = \"lora\"."},
           {"policy.tasks=[\"a\",\"a\"]", "policy.tasks names a task twice"},
           {"data.train=arithmetic", "which generated rows have not"},
           {"run.parallel=dp=2", "were never tried together"},
           {"rollout.replay_experts=true", "rollout.replay_experts numbers the tokens"},
           {"policy.adapters=65", "policy.adapters"},
           {"policy.task_tokens=257", "policy.task_tokens"}}) {
    const std::string problems = ProblemsOf({set});
    EXPECT_NE(problems.find(sentence), std::string::npos) << set << ": " << problems;
  }
  const std::string line = "map = { task = \"kind\" }\n", whole = kTasks;
  const std::string unnamed = ProblemsOf(
      {}, whole.substr(0, whole.find(line)) + whole.substr(whole.find(line) + line.size()));
  EXPECT_NE(unnamed.find("policy.tasks needs data.map = { task = \"COLUMN\" }"), std::string::npos)
      << unnamed;
  const std::string none =
      ProblemsOf({"policy.adapter=none", "policy.adapters=1", "policy.tasks=[]"});
  EXPECT_NE(none.find("policy.tasks names no task"), std::string::npos) << none;
  const std::string few = ProblemsOf({"policy.task_tokens=8", "data.max_prompt_tokens=8"});
  EXPECT_NE(few.find("raise it above policy.task_tokens"), std::string::npos) << few;
}

}  // namespace
}  // namespace plumb::configs
