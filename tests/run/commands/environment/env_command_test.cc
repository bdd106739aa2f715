// plumb env test: conversations by a script, rewards, wrong input.
#include "run/commands/environment/env_command.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "common/base/file.h"
#include "common/sandbox/child_process.h"
#include "tests/run/cli_runner.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::Has;
using testing::RunPlumb;

constexpr char kExamples[] = PLUMB_SOURCE_DIR "/examples/environments/";

std::string Recipe(const TempFolder& folder, const std::string& environment) {
  const std::string path = folder / "recipe.toml";
  RealFileSystem().WriteFileAtomic(path,
                                   "[data]\ntrain = \"" + std::string(kExamples) +
                                       "guess.jsonl\"\n[rollout]\nmax_new_tokens = "
                                       "400\n[[reward.parts]]\nname = \"a\"\nkind = \"answer\"\n"
                                       "[environment]\n" +
                                       environment);
  return path;
}

TEST(EnvTestCommand, LeadsConversationsWithBuiltInTools) {
  TempFolder folder;
  const std::string recipe = Recipe(folder, "kind = \"tools\"\ntools = [\"guess_number\"]\n");
  const std::string guess = R"(<tool_call>{"name":"guess_number","arguments":{"number":7}})"
                            "</tool_call>";
  const auto output =
      RunPlumb({"env", "test", recipe, "--rows", "2", "--reply", guess, "--reply", "7", "--json"});
  ASSERT_EQ(output.code, 0) << output.err;
  const auto json = nlohmann::json::parse(output.out);
  EXPECT_EQ(json["tools"][0], "guess_number");
  ASSERT_EQ(json["rows"].size(), 2u);
  EXPECT_EQ(json["rows"][0]["reward"], 1.0);
  EXPECT_EQ(json["rows"][0]["turns"][1]["messages"][0]["content"], "right");
  EXPECT_EQ(json["rows"][1]["turns"][1]["messages"][0]["content"], "higher");
  EXPECT_EQ(json["rows"][1]["reward"], nullptr);
  EXPECT_EQ(json["counters"]["environment/calls"], 2);
  const auto text = RunPlumb({"env", "test", recipe, "--rows", "1"});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_TRUE(Has(text.out, "Find the first number."));
  EXPECT_TRUE(Has(text.out, "the end"));
}

// Asks until it is told a seven, and says so.
TEST(EnvTestCommand, LeadsAnAgentThatAsksItself) {
  TempFolder folder;
  const std::string agent = folder / "agent.py";
  RealFileSystem().WriteFileAtomic(agent, R"(#!/usr/bin/env python3
import json, os, sys, urllib.request
task = json.loads(sys.stdin.readline())
def post(path, body):
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + path, json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]})
    return json.loads(urllib.request.urlopen(request, timeout=60).read())
messages = task["prompt"]
for turn in range(2):
    messages.append(post("/chat/completions", {"messages": messages})["choices"][0]["message"])
    if messages[-1]["content"] == task["ground_truth"]:
        post("/reward", {"reward": 1, "done": True})
    messages.append({"role": "user", "content": "another"})
sys.exit("never a seven")
)");
  chmod(agent.c_str(), 0755);
  const std::string recipe =
      Recipe(folder, "kind = \"agent\"\nworkers = 2\npath = \"" + agent + "\"\n");
  // Processes are started from the program itself.
  const std::string out = folder / "out";
  const int status = std::system(("timeout 100 " PLUMB_BINARY_DIR "/plumb env test " + recipe +
                                  " --rows 2 --reply 8 --reply 7 --json > " + out + " 2>&1")
                                     .c_str());
  const std::string text = RealFileSystem().ReadFile(out, 1 << 20);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << text;
  const auto json = nlohmann::json::parse(text);
  const auto turns = json["rows"][0]["turns"];
  EXPECT_TRUE(Has(turns[0]["text"], "<|im_start|>user\nFind the first number.<|im_end|>"));
  EXPECT_EQ(turns[1]["text"],
            "<|im_end|>\n<|im_start|>user\nanother<|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_EQ(json["rows"][0]["reward"], 1.0);
  EXPECT_TRUE(Has(json["rows"][1]["turns"].back()["error"], "never a seven"));
}

TEST(EnvTestCommand, LeadsTheCalculatorOfAShippedRecipe) {
  const std::string recipe = plumb::testing::SourcePath("configs/calculator_agent.toml");
  const auto ran = RunPlumb({"env", "test", recipe, "--rows", "2", "--json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const auto rows = nlohmann::json::parse(ran.out)["rows"];
  ASSERT_EQ(rows.size(), 2u);
  for (const auto& row : rows) {
    ASSERT_EQ(row["turns"].size(), 3u) << row;
    EXPECT_EQ(row["turns"][1]["text"], row["turns"][2]["policy"]) << "the sum's result";
    EXPECT_EQ(row["turns"][2]["done"], true);
  }
  const auto failed = RunPlumb({"env", "test", recipe, "--rows", "1", "--reply", "no sum="});
  EXPECT_EQ(failed.code, 0) << failed.err;
  EXPECT_TRUE(Has(failed.out, "> text      ...")) << failed.out;
  EXPECT_TRUE(Has(failed.out, "failed call")) << failed.out;
}

TEST(EnvTestCommand, SaysWhatIsWrong) {
  TempFolder folder;
  EXPECT_TRUE(Has(RunPlumb({"env", "test", Recipe(folder, "kind = \"none\"\n")}).err,
                  "has no [environment]"));
  EXPECT_TRUE(Has(RunPlumb({"env", "test", Recipe(folder, "kind = \"tools\"\n")}).err,
                  "needs at least one of calculator"));
  EXPECT_TRUE(
      Has(RunPlumb({"env", "test", Recipe(folder, "kind = \"tool\"\n")}).err, "environment.kind"));
  const auto none =
      RunPlumb({"env", "test", Recipe(folder, "kind = \"tools\"\ntools = [\"countdown\"]\n")});
  EXPECT_EQ(none.code, kExitRewardFailed) << none.err;
  EXPECT_TRUE(Has(none.err, "no conversation came through"));
  EXPECT_TRUE(Has(none.err, "no list of integers"));
  EXPECT_EQ(RunPlumb({"env", "test", "nowhere.toml"}).code, 3);
}

TEST(EnvTestCommand, SaysHowAnEnvironmentThatIsNotThereIsMade) {
  TempFolder folder;
  const auto tried = [&](const std::string& environment, const std::string& command) {
    const std::string recipe = Recipe(folder, environment);
    const std::string text = RealFileSystem().ReadFile(recipe, 1 << 20);
    RealFileSystem().WriteFileAtomic(
        recipe, "# Tried from here:\n#   " + command + "\n#   plumb env test r.toml\n" + text);
    const auto ran = RunPlumb({"env", "test", recipe, "--rows", "1", "--reply", "7"});
    EXPECT_NE(ran.code, 0);
    EXPECT_TRUE(Has(ran.err, recipe + ":2: " + command)) << ran.err;
  };
  tried("kind = \"plugin\"\npath = \"no.so\"\n", "cc -shared -o no.so no.c");
  tried("kind = \"python\"\npath = \"" + std::string(kExamples) +
            "gym_environment.py\"\nargs = [\"python=venv/bin/python\"]\n",
        "python3 -m venv venv");
  tried("kind = \"http\"\nendpoint = \"http://127.0.0.1:1/\"\ntimeout_s = 1\n",
        "python3 serve.py 1 &");
}

TEST(EnvTestCommand, NamesAProgramBesideTheRecipeThatIsNotExecutable) {
  TempFolder folder;
  RealFileSystem().WriteFileAtomic(folder / "guess", "#!/bin/sh\n");
  const std::string recipe = Recipe(folder, "kind = \"program\"\npath = \"guess\"\n");
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  const auto ran =
      RunPlumb({"env", "test", std::filesystem::path(recipe).filename(), "--rows", "1"});
  std::filesystem::current_path(before);
  EXPECT_EQ(ran.code, 2) << ran.err;
  EXPECT_TRUE(Has(ran.err, "guess is not executable: chmod +x it")) << ran.err;
}

// Processes are started from the program itself.
TEST(EnvTestCommand, RunsPythonThroughTheProgram) {
  TempFolder folder;
  const std::string recipe = Recipe(
      folder, "kind = \"python\"\npath = \"" + std::string(kExamples) + "trl_environment.py\"\n");
  const std::string out = folder / "out";
  const std::string guess = R"('<tool_call>{"name":"guess","arguments":{"number":7}}</tool_call>')";
  const int status =
      std::system(("timeout 100 " PLUMB_BINARY_DIR "/plumb env test " + recipe + " --rows 1 " +
                   "--reply " + guess + " --reply 7 > " + out + " 2>&1")
                      .c_str());
  const std::string text = RealFileSystem().ReadFile(out, 1 << 20);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << text;
  EXPECT_TRUE(Has(text, "> tool      right")) << text;
  EXPECT_TRUE(Has(text, "reward 1.000000")) << text;
}

// Of every form of environment: the command that stands in its recipe's first lines, word for word,
// with what this machine has in place of a port, a compiled object, an interpreter with packages.
TEST(EnvTestCommand, RunsEveryRecipeOfTheExamplesAsItSays) {
  TempFolder folder;
  ChildProcess server({.command = {"python3", std::string(kExamples) + "http_guess.py", "0"}});
  server.Start();
  std::string port;
  ASSERT_EQ(server.ReadLine(16, &port, After(std::chrono::seconds(30))), Failure::kNone);
  // An interpreter that has this package; empty: none.
  const auto with = [](const std::string& package) -> std::string {
    const char* python = std::getenv("PLUMB_TEST_FRAMEWORKS_PYTHON");
    if (python == nullptr) return "";
    if (std::system((std::string(python) + " -c 'import " + package + "' 2>&1").c_str()) != 0)
      return "";
    return " --set 'environment.args=[\"python=" + std::string(python) + "\"]'";
  };
  const std::map<std::string, std::string> here = {
      {"http_guess", " --set environment.endpoint=http://127.0.0.1:" + port + "/"},
      {"guess_number",
       " --set environment.path=" PLUMB_BINARY_DIR "/tests/environment/plugins/guess_number.so"},
      {"openenv_echo", with("openenv")},
      {"reasoning_gym_sums", with("reasoning_gym")}};
  const std::map<std::string, std::string> rewards = {
      {"trl", "0.500000"},   {"program", "1.000000"},         {"verl_tool", "1.000000"},
      {"gym", "0.000000"},   {"verl_agent_loop", "1.000000"}, {"openrlhf_agent", "1.000000"},
      {"tools", "none"},     {"openrlhf_executor", "1.0"},    {"http_guess", "1.000000"},
      {"trl_tools", "none"}, {"guess_number", "1.000000"},    {"verl_function_tools", "none"},
      {"openenv_echo", "1"}, {"reasoning_gym_sums", "1.0"}};
  size_t tried = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kExamples)) {
    if (entry.path().extension() != ".toml") continue;
    const std::string name = entry.path().stem().string();
    ASSERT_TRUE(rewards.contains(name)) << "an example that nobody tries: " << name;
    ++tried;
    const std::string recipe = RealFileSystem().ReadFile(entry.path().string(), 1 << 20);
    const std::string head = "#   plumb env test examples/environments/" + name + ".toml --rows 1 ";
    const size_t at = recipe.find(head);
    ASSERT_NE(at, std::string::npos) << name << " does not say how it is tried";
    std::string command = recipe.substr(at + 4, recipe.find('\n', at) - at - 4);
    if (here.contains(name)) {
      if (here.at(name).empty()) {
        std::cout << "NOT TESTED: " << name
                  << " needs packages; name an interpreter that has them in "
                     "PLUMB_TEST_FRAMEWORKS_PYTHON\n";
        continue;
      }
      command += here.at(name);
    }
    const std::string out = folder / name;
    const int status =
        std::system(("cd " PLUMB_SOURCE_DIR " && PATH=" PLUMB_BINARY_DIR ":$PATH && timeout 100 " +
                     command + " > " + out + " 2>&1")
                        .c_str());
    const std::string said = RealFileSystem().ReadFile(out, 1 << 20);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << command << "\n" << said;
    EXPECT_TRUE(Has(said, "\n  reward " + rewards.at(name))) << command << "\n" << said;
  }
  EXPECT_EQ(tried, rewards.size());
}

}  // namespace
}  // namespace plumb::run
