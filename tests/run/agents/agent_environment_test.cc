// An agent, led by a script.
#include "run/agents/agent_environment.h"

#include <gtest/gtest.h>

#include <thread>

#include "common/base/error.h"
#include "run/agents/agent_server.h"
#include "tests/run/serve/api_client.h"

namespace plumb::run {
namespace {

using nlohmann::json;

TEST(AgentEnvironment, SaysWhatAnAgentAsksAndAnswersWhatIsSaid) {
  const auto tokenizer = Tokenizer::BuiltIn("bytes");
  const auto chat = ChatTemplate::BuiltIn("bytes");
  AgentDoor door(tokenizer.get(), chat.get(), {});
  AgentServer server(door, *tokenizer, {});
  AgentEnvironment environment(door, *tokenizer);
  Prompt prompt;
  prompt.text = "2+3?";
  environment.Begin(5, prompt, 0);
  EXPECT_TRUE(environment.Poll(After(std::chrono::milliseconds(5))).empty());
  std::thread agent([&] {
    const AgentTask task = door.Fetch(After(std::chrono::seconds(10))).value();
    const std::string bearer = "Authorization: Bearer " + task.key + "\r\n";
    json messages = json::array({{{"role", "user"}, {"content", "2+3?"}}});
    for (const char* said : {"higher", "right"}) {
      const json answer = testing::Post(server.port(), "/episodes/5/v1/chat/completions",
                                        {{"messages", messages}}, bearer)
                              .json();
      messages.push_back(answer["choices"][0]["message"]);
      messages.push_back({{"role", "user"}, {"content", said}});
    }
    testing::Post(server.port(), "/episodes/5/v1/reward", {{"reward", 0.5}, {"done", true}},
                  bearer);
  });
  const auto next = [&] {
    const auto replies = environment.Poll(After(std::chrono::seconds(10)));
    EXPECT_EQ(replies.size(), 1u);
    return replies.empty() ? EnvironmentReply{} : replies[0];
  };
  EXPECT_EQ(next().text, "<bos><user>2+3?<eos><assistant>");
  environment.Act(5, "4");
  EXPECT_EQ(next().text, "<eos><user>higher<eos><assistant>");
  environment.Act(5, "5");
  const EnvironmentReply last = next();
  EXPECT_TRUE(last.done);
  EXPECT_EQ(last.reward, 0.5);
  EXPECT_EQ(last.error, "");
  EXPECT_THROW(environment.Act(5, "6"), Error);
  agent.join();
  environment.End(5);
}

}  // namespace
}  // namespace plumb::run
