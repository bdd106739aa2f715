// Runs whose answers are led by agents: programs that ask the policy over HTTP in loops of four
// turns, and whatever may become of them.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include "run/agents/agent_programs.h"
#include "run/agents/open_agents.h"
#include "tests/run/serve/api_client.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::ExpectSameRun;
using testing::Has;
using testing::Lines;
using testing::Read;

// Asks four times, counts letters as its tool, and reports how many there were.
constexpr char kPlainAgent[] = R"(#!/usr/bin/env python3
import json, os, sys, urllib.request
task = json.loads(sys.stdin.readline())
def post(path, body):
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + path, json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]})
    return json.loads(urllib.request.urlopen(request, timeout=60).read())
messages = [{"role": "system", "content": "sums"}] + task["prompt"]
letters = 0
for turn in range(4):
    reply = post("/chat/completions", {"model": "policy", "messages": messages, "max_tokens": 8})
    text = reply["choices"][0]["message"]["content"]
    found = sum(c.isascii() and c.isalnum() for c in text)
    letters += found
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "tool: %d" % found}]
post("/reward", {"reward": letters / 32})
)";

// The same with OpenAI's client, and tools in the form that it has for them.
constexpr char kOpenAiAgent[] = R"(#!PYTHON
import json, sys
import openai
task = json.loads(sys.stdin.readline())
client = openai.OpenAI()
tools = [{"type": "function", "function": {"name": "count", "description": "Letters of a text.",
          "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}}}]
messages = list(task["prompt"])
letters = 0
for turn in range(4):
    answer = client.chat.completions.create(model="policy", messages=messages, tools=tools, max_tokens=8,
                                            logprobs=True)
    message = answer.choices[0].message
    assert all(token.logprob <= 0 for token in answer.choices[0].logprobs.content)
    messages.append(message.model_dump(exclude_none=True))
    text = message.content or ""
    found = sum(c.isascii() and c.isalnum() for c in text)
    letters += found
    if message.tool_calls:
        messages += [{"role": "tool", "tool_call_id": call.id, "content": str(found)} for call in message.tool_calls]
    else:
        messages.append({"role": "user", "content": "count: %d" % found})
client.post("/reward", cast_to=object, body={"reward": letters / 32})
)";

struct Recipe {
  std::string agent, model =
                         "[model]\nlayers = 1\nhidden = 32\nheads = 2\nkv_heads = 2\nffn = 64\n"
                         "max_positions = 512\nvocabulary = \"bytes\"\ninit_std = 0.05\n";
  int steps = 2;
  std::string environment = {};  // more lines
};

std::string WriteRecipe(const TempFolder& temp, const Recipe& recipe) {
  const std::string rows = temp / "rows.jsonl", path = temp / "recipe.toml";
  std::string text;
  for (const char* sum : {"2+3", "4+4", "1+7", "6+2"})
    text += R"({"messages": [{"role": "user", "content": ")" + std::string(sum) +
            R"("}], "answer": "8"})" + "\n";
  RealFileSystem().WriteFileAtomic(rows, text);
  std::string agent;
  if (!recipe.agent.empty()) {
    const std::string file = temp / "agent.py";
    RealFileSystem().WriteFileAtomic(file, recipe.agent);
    chmod(file.c_str(), 0755);
    agent = "path = \"" + file + "\"\n";
  }
  RealFileSystem().WriteFileAtomic(
      path, "[run]\nseed = 3\nsteps = " + std::to_string(recipe.steps) +
                "\nthreads = 1\ncheckpoint_every = 1\n" + recipe.model + "[data]\ntrain = \"" +
                rows +
                "\"\nmax_prompt_tokens = 256\nmap.ground_truth = \"answer\"\n"
                "[rollout]\nprompts_per_step = 2\nsamples_per_prompt = 2\nmax_new_tokens = 200\n"
                "kv_budget_mb = 64\n[environment]\nkind = \"agent\"\n" +
                agent + recipe.environment +
                "workers = 3\nmax_turns = 6\nreply_tokens = 8\n"
                "[[reward.parts]]\nname = \"agent\"\nkind = \"environment\"\n"
                "[optimizer]\nlearning_rate = 1e-2\nlr_schedule = \"constant\"\n"
                "[checkpoint]\noptimizer = \"always\"\n"
                "[metrics]\nsamples_every = 1\nsamples = \"all\"\n");
  return path;
}

int Train(const std::string& recipe, const std::string& out, const std::string& more = "") {
  const int status = std::system(("timeout 300 " + plumb::testing::BinaryPath("plumb") + " train " +
                                  recipe + " --out " + out + " " + more + " >" + out + ".out 2>&1")
                                     .c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

// Answers that were given up.
int Aborted(const std::string& out) {
  int n = 0;
  for (const auto& sample : Lines(out + "/samples.jsonl")) n += sample.at("finish") == "aborted";
  return n;
}

// Four turns of the policy's, and what was said between them.
void ExpectLoops(const std::string& out, const std::string& tool) {
  int loops = 0;
  for (const auto& sample : Lines(out + "/samples.jsonl")) {
    int said = 0, asked = 0;
    for (const auto& turn : sample.at("turns")) {
      const bool policy = turn.at("by") == "policy";
      ++(policy ? said : asked);
      if (!policy) {
        EXPECT_TRUE(Has(turn.at("text").get<std::string>(), tool)) << sample.dump();
      }
    }
    EXPECT_EQ(said, 4) << sample.dump();
    EXPECT_EQ(asked, 3);
    ++loops;
  }
  EXPECT_EQ(loops, 8) << "each answer is one conversation";
}

TEST(AgentTrain, ALoopOfFourTurnsTrainsAndRolesAndResumesChangeNothing) {
  const TempFolder temp;
  const std::string recipe = WriteRecipe(temp, {.agent = kPlainAgent});
  const std::string local = temp / "local", processes = temp / "processes",
                    resumed = temp / "resumed";
  ASSERT_EQ(Train(recipe, local), 0) << Read(local + ".out");
  ASSERT_EQ(Train(recipe, processes, "--set run.roles=processes"), 0) << Read(processes + ".out");
  ExpectSameRun(local, processes);
  ASSERT_EQ(Train(recipe, resumed, "--steps 1"), 0) << Read(resumed + ".out");
  ASSERT_EQ(Train(recipe, resumed, "--steps 2 --resume"), 0) << Read(resumed + ".out");
  ExpectSameRun(local, resumed);
  ExpectLoops(local, "tool: ");
  double learned = 0;
  for (const auto& line : Lines(local + "/metrics.jsonl")) {
    EXPECT_EQ(line.at("turns/mean"), 4);
    EXPECT_GT(line.at("reward/mean").get<double>(), 0);
    // float32 of one machine: what was drawn is what is learned from.
    EXPECT_LT(line.at("sampling/logprob_diff_mean").get<double>(), 1e-4);
    EXPECT_EQ(line.at("environment/branches"), 0);
    EXPECT_EQ(line.at("environment/failures"), 0);
    learned += line.at("optim/grad_norm").get<double>();
  }
  EXPECT_GT(learned, 0);
}

// With PLUMB_TEST_FRAMEWORKS_PYTHON=venv/bin/python: pip install openai. A model folder whose chat
// template has tools.
TEST(AgentTrain, OpenAisOwnClientTrainsInstalled) {
  const char* python = std::getenv("PLUMB_TEST_FRAMEWORKS_PYTHON");
  if (python == nullptr || std::system((std::string(python) + " -c 'import openai'").c_str()) != 0)
    GTEST_SKIP() << "NOT TESTED: no openai here; name an interpreter that has it in "
                    "PLUMB_TEST_FRAMEWORKS_PYTHON";
  const TempFolder temp;
  const std::string first = temp / "first", model = temp / "model";
  ASSERT_EQ(Train(WriteRecipe(temp, {.agent = kPlainAgent, .steps = 1}), first), 0)
      << Read(first + ".out");
  std::filesystem::copy(first + "/model", model, std::filesystem::copy_options::recursive);
  RealFileSystem().WriteFileAtomic(
      model + "/chat_template.jinja",
      "{% if tools %}<system>{{ tools | tojson }}<eos>{% endif %}"
      "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] or '' }}"
      "{% for c in m['tool_calls'] or [] %}<tool_call>{{ c['function'] | tojson }}</tool_call>"
      "{% endfor %}<eos>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}");
  std::string agent = kOpenAiAgent;
  agent.replace(agent.find("PYTHON"), 6, std::filesystem::absolute(python).string());
  // The interpreter's own folder is seen where it is the program.
  const std::string recipe =
      WriteRecipe(temp, {.agent = agent, .model = "[model]\npath = \"" + model + "\"\n"});
  const std::string set = " --set environment.path=" + std::filesystem::absolute(python).string() +
                          " --set 'environment.args=[\"" + (temp / "agent.py") + "\"]'" +
                          " --set environment.timeout_s=60 --set environment.memory_mb=4096" +
                          " --set data.max_prompt_tokens=400";
  const std::string local = temp / "local", processes = temp / "processes";
  ASSERT_EQ(Train(recipe, local, set), 0) << Read(local + ".out");
  ASSERT_EQ(Train(recipe, processes, set + " --set run.roles=processes"), 0)
      << Read(processes + ".out");
  ExpectSameRun(local, processes);
  ExpectLoops(local, "count: ");
}

TEST(AgentTrain, AgentsThatFailAreCountedAndTheRunGoesOn) {
  const TempFolder temp;
  std::string agent = kPlainAgent;
  // Of each group one falls over, hangs or says nothing, by its number; the first ones are whole.
  agent.replace(agent.find("messages = ["), 0,
                "import time\n"
                "which = task['prompt'][0]['content']\n"
                "if task['sample'] == 2 and which == '2+3': sys.exit('fell over on purpose')\n"
                "if task['sample'] == 2 and which == '4+4': sys.exit(0)\n"
                "if task['sample'] == 2 and which == '1+7':\n"
                "    post('/chat/completions', {'messages': task['prompt'], 'max_tokens': 4})\n"
                "    time.sleep(600)\n"
                "if task['sample'] == 2: os.abort()\n");
  const std::string recipe = WriteRecipe(temp, {.agent = agent});
  const std::string out = temp / "run";
  ASSERT_EQ(Train(recipe, out, "--set rollout.samples_per_prompt=3 --set environment.timeout_s=3"),
            0)
      << Read(out + ".out");
  const auto lines = Lines(out + "/metrics.jsonl");
  ASSERT_EQ(lines.size(), 2u);
  // The last of them may be counted behind the last step's line.
  EXPECT_GE(lines.back().at("environment/failures"), 2);
  EXPECT_TRUE(Has(Read(out + ".out"), "note:   4 episodes failed in the environment"))
      << Read(out + ".out");
  EXPECT_EQ(Aborted(out), 4);
  const std::string samples = Read(out + "/samples.jsonl");
  EXPECT_TRUE(Has(samples, "fell over on purpose")) << samples;
  EXPECT_TRUE(Has(samples, "without having asked")) << samples;
  EXPECT_TRUE(Has(samples, "environment.timeout_s")) << samples;
}

// Processes whose command line has `text`, by their arguments.
std::map<pid_t, std::string> ProcessesOf(const std::string& text) {
  std::map<pid_t, std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    try {
      std::string line = RealFileSystem().ReadFile(entry.path() / "cmdline", 1 << 20);
      std::replace(line.begin(), line.end(), '\0', ' ');
      if (Has(line, text)) out[std::stoi(name)] = line;
    } catch (const Error&) {  // it has just ended
    }
  }
  return out;
}

int64_t Descriptors(pid_t process) {
  const std::filesystem::directory_iterator open("/proc/" + std::to_string(process) + "/fd");
  return std::distance(begin(open), end(open));
}

// Somebody kills agents -9 in the middle of their conversations, one of each group. There are slots
// for two answers: one that a dead agent kept would be the end of the run.
TEST(AgentTrain, AnAgentThatIsKilledInTheMiddleIsGivenUpAndLeavesNothing) {
  const TempFolder temp;
  std::string agent = kPlainAgent;
  // Another program from here on, so that it is found by its name. It is in the middle of its loop.
  agent.replace(agent.find("    reply = post("), 0,
                "    if turn == 2 and task['sample'] == 1:\n"
                "        os.execv(sys.executable, [sys.executable, '-c', "
                "'import time; time.sleep(600)', 'WAITS'])\n");
  const std::string waits = temp / "waits";
  agent.replace(agent.find("WAITS"), 5, waits);
  const std::string recipe = WriteRecipe(temp, {.agent = agent, .steps = 6}), out = temp / "run";
  const pid_t run =
      testing::StartProgram({"train", recipe, "--out", out, "--set", "rollout.max_batch=2", "--set",
                             "environment.timeout_s=120", "--set", "data.shuffle=false"},
                            out);
  int status = 0;
  std::set<pid_t> killed;            // one may still be seen for a while
  std::vector<int64_t> descriptors;  // of the run, at each kill
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(5);
  while (waitpid(run, &status, WNOHANG) == 0 && std::chrono::steady_clock::now() < deadline) {
    // What holds an agent's walls has no such word on its command line.
    for (const auto& [process, line] : ProcessesOf(waits)) {
      if (!killed.insert(process).second) continue;
      descriptors.push_back(Descriptors(run));
      if (kill(process, SIGKILL) != 0) killed.erase(process);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  }
  if (kill(run, 0) == 0 && std::chrono::steady_clock::now() >= deadline) {
    kill(run, SIGKILL);
    waitpid(run, &status, 0);
    FAIL() << "the run does not go on: " << Read(out + ".out");
  }
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << Read(out + ".out");
  EXPECT_EQ(killed.size(), 12u) << "one of each group";
  EXPECT_EQ(Aborted(out), 12);
  int64_t spoke = 0;
  for (const auto& sample : Lines(out + "/samples.jsonl")) {
    if (sample.at("finish") != "aborted") continue;
    const std::string why = sample.at("unscored_reason");
    // Where bubblewrap is its parent, that says it by its own exit code.
    EXPECT_TRUE(Has(why, "the agent ended by signal 9") || Has(why, "137")) << why;
    EXPECT_FALSE(sample.contains("reward") && sample.at("reward").is_number()) << sample.dump();
    ++spoke;
  }
  EXPECT_EQ(spoke, 12);
  const auto lines = Lines(out + "/metrics.jsonl");
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_GE(lines.back().at("environment/failures"), 11) << "the last may be counted later";
  EXPECT_TRUE(ProcessesOf(temp.path()).empty()) << ProcessesOf(temp.path()).begin()->second;
  // As many in the second half as in the first, but for what is in flight.
  ASSERT_GE(descriptors.size(), 8u);
  const auto half = descriptors.begin() + descriptors.size() / 2;
  EXPECT_LE(*std::max_element(half, descriptors.end()),
            *std::max_element(descriptors.begin(), half) + 4);
}

// Nothing but the endpoint is there.
TEST(AgentTrain, AnAgentSeesNoOtherNetwork) {
  if (ProbeNamespaces()) GTEST_SKIP() << "NOT TESTED: " << *ProbeNamespaces();
  const TempFolder temp;
  std::string agent = kPlainAgent;
  agent.replace(
      agent.find("messages = ["), 0,
      "import socket\n"
      "def reaches(address):\n"
      "    try: socket.create_connection(address, timeout=2).close()\n"
      "    except OSError: return False\n"
      "    return True\n"
      "if reaches(('127.0.0.1', OTHER)) or reaches(('1.1.1.1', 53)): sys.exit('a way out')\n"
      "try: open('/usr/plumb-was-here', 'w'); sys.exit('a file written')\n"
      "except OSError: pass\n");
  const int other = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(other, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(other, 16), 0);
  getsockname(other, reinterpret_cast<sockaddr*>(&address), &size);
  agent.replace(agent.find("OTHER"), 5, std::to_string(ntohs(address.sin_port)));
  const std::string recipe = WriteRecipe(temp, {.agent = agent, .steps = 1}), out = temp / "run";
  ASSERT_EQ(Train(recipe, out), 0) << Read(out + ".out");
  EXPECT_EQ(Aborted(out), 0) << Read(out + "/samples.jsonl");
  close(other);
}

TEST(AgentTrain, AgentsFromElsewhereLeadTheEpisodesThatTheyFetch) {
  const TempFolder temp;
  const std::string recipe = WriteRecipe(temp, {.agent = "", .steps = 1}), out = temp / "run";
  std::thread train([&] { EXPECT_EQ(Train(recipe, out), 0) << Read(out + ".out"); });
  const std::string file = out + "/agents/actor-0.json";
  for (int i = 0; i < 600 && !std::filesystem::exists(file); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ASSERT_TRUE(std::filesystem::exists(file)) << Read(out + ".out");
  struct stat info {};
  ASSERT_EQ(stat(file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const auto house = nlohmann::json::parse(Read(file));
  const std::string url = house["url"];
  const int port = std::stoi(url.substr(url.rfind(':') + 1));
  const auto bearer = [](const nlohmann::json& key) {
    return "Authorization: Bearer " + key.get<std::string>() + "\r\n";
  };
  int led = 0;
  for (int i = 0; i < 100 && led < 4; ++i) {
    const auto fetched = testing::Post(port, "/episodes", {{"wait", 1}}, bearer(house["api_key"]));
    if (fetched.status != 200) continue;
    const auto episode = fetched.json();
    const std::string base = episode["base_url"], path = base.substr(base.find("/episodes"));
    const auto answer = testing::Post(port, path + "/chat/completions",
                                      {{"messages", episode["task"]["prompt"]}, {"max_tokens", 4}},
                                      bearer(episode["api_key"]));
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(testing::Post(port, path + "/reward", {{"reward", led % 2}, {"done", true}},
                            bearer(episode["api_key"]))
                  .status,
              200);
    ++led;
  }
  EXPECT_EQ(led, 4);
  train.join();
  EXPECT_FALSE(std::filesystem::exists(file)) << "it goes with the endpoint";
  EXPECT_EQ(Lines(out + "/metrics.jsonl").back().at("reward/mean"), 0.5);
}

// Clients from elsewhere that fetch an episode and are not heard of again: one behind a call, with
// its connection open, one in the middle of a request, one before it said anything.
TEST(AgentTrain, AClientThatNeverComesBackIsGivenUpAndTheRunGoesOn) {
  const TempFolder temp;
  const std::string recipe = WriteRecipe(temp, {.agent = "", .steps = 2}), out = temp / "run";
  std::thread train([&] {
    EXPECT_EQ(Train(recipe, out, "--set environment.timeout_s=2 --set rollout.max_batch=2"), 0)
        << Read(out + ".out");
  });
  const std::string file = out + "/agents/actor-0.json";
  for (int i = 0; i < 600 && !std::filesystem::exists(file); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ASSERT_TRUE(std::filesystem::exists(file)) << Read(out + ".out");
  const auto house = nlohmann::json::parse(Read(file));
  const std::string url = house["url"];
  const int port = std::stoi(url.substr(url.rfind(':') + 1));
  const auto bearer = [](const nlohmann::json& key) {
    return "Authorization: Bearer " + key.get<std::string>() + "\r\n";
  };
  const int half_said = socket(AF_INET, SOCK_STREAM, 0);
  int fetched = 0, late = 0, finished = 0;
  std::string lost_path, lost_key;  // of the first, which comes back too late
  for (int i = 0; i < 300 && fetched < 8; ++i) {
    const auto got = testing::Post(port, "/episodes", {{"wait", 1}}, bearer(house["api_key"]));
    if (got.status != 200) continue;
    const auto episode = got.json();
    const std::string base = episode["base_url"], path = base.substr(base.find("/episodes")),
                      key = episode["api_key"];
    const nlohmann::json call = {{"messages", episode["task"]["prompt"]}, {"max_tokens", 4}};
    ++fetched;
    if (fetched == 1) {
      EXPECT_EQ(testing::Post(port, path + "/chat/completions", call, bearer(key)).status, 200);
      lost_path = path, lost_key = key;
      continue;
    }
    if (fetched == 2) {
      sockaddr_in address = {};
      address.sin_family = AF_INET;
      address.sin_port = htons(static_cast<uint16_t>(port));
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      ASSERT_EQ(connect(half_said, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
      const std::string half = "POST " + path + "/chat/completions HTTP/1.1\r\nHost: x\r\n" +
                               bearer(key) + "Content-Length: 500\r\n\r\n{\"messages\"";
      ASSERT_EQ(write(half_said, half.data(), half.size()), static_cast<ssize_t>(half.size()));
      // It has said something once, or the minute that a first call may take would pass.
      EXPECT_EQ(testing::Post(port, path + "/chat/completions", call, bearer(key)).status, 200);
      continue;
    }
    EXPECT_EQ(testing::Post(port, path + "/chat/completions", call, bearer(key)).status, 200);
    EXPECT_EQ(testing::Post(port, path + "/reward", {{"reward", 0.5}, {"done", true}}, bearer(key))
                  .status,
              200);
    ++finished;
    if (fetched == 6) {  // of the second step: the first one's were given up
      late = testing::Post(port, lost_path + "/chat/completions", call, bearer(lost_key)).status;
    }
  }
  EXPECT_EQ(finished, 6);
  EXPECT_GE(late, 400) << "its episode is over";
  train.join();
  close(half_said);
  EXPECT_EQ(Aborted(out), 2);
  EXPECT_TRUE(Has(Read(out + "/samples.jsonl"), "environment.timeout_s"));
  const auto lines = Lines(out + "/metrics.jsonl");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines.back().at("environment/failures"), 2);
  EXPECT_EQ(lines.back().at("reward/mean"), 0.5) << "nobody got a zero";
}

TEST(AgentTrain, WhatDoesNotGoTogetherIsSaidBeforeARun) {
  const TempFolder temp;
  for (const auto& [set, said] :
       {std::pair{"--set environment.listen=somewhere", "environment.listen"},
        std::pair{"--set environment.path=/nowhere/agent", "environment.path"},
        std::pair{"--set 'environment.tools=[\"calculator\"]'", "environment.tools"},
        std::pair{"--set algorithm.advantage=greedy", "environment.kind"}}) {
    const std::string recipe = WriteRecipe(temp, {.agent = kPlainAgent}), out = temp / "run";
    EXPECT_NE(Train(recipe, out, set), 0);
    EXPECT_TRUE(Has(Read(out + ".out"), said)) << Read(out + ".out");
  }
}

}  // namespace
}  // namespace plumb::run
