// Environments behind the doors, in real processes: the examples, what misbehaves, and what a
// recipe may not say.
#include "environment/doors/open_environment.h"

#include <cstdlib>
#include <fstream>
#include <memory>

#include "common/sandbox/child_process.h"
#include "environment/doors/environment_host.h"
#include "environment/doors/python_environment.h"
#include "tests/environment/testing.h"
#include "tests/testing/temp_folder.h"

namespace plumb::environment {
namespace {

using configs::EnvironmentKind;

std::unique_ptr<EnvironmentPool> Python(const std::string& example, const std::string& name = "",
                                        std::vector<std::string> tools = {}) {
  configs::EnvironmentConfig config = TestConfig(EnvironmentKind::kPython, example);
  config.name = name;
  config.tools = std::move(tools);
  return OpenEnvironment(config, TestOptions());
}

std::string Refusal(const configs::EnvironmentConfig& config) {
  try {
    OpenEnvironment(config, TestOptions());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(PythonEnvironments, TrlEnvironmentFactory) {
  const auto pool = Python("trl_environment.py");
  EXPECT_NE(pool->ToolsJson().find(
                R"("name":"guess","description":"Says whether the secret number is higher or )"
                R"(lower.","parameters":{"type":"object","properties":{"number":{"type":"integer",)"
                R"("description":"The guess."}},"required":["number"]})"),
            std::string::npos)
      << pool->ToolsJson();
  const auto talk =
      Talk(*pool, TestPrompt("7"),
           {Call("guess", R"({"number": 3})"), Call("guess", R"({"number": 99})"),
            Call("guess", R"({"number": "x"})"), Call("guess", R"({"number": 7})"), "It is 7."});
  ASSERT_EQ(talk.size(), 6u) << Said(talk.back());
  EXPECT_EQ(Said(talk[0]), "user: I think of a number from 1 to 20. Guess it with the tool.|");
  EXPECT_EQ(Said(talk[1]), "tool: higher|");
  // What a tool raises is told to the policy, and counted.
  EXPECT_NE(Said(talk[2]).find("ValueError: the number is one of 1 to 20 (trl_environment.py:"),
            std::string::npos)
      << Said(talk[2]);
  EXPECT_TRUE(talk[2].failed_call);
  EXPECT_EQ(Said(talk[3]), "tool: error: 'number' has to be of type integer, not \"x\"|");
  EXPECT_FALSE(talk[4].reward.has_value());
  EXPECT_TRUE(talk[5].done);
  EXPECT_DOUBLE_EQ(talk[5].reward.value(), 1.0 / 3);  // get_reward: three tries came through
  EXPECT_EQ(pool->Counters().at("environment/failed_calls"), 2);
}

TEST(PythonEnvironments, TrlTools) {
  const auto pool = Python("trl_tools.py");
  EXPECT_NE(pool->ToolsJson().find(R"("unit":{"type":"string","enum":["km","miles"])"),
            std::string::npos)
      << pool->ToolsJson();
  const auto talk = Talk(*pool, TestPrompt(),
                         {Call("convert", R"({"value": 10, "unit": "km"})") +
                              Call("word_count", R"({"text": "a b c"})"),
                          "done"});
  EXPECT_EQ(Said(talk[1]), "tool: 6.21 miles|tool: 3|");
  EXPECT_TRUE(talk[2].done);
  const auto one = Python("trl_tools.py", "", {"word_count"});
  EXPECT_EQ(one->ToolsJson().find("convert"), std::string::npos);
}

TEST(PythonEnvironments, VerlTools) {
  const auto pool = Python("verl_tool.py");
  const auto talk = Talk(*pool, TestPrompt("12"),
                         {Call("check_answer", R"({"answer": "11"})"),
                          Call("check_answer", R"({"answer": "12"})"), "12"});
  ASSERT_EQ(talk.size(), 4u) << Said(talk.back());
  EXPECT_EQ(Said(talk[1]), "tool: wrong|");
  EXPECT_DOUBLE_EQ(talk[1].reward.value(), -0.05);
  EXPECT_EQ(Said(talk[2]), "tool: right|");
  EXPECT_EQ(talk[3].reward, 1.0);  // calc_reward
  const auto functions = Python("verl_function_tools.py");
  EXPECT_EQ(
      Said(Talk(*functions, TestPrompt(),
                {Call("add", R"({"a": 1, "b": 2})") + Call("shout", R"({"text": "hi"})")})[1]),
      "tool: 3|tool: HI|");
}

TEST(PythonEnvironments, VerlAgentLoop) {
  const auto pool = Python("verl_agent_loop.py");
  const auto talk = Talk(*pool, TestPrompt("12"), {"It is 11.", "It is 12."});
  ASSERT_EQ(talk.size(), 3u) << Said(talk.back());
  EXPECT_EQ(Said(talk[0]), "");
  EXPECT_EQ(Said(talk[1]), "user: That is wrong. Try again.|");
  EXPECT_TRUE(talk[2].done);
  EXPECT_EQ(talk[2].reward, 1.0);
  EXPECT_EQ(Talk(*pool, TestPrompt("12"), {"It is 12."}, 2)[1].reward, 1.0);
}

TEST(PythonEnvironments, OpenRlhf) {
  const auto pool = Python("openrlhf_agent.py");
  const auto talk = Talk(*pool, TestPrompt("12"), {"11", "12"});
  EXPECT_EQ(Said(talk[1]), "\nNo. Again: ");
  EXPECT_EQ(talk[1].reward, 0.0);
  EXPECT_TRUE(talk[2].done);
  EXPECT_EQ(talk[2].reward, 1.0);
  const auto executor = Python("openrlhf_executor.py");
  const auto driven = Talk(*executor, TestPrompt("12"), {"11", "12"});
  ASSERT_EQ(driven.size(), 3u) << Said(driven.back());
  EXPECT_EQ(Said(driven[1]), "\nAre you sure? ");
  EXPECT_EQ(driven[2].reward, 1.0);
}

TEST(PythonEnvironments, Gym) {
  const auto pool = Python("gym_environment.py");
  const Prompt prompt = TestPrompt("", R"({"seed": 6})");
  const auto talk = Talk(*pool, prompt, {"3", "many", "7"});
  ASSERT_EQ(talk.size(), 4u) << Said(talk.back());
  EXPECT_EQ(Said(talk[1]), "user: higher|");
  EXPECT_NE(Said(talk[2]).find("error: ValueError"), std::string::npos);
  EXPECT_TRUE(talk[2].failed_call);
  EXPECT_TRUE(talk[3].done);
  EXPECT_EQ(talk[3].reward, 1.0);
}

// With PLUMB_TEST_FRAMEWORKS_PYTHON=venv/bin/python: pip install reasoning-gym openenv-core.
TEST(PythonEnvironments, InstalledPackagesRunAsTheyAre) {
  const char* python = std::getenv("PLUMB_TEST_FRAMEWORKS_PYTHON");
  if (python == nullptr) {
    GTEST_SKIP() << "NOT TESTED: reasoning-gym and OpenEnv are not shown to run; name an "
                    "interpreter that has them in PLUMB_TEST_FRAMEWORKS_PYTHON";
  }
  configs::EnvironmentConfig config = TestConfig(EnvironmentKind::kPython, "reasoning_gym_sums.py");
  config.args = {std::string("python=") + python};
  config.memory_mb = 4096;
  const auto sums = OpenEnvironment(config, TestOptions());
  sums->Begin(1, TestPrompt("", R"({"index": 3})"), 0);
  const EnvironmentReply question = Next(*sums);
  ASSERT_EQ(question.error, "");
  const std::string text = question.messages.at(0).content;
  EXPECT_NE(text.find('='), std::string::npos) << text;
  // The sum, from the question's own words.
  int64_t sum = 0, sign = 1;
  for (size_t i = text.find_first_of("0123456789"); i < text.size(); ++i) {
    if (text[i] == '-' || text[i] == '+') sign = text[i] == '-' ? -1 : 1;
    if (text[i] < '0' || text[i] > '9') continue;
    size_t used = 0;
    sum += sign * std::stoll(text.substr(i), &used);
    i += used - 1;
  }
  sums->Act(1, "<think>easy</think><answer>" + std::to_string(sum) + "</answer>");
  const EnvironmentReply scored = Next(*sums);
  EXPECT_TRUE(scored.done);
  EXPECT_EQ(scored.reward, 1.0) << text << " " << sum;
  config.path = PLUMB_SOURCE_DIR "/examples/environments/openenv_echo.py";
  const auto echo = OpenEnvironment(config, TestOptions());
  const auto talk =
      Talk(*echo, TestPrompt(), {"ten chars.", "{\"message\": \"twenty characters...\"}"});
  ASSERT_EQ(talk.size(), 3u) << Said(talk.back());
  EXPECT_EQ(Said(talk[0]), "user: Say something long.|");
  EXPECT_EQ(Said(talk[1]), "user: ten chars.|");
  EXPECT_EQ(talk[1].reward, 0.5);
  EXPECT_EQ(Said(talk[2]), "user: twenty characters...|");
  EXPECT_TRUE(talk[2].done);
}

struct BadFile {
  const char* text;
  const char* says;
};

TEST(PythonEnvironments, SayWhatAFileLacks) {
  for (const BadFile& bad : std::vector<BadFile>{
           {"x = 1\n", "has no class with reset, no tool and no function step"},
           {"import nothing_like_it\n", "No module named 'nothing_like_it'"},
           {"def f(a):\n    return a\n", "the parameter a has no type"},
           {"class A:\n    def reset(self): pass\nclass B:\n    def reset(self): pass\n",
            "has several environments, A, B: say which in environment.name"},
           {"from verl.utils import nothing_known\n", "stand-in for it has no nothing_known"},
           {"exit(3)\n", "called exit(3)"}}) {
    testing::TempFolder folder;
    const std::string path = folder.path() + "/bad.py";
    std::ofstream(path) << bad.text;
    configs::EnvironmentConfig config = TestConfig(EnvironmentKind::kPython);
    config.path = path;
    EXPECT_NE(Refusal(config).find(bad.says), std::string::npos) << Refusal(config);
  }
}

TEST(PythonEnvironments, ADeadlineEndsTheProcessAndMemoryIsBounded) {
  testing::TempFolder folder;
  const std::string path = folder.path() + "/slow.py";
  std::ofstream(path) << "import time\nclass E:\n"
                         "    def reset(self): return 'go'\n"
                         "    def step(self, action):\n"
                         "        if action == 'hang': time.sleep(100)\n"
                         "        if action == 'die': import os; os._exit(5)\n"
                         "        if action == 'eat': x = bytearray(3 << 30)\n"
                         "        return 'on', 0.0, False, {}\n";
  configs::EnvironmentConfig config = TestConfig(EnvironmentKind::kPython);
  config.path = path;
  config.timeout_s = 2;
  const auto pool = OpenEnvironment(config, TestOptions());
  EXPECT_NE(Talk(*pool, TestPrompt(), {"hang"}, 1)[1].error.find("environment.timeout_s = 2"),
            std::string::npos);
  EXPECT_NE(Talk(*pool, TestPrompt(), {"die"}, 2)[1].error.find("exit code 5"), std::string::npos);
  EXPECT_EQ(Said(Talk(*pool, TestPrompt(), {"on"}, 3)[1]), "user: on|");
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  const auto eaten = Talk(*pool, TestPrompt(), {"eat"}, 4);
  EXPECT_NE(Said(eaten[1]).find("MemoryError"), std::string::npos) << Said(eaten[1]);
#endif
  const auto counters = pool->Counters();
  EXPECT_EQ(counters.at("environment/errors/timeout"), 1);
  EXPECT_EQ(counters.at("environment/errors/exit"), 1);
}

TEST(OtherDoors, Program) {
  const auto pool =
      OpenEnvironment(TestConfig(EnvironmentKind::kProgram, "program_guess.py"), TestOptions());
  const auto talk = Talk(*pool, TestPrompt("7"),
                         {Call("guess", R"({"number": 9})"), Call("guess", R"({"number": 7})")});
  EXPECT_EQ(Said(talk[1]), "tool: lower|");
  EXPECT_EQ(Said(talk[2]), "tool: right|");
  EXPECT_TRUE(talk[2].done);
  EXPECT_EQ(talk[2].reward, 1.0);
  configs::EnvironmentConfig mute = TestConfig(EnvironmentKind::kProgram);
  mute.path = "sh";
  mute.args = {"-c", "echo hello; sleep 5"};
  EXPECT_NE(Refusal(mute).find("An environment greets with {\"ready\":true}"), std::string::npos)
      << Refusal(mute);
}

configs::EnvironmentConfig PluginNamed(const std::string& name) {
  configs::EnvironmentConfig config = TestConfig(EnvironmentKind::kPlugin);
  config.path = plumb::testing::BinaryPath("tests/environment/plugins/" + name + ".so");
  config.timeout_s = 2;
  return config;
}

TEST(OtherDoors, APluginThatCrashes) {
  const auto crash = OpenEnvironment(PluginNamed("crash"), TestOptions());
  EXPECT_NE(Talk(*crash, TestPrompt(), {"x"})[1].error.find("signal 11"), std::string::npos);
}

TEST(OtherDoors, Plugin) {
  const auto pool = OpenEnvironment(PluginNamed("guess_number"), TestOptions());
  const auto talk = Talk(*pool, TestPrompt("7"), {"3", "seven", "7"});
  EXPECT_EQ(Said(talk[0]), "user: I think of a number from 1 to 20.|");
  EXPECT_EQ(Said(talk[1]), "user: higher|");
  EXPECT_TRUE(talk[2].failed_call);
  EXPECT_EQ(talk[3].reward, 1.0);
  EXPECT_TRUE(talk[3].done);
  const auto hang = OpenEnvironment(PluginNamed("hang"), TestOptions());
  EXPECT_NE(Talk(*hang, TestPrompt(), {"x"})[1].error.find("timeout_s = 2"), std::string::npos);
  EXPECT_NE(Refusal(PluginNamed("other_abi")).find("was built for version 99"), std::string::npos);
  EXPECT_NE(Refusal(PluginNamed("no_act")).find("has no function plumb_environment_act"),
            std::string::npos);
}

TEST(OtherDoors, Http) {
  auto server = std::make_unique<ChildProcess>(ChildOptions{
      .command = {"python3", PLUMB_SOURCE_DIR "/examples/environments/http_guess.py", "0"}});
  server->Start();
  std::string port;
  ASSERT_EQ(server->ReadLine(16, &port, After(std::chrono::seconds(30))), Failure::kNone);
  configs::EnvironmentConfig config = TestConfig(EnvironmentKind::kHttp);
  config.endpoint = "http://127.0.0.1:" + port + "/";
  {
    const auto pool = OpenEnvironment(config, TestOptions());
    const auto talk = Talk(*pool, TestPrompt("7"), {"3", "7"});
    EXPECT_EQ(Said(talk[1]), "user: wrong|");
    EXPECT_EQ(talk[2].reward, 1.0);
  }
  server.reset();
  config.timeout_s = 0.5;
  EXPECT_NE(Refusal(config).find("nobody listens there"), std::string::npos) << Refusal(config);
}

TEST(EnvironmentOptions, AreHeldToTheirKind) {
  configs::EnvironmentConfig config = TestConfig(EnvironmentKind::kPython);
  EXPECT_NE(Refusal(config).find("needs it"), std::string::npos);
  config.path = "nowhere.py";
  EXPECT_NE(Refusal(config).find("no such Python file: 'nowhere.py'"), std::string::npos);
  config.args = {"level=3"};
  EXPECT_NE(Refusal(config).find("python=INTERPRETER"), std::string::npos);
  config = TestConfig(EnvironmentKind::kTools);
  EXPECT_NE(Refusal(config).find("at least one of calculator, python, search"), std::string::npos);
  config.tools = {"abacus"};
  EXPECT_NE(Refusal(config).find("there is no tool 'abacus'"), std::string::npos);
  config.tools = {"search"};
  EXPECT_NE(Refusal(config).find("needs environment.corpus"), std::string::npos);
  config.tools = {"calculator"};
  config.endpoint = "http://x";
  EXPECT_NE(Refusal(config).find("does not read it"), std::string::npos);
  config = TestConfig(EnvironmentKind::kHttp);
  config.endpoint = "ftp://x";
  EXPECT_NE(Refusal(config).find("neither http:// nor https://"), std::string::npos);
  config = TestConfig(EnvironmentKind::kAgent);
  config.path = "";
  config.args = {"x"};
  EXPECT_NE(Refusal(config).find("it names none"), std::string::npos);
  config.args = {};
  for (const char* listen :
       {"8100", "tcp://:80", "tcp://127.0.0.1:", "tcp://host:65536", "tcp:///"}) {
    config.listen = listen;
    EXPECT_NE(Refusal(config).find("is no address"), std::string::npos) << listen;
  }
  EXPECT_EQ(ReadListenAddress("tcp://[::1]:81").host, "::1");
  EXPECT_EQ(ReadListenAddress("tcp://127.0.0.1:8100").port, 8100);
  config = TestConfig(EnvironmentKind::kTools);
  config.tools = {"calculator"};
  config.listen = "tcp://127.0.0.1:0";
  EXPECT_NE(Refusal(config).find("does not read it"), std::string::npos);
}

TEST(BuiltInTools, AnswerInAConversation) {
  configs::EnvironmentConfig config = TestConfig(EnvironmentKind::kTools);
  config.tools = {"calculator", "python", "search"};
  config.corpus = PLUMB_SOURCE_DIR "/examples/environments/corpus.jsonl";
  const auto pool = OpenEnvironment(config, TestOptions());
  const auto talk = Talk(*pool, TestPrompt(),
                         {Call("calculator", R"({"expression": "2 ** 10 / 3"})") +
                              Call("python", R"j({"code": "print(sum(range(5)))"})j") +
                              Call("search", R"({"query": "why are there tides", "limit": 1})"),
                          Call("nothing", "{}"), "done"});
  ASSERT_EQ(talk.size(), 4u) << Said(talk.back());
  EXPECT_NE(Said(talk[1]).find("tool: 1024/3 (about 341.333333333333)|tool: 10|tool: 1. Tides: "),
            std::string::npos)
      << Said(talk[1]);
  EXPECT_NE(Said(talk[2]).find("there is no tool 'nothing'; there is: calculator, python, search"),
            std::string::npos);
  EXPECT_TRUE(talk[3].done);
  config = TestConfig(EnvironmentKind::kTools);
  config.tools = {"countdown"};
  const auto games = OpenEnvironment(config, TestOptions());
  EXPECT_NE(Talk(*games, TestPrompt(), {})[0].error.find("no list of integers"), std::string::npos);
  const auto game = Talk(*games, TestPrompt("", R"({"nums": [3, 5, 2], "target": 16})"),
                         {Call("countdown", R"({"expression": "3*5"})"),
                          Call("countdown", R"j({"expression": "2*(3+5)"})j")},
                         2);
  EXPECT_EQ(Said(game[1]), "tool: that is 15, the target is 16|");
  EXPECT_EQ(game[2].reward, 1.0);
  EXPECT_TRUE(game[2].done);
}

}  // namespace
}  // namespace plumb::environment
