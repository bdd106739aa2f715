#include "run/agents/agent_programs.h"

#include <unistd.h>

#include <filesystem>
#include <string_view>
#include <utility>

#include "common/base/error.h"
#include "common/sandbox/child_process.h"
#include "common/sandbox/host_command.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr milliseconds kLook{100};         // between looks whether its episode goes on
constexpr milliseconds kTaskTime{10'000};  // to take its task
constexpr size_t kMaxLine = 1 << 20;       // of what it prints
constexpr size_t kMostSaid = 400;          // of it, in messages

// A file beside the program, or among its arguments, has to be seen in there.
std::vector<std::string> SeenArguments(const AgentCommand& command, SandboxOptions* sandbox) {
  const std::string& program = command.program;
  sandbox->visible.push_back(fs::path(program).parent_path().string());
  std::vector<std::string> arguments = command.arguments;
  for (std::string& argument : arguments) {
    std::error_code error;
    if (!fs::is_regular_file(argument, error)) continue;
    argument = fs::canonical(argument, error).string();
    sandbox->visible.push_back(fs::path(argument).parent_path().string());
  }
  const fs::path environment = fs::path(program).parent_path().parent_path();
  std::error_code error;
  if (fs::exists(environment / "pyvenv.cfg", error))
    sandbox->visible.push_back(environment.string());
  return arguments;
}

}  // namespace

AgentCommand ReadAgentCommand(const configs::EnvironmentConfig& config) {
  constexpr std::string_view kPython = "python=";
  AgentCommand command{.program = config.path, .arguments = config.args};
  std::string interpreter;
  if (config.path.ends_with(".py")) {
    std::erase_if(command.arguments, [&](const std::string& argument) {
      if (!argument.starts_with(kPython)) return false;
      interpreter = argument.substr(kPython.size());
      return true;
    });
    if (interpreter.empty() && access(config.path.c_str(), F_OK) == 0 &&
        access(config.path.c_str(), X_OK) != 0)
      interpreter = "python3";
  }
  if (!interpreter.empty()) {
    command.arguments.insert(command.arguments.begin(),
                             std::exchange(command.program, interpreter));
  }
  command.program = FindExecutable(command.program,
                                   interpreter.empty() ? "environment.path" : "environment.args");
  return command;
}

std::string MissingModule(const std::string& said, const std::string& program) {
  constexpr std::string_view kSays = "ModuleNotFoundError: No module named '";
  const size_t at = said.rfind(kSays);
  if (at == std::string::npos) return "";
  const std::string rest = said.substr(at + kSays.size());
  const std::string module = rest.substr(0, rest.find_first_of("'."));
  const bool python = fs::path(program).filename().string().starts_with("python");
  return "its Python has no module '" + module + "': install it there (" +
         (python ? program + " -m pip install " + module : "pip install " + module) +
         "), or name an interpreter that has it, environment.args = [\"python=venv/bin/python\"]";
}

AgentPrograms::AgentPrograms(AgentDoor& door, const configs::EnvironmentConfig& config, int port,
                             bool allow_unsandboxed, std::vector<std::string> host)
    : door_(door), port_(port) {
  if (host.empty()) host = OwnHost("environment-host");
  sandbox_.memory_mb = config.memory_mb;
  sandbox_.allow_unsandboxed = allow_unsandboxed;
  const AgentCommand agent = ReadAgentCommand(config);
  program_ = agent.program;
  const std::vector<std::string> arguments = SeenArguments(agent, &sandbox_);
  if (ProbeNamespaces()) {
    sandbox_.network = true;  // refused below, but where allow_unsandboxed lets it go on without
  } else {
    folder_.emplace("/tmp/plumb-agents");  // the name of a socket has to be short
    sandbox_.relay_port = port;
    sandbox_.relay_socket = folder_->path() + "/endpoint";
    relay_ = std::make_unique<SocketRelay>(sandbox_.relay_socket, port);
  }
  command_ = HostCommand(sandbox_, host, "--exec", program_, arguments);
  for (int64_t i = 0; i < config.workers; ++i) threads_.emplace_back([this] { Loop(); });
}

AgentPrograms::~AgentPrograms() {
  door_.Close();
  for (std::thread& thread : threads_) thread.join();
  relay_.reset();
}

void AgentPrograms::Loop() {
  while (!door_.closed()) {
    const auto task = door_.Fetch(After(kLook * 10));
    if (!task) continue;
    try {
      Lead(*task);
    } catch (const Error& error) {
      door_.Ended(task->episode, std::string("the agent was not started: ") + error.what());
    }
  }
}

void AgentPrograms::Lead(const AgentTask& task) {
  ChildProcess child({.command = command_,
                      .max_processes = CountedProcesses(sandbox_),
                      .variables = {"OPENAI_BASE_URL=http://127.0.0.1:" + std::to_string(port_) +
                                        "/episodes/" + std::to_string(task.episode) + "/v1",
                                    "OPENAI_API_KEY=" + task.key, "PYTHONUNBUFFERED=1"}});
  child.Start();
  std::string line, last;
  // A program that reads nothing of it may still be right.
  Failure failure = child.Write(task.json + "\n", After(kTaskTime));
  child.CloseInput();
  for (;;) {
    if (door_.Over(task.episode)) return;  // with which it is killed
    failure = child.ReadLine(kMaxLine, &line, After(kLook));
    if (failure == Failure::kTimeout) continue;
    if (failure != Failure::kNone) break;
    last = line.substr(0, kMostSaid);
  }
  std::string why;
  if (failure == Failure::kOutputCap) {
    child.Kill();
    why = "wrote a line of more than " + std::to_string(kMaxLine) + " bytes";
  } else {
    why = child.EndReason(&failure);
    if (failure == Failure::kExit && why.ends_with("exit code 0")) {
      door_.Ended(task.episode, "");
      return;
    }
  }
  std::string said = child.TakeStderr();
  if (said.empty()) said = last;
  if (const std::string missing = MissingModule(said, program_); !missing.empty())
    return door_.Ended(task.episode, "the agent " + why + ": " + missing);
  if (said.size() > kMostSaid) said.erase(0, said.size() - kMostSaid);
  door_.Ended(task.episode, "the agent " + why + (said.empty() ? "" : "; it printed: " + said));
}

}  // namespace plumb::run
