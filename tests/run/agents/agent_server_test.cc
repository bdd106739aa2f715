// The endpoint of agents over real sockets: what clients of OpenAI's send and expect.
#include "run/agents/agent_server.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "common/base/error.h"
#include "common/base/file.h"
#include "run/agents/agent_door.h"
#include "run/agents/agent_reply.h"
#include "tests/run/agents/agent_house.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using nlohmann::json;
using testing::House;
using testing::HttpReply;

const json kTools = {
    {{"type", "function"},
     {"function",
      {{"name", "add"},
       {"parameters", {{"type", "object"}, {"properties", {{"a", {{"type", "integer"}}}}}}}}}}};
const json kAsked = json::array({{{"role", "user"}, {"content", "2+3?"}}});
constexpr char kCall[] = R"(<tool_call>{"name": "add", "arguments": {"a": 2}}</tool_call>)";

std::string CallsOnce(const AgentCall& call) {
  return call.begins ? "I add. " + std::string(kCall) : "It is 5.";
}

TEST(AgentServer, CallsOfToolsComeOutOfTheTextAndGoOnWithTheConversation) {
  House house(CallsOnce);
  const AgentTask task = house.Begin();
  EXPECT_EQ(json::parse(task.json)["prompt"][0]["content"], "2+3?");
  EXPECT_EQ(json::parse(task.json)["ground_truth"], "5");
  EXPECT_EQ(json::parse(task.json)["extra"]["level"], 2);
  json messages = json::array({{{"role", "user"}, {"content", "2+3?"}}});
  const HttpReply first =
      house.Ask(task, "chat/completions",
                {{"model", "any"}, {"messages", messages}, {"tools", kTools}, {"logprobs", true}});
  ASSERT_EQ(first.status, 200) << first.body;
  json choice = first.json()["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(choice["message"]["content"], "I add.");
  const json call = choice["message"]["tool_calls"][0];
  EXPECT_EQ(call["type"], "function");
  EXPECT_EQ(call["function"]["name"], "add");
  EXPECT_EQ(json::parse(call["function"]["arguments"].get<std::string>()), json({{"a", 2}}));
  EXPECT_EQ(choice["logprobs"]["content"][1]["logprob"], -1.5);
  messages.push_back(choice["message"]);
  messages.push_back({{"role", "tool"}, {"tool_call_id", call["id"]}, {"content", "5"}});
  const HttpReply second = house.Ask(
      task, "chat/completions", {{"messages", messages}, {"tools", kTools}, {"max_tokens", 9}});
  ASSERT_EQ(second.status, 200) << second.body;
  choice = second.json()["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(choice["message"]["content"], "It is 5.");
  const auto calls = house.calls();
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_TRUE(calls[0].begins);
  EXPECT_FALSE(calls[1].begins);
  EXPECT_EQ(calls[1].conversation, 0u);
  EXPECT_EQ(calls[1].limit, 9);
  EXPECT_EQ(calls[1].tokens, house.tokenizer->Encode("<tool>5<eos><assistant>"));
  EXPECT_EQ(second.json()["usage"]["prompt_tokens"].get<size_t>(),
            calls[0].tokens.size() + first.json()["usage"]["completion_tokens"].get<size_t>() +
                calls[1].tokens.size());
  EXPECT_EQ(house.Ask(task, "reward", {{"reward", 0.25}}).status, 200);
  EXPECT_EQ(house.Ask(task, "reward", {{"reward", 0.75}, {"done", true}}).status, 200);
  const AgentEvent ended = house.Ended(task);
  EXPECT_EQ(ended.reward, 0.75) << "the last one counts";
  EXPECT_EQ(ended.error, "");
  EXPECT_EQ(house.Ask(task, "chat/completions", {{"messages", messages}}).status, 410);
  EXPECT_EQ(house.door->Counters().at("environment/calls"), 1);
}

// As clients send a call back that said nothing besides: no content, or null.
TEST(AgentServer, CallsWithoutAWordAreSentBackInEveryForm) {
  for (const bool null : {false, true}) {
    House house([](const AgentCall& call) { return call.begins ? kCall : "It is 5."; });
    const AgentTask task = house.Begin();
    json messages = json::array({{{"role", "user"}, {"content", "2+3?"}}});
    json message = house.Ask(task, "chat/completions", {{"messages", messages}, {"tools", kTools}})
                       .json()["choices"][0]["message"];
    EXPECT_TRUE(message["content"].is_null());
    if (!null) message.erase("content"), message.erase("refusal");
    messages.push_back(message);
    messages.push_back(
        {{"role", "tool"}, {"tool_call_id", message["tool_calls"][0]["id"]}, {"content", "5"}});
    const HttpReply second =
        house.Ask(task, "chat/completions", {{"messages", messages}, {"tools", kTools}});
    ASSERT_EQ(second.status, 200) << second.body;
    EXPECT_FALSE(house.calls().at(1).begins) << null;
  }
}

// As Qwen 3.5 writes a call: the agent gets a number where its tool's schema has one, and what it
// sends back is still the conversation that there is.
TEST(AgentServer, ArgumentsInTagsHaveTheirTypes) {
  House house([](const AgentCall& call) {
    return call.begins
               ? "<tool_call><function=add><parameter=a>2</parameter></function></tool_call>"
               : "It is 5.";
  });
  const AgentTask task = house.Begin();
  json messages = kAsked;
  const json message =
      house.Ask(task, "chat/completions", {{"messages", messages}, {"tools", kTools}})
          .json()["choices"][0]["message"];
  const json call = message["tool_calls"][0];
  EXPECT_EQ(json::parse(call["function"]["arguments"].get<std::string>()), json({{"a", 2}}));
  messages.push_back(message);
  messages.push_back({{"role", "tool"}, {"tool_call_id", call["id"]}, {"content", "5"}});
  ASSERT_EQ(house.Ask(task, "chat/completions", {{"messages", messages}, {"tools", kTools}}).status,
            200);
  EXPECT_FALSE(house.calls().at(1).begins);
}

TEST(AgentServer, AStreamSaysTheSame) {
  House house(CallsOnce);
  const AgentTask task = house.Begin();
  const HttpReply reply = house.Ask(task, "chat/completions",
                                    {{"messages", kAsked},
                                     {"tools", kTools},
                                     {"stream", true},
                                     {"stream_options", {{"include_usage", true}}}});
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_NE(reply.head.find("text/event-stream"), std::string::npos);
  EXPECT_TRUE(reply.body.ends_with("data: [DONE]\n\n"));
  const auto events = reply.events();
  ASSERT_EQ(events.size(), 3u);
  const json delta = events[0]["choices"][0]["delta"];
  EXPECT_EQ(delta["content"], "I add.");
  EXPECT_EQ(delta["tool_calls"][0]["index"], 0);
  EXPECT_EQ(events[1]["choices"][0]["finish_reason"], "tool_calls");
  EXPECT_GT(events[2]["usage"]["completion_tokens"], 5);
}

TEST(AgentServer, KeysAreOfOneEpisodeAndWhatCannotBeIsSaid) {
  House house([](const AgentCall&) { return "hm"; });
  const AgentTask task = house.Begin(), other = house.Begin();
  const json body = {{"messages", kAsked}};
  const auto with_key = [&](const std::string& key, const json& what) {
    return testing::Post(house.server->port(), house.Path(task, "chat/completions"), what,
                         "Authorization: Bearer " + key + "\r\n");
  };
  EXPECT_EQ(with_key(task.key, body).status, 200);
  EXPECT_EQ(with_key(other.key, body).status, 401);
  EXPECT_EQ(with_key("", body).status, 401);
  EXPECT_EQ(testing::Post(house.server->port(), house.Path(task, "reward"), {{"reward", 1}}).status,
            401);
  json several = body, tools = body, odd = body;
  several["n"] = 2;
  EXPECT_EQ(with_key(task.key, several).json()["error"]["param"], "n");
  odd["logit_bias"] = {{"1", 2}};
  EXPECT_EQ(with_key(task.key, odd).status, 400);
  EXPECT_EQ(house.Ask(task, "reward", {{"reward", "much"}}).status, 400);
  EXPECT_EQ(testing::Get(house.server->port(), house.Path(task, "models"),
                         "Authorization: Bearer " + task.key + "\r\n")
                .json()["data"][0]["id"],
            "policy");
  EXPECT_EQ(testing::Post(house.server->port(), "/episodes/99999/v1/chat/completions", body).status,
            410);
  EXPECT_EQ(testing::Post(house.server->port(), "/elsewhere", body).status, 404);
}

TEST(AgentServer, ToolsThatTheTemplateDoesNotWriteAreRefused) {
  House house(CallsOnce, House::Options(),
              "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<eos>{% endfor %}"
              "{% if add_generation_prompt %}<assistant>{% endif %}");
  const AgentTask task = house.Begin();
  const HttpReply reply =
      house.Ask(task, "chat/completions", {{"messages", kAsked}, {"tools", kTools}});
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.json()["error"]["code"], "no_tools");
}

TEST(AgentServer, OtherSamplingIsNotFollowedAndCounted) {
  House house([](const AgentCall&) { return "hm"; });
  const AgentTask task = house.Begin();
  json body = {{"messages", kAsked}, {"temperature", 1.0}};
  EXPECT_EQ(house.Ask(task, "chat/completions", body).status, 200);
  EXPECT_FALSE(house.door->Counters().contains("environment/other_sampling"));
  body["temperature"] = 0.2;
  EXPECT_EQ(house.Ask(task, "chat/completions", body).status, 200);
  EXPECT_EQ(house.door->Counters().at("environment/other_sampling"), 1);
}

TEST(AgentServer, CompletionsAndRefusals) {
  House house(
      [](const AgentCall& call) {
        return std::string(call.tokens.size() > 30 ? "refuse too many" : "5;");
      },
      House::Options(), nullptr);
  const AgentTask task = house.Begin();
  const HttpReply reply = house.Ask(task, "completions", {{"prompt", "2+3="}, {"logprobs", 0}});
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.json()["choices"][0]["text"], "5;");
  const HttpReply refused = house.Ask(task, "completions", {{"prompt", std::string(40, '1')}});
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.json()["error"]["code"], "max_turns");
  EXPECT_EQ(refused.json()["error"]["message"], "too many");
  EXPECT_EQ(house.Ask(task, "chat/completions", {{"messages", kAsked}}).json()["error"]["code"],
            "no_chat_template");
  EXPECT_EQ(house.Ask(task, "reward", {{"done", true}}).status, 200);
  EXPECT_TRUE(house.Ended(task).cut);
}

TEST(AgentServer, AgentsFromElsewhereFetchEpisodes) {
  House house([](const AgentCall&) { return "hm"; });
  const auto fetch = [&](const std::string& key) {
    return testing::Post(house.server->port(), "/episodes", json::object(),
                         "Authorization: Bearer " + key + "\r\n");
  };
  EXPECT_EQ(fetch("house").status, 204);
  EXPECT_EQ(fetch("mouse").status, 401);
  EXPECT_EQ(fetch("").status, 401);
  Prompt prompt;
  prompt.text = "2+3=";
  house.door->Begin(3, prompt, 0);
  const HttpReply reply = fetch("house");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const json episode = reply.json();
  EXPECT_EQ(episode["task"]["prompt"], "2+3=");
  EXPECT_TRUE(episode["base_url"].get<std::string>().ends_with("/episodes/3/v1"));
  EXPECT_EQ(fetch("house").status, 204) << "each is fetched once";
  const AgentTask task{.episode = 3, .key = episode["api_key"], .json = ""};
  EXPECT_EQ(house.Ask(task, "completions", {{"prompt", "2+3="}}).status, 200);
  house.door->Close();
  EXPECT_EQ(fetch("house").status, 410);
}

TEST(AgentDoor, ASilentAgentIsGivenUpAndALongEpisodeIsCut) {
  DoorOptions options = House::Options();
  options.environment.timeout_s = 0.3;
  options.first_call = std::chrono::milliseconds(200);
  House house([](const AgentCall&) { return "hm"; }, options);
  const AgentTask never = house.Begin(), once = house.Begin();
  EXPECT_EQ(house.Ask(once, "completions", {{"prompt", "2+3="}}).status, 200);
  EXPECT_NE(house.Ended(never).error.find("after its start"), std::string::npos);
  EXPECT_NE(house.Ended(once).error.find("environment.timeout_s"), std::string::npos);
  options = House::Options();
  options.environment.episode_seconds = 0.3;
  House brief([](const AgentCall&) { return "hm"; }, options);
  const AgentTask slow = brief.Begin();
  EXPECT_EQ(brief.Ask(slow, "completions", {{"prompt", "2+3="}}).status, 200);
  const AgentEvent ended = brief.Ended(slow);
  EXPECT_TRUE(ended.cut);
  EXPECT_TRUE(ended.timed_out);
  EXPECT_EQ(ended.error, "");
}

// With PLUMB_TEST_FRAMEWORKS_PYTHON=venv/bin/python: pip install openai.
TEST(AgentServer, OpenAisOwnClientInstalled) {
  const char* python = std::getenv("PLUMB_TEST_FRAMEWORKS_PYTHON");
  if (python == nullptr || std::system((std::string(python) + " -c 'import openai'").c_str()) != 0)
    GTEST_SKIP() << "NOT TESTED: no openai here; name an interpreter that has it in "
                    "PLUMB_TEST_FRAMEWORKS_PYTHON";
  House house(CallsOnce);
  const AgentTask task = house.Begin();
  const plumb::testing::TempFolder temp;
  RealFileSystem().WriteFileAtomic(temp / "agent.py", R"(
import json, openai
client = openai.OpenAI()
tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
messages = [{"role": "user", "content": "2+3?"}]
first = client.chat.completions.create(model="m", messages=messages, tools=tools, logprobs=True)
message = first.choices[0].message
call = message.tool_calls[0]
assert json.loads(call.function.arguments) == {"a": 2}, call
assert first.choices[0].logprobs.content[0].logprob == -0.5
messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "5"}]
text = ""
for chunk in client.chat.completions.create(model="m", messages=messages, tools=tools, stream=True):
    if chunk.choices and chunk.choices[0].delta.content:
        text += chunk.choices[0].delta.content
assert text == "It is 5.", text
client.post("/reward", cast_to=object, body={"reward": 0.5, "done": True})
try:
    client.chat.completions.create(model="m", messages=messages)
    assert False
except openai.APIStatusError as error:
    assert error.status_code == 410, error
)");
  const std::string url = "http://127.0.0.1:" + std::to_string(house.server->port()) +
                          "/episodes/" + std::to_string(task.episode) + "/v1";
  EXPECT_EQ(std::system(("OPENAI_BASE_URL=" + url + " OPENAI_API_KEY=" + task.key + " " + python +
                         " " + (temp / "agent.py"))
                            .c_str()),
            0);
  EXPECT_EQ(house.Ended(task).reward, 0.5);
  EXPECT_FALSE(house.calls().at(1).begins);
}

}  // namespace
}  // namespace plumb::run
