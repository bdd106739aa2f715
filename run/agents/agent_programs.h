// Agents that the run starts itself: a program an episode, environment.path with environment.args.
//
// Purpose: environment.workers episodes at a time; each is a process of its own behind the walls of
// every environment (common/sandbox/sandbox.h): files read-only, no network but the endpoint, which
// it finds at the address that OPENAI_BASE_URL names, with its key in OPENAI_API_KEY. A Python file
// runs in the interpreter that args name (python=venv/bin/python), else by itself where it is
// executable, else in python3. Its task is
// one line of JSON on its standard input. Exit code 0 ends the episode; any other, or a signal,
// gives it up with what the program printed last. One that still runs when its episode is over is
// killed.
// Thread safety: one thread makes and ends it; the rest runs on threads of its own. Ownership: owns
// threads and processes, borrows the door. Errors: kInvalidArgument, kNotFound, kUnsupported name
// the option.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/base/files/scratch_folder.h"
#include "common/sandbox/sandbox.h"
#include "common/sandbox/socket_relay.h"
#include "configs/config.h"
#include "run/agents/agent_door.h"

namespace plumb::run {

// What is started: the program, or the interpreter of a Python file with the file in front of its
// arguments.
struct AgentCommand {
  std::string program;
  std::vector<std::string> arguments;
};
AgentCommand ReadAgentCommand(const configs::EnvironmentConfig& config);

// What to do where Python has said that a module is missing; empty: it has not.
std::string MissingModule(const std::string& said, const std::string& program);

class AgentPrograms {
 public:
  // `port`: of the endpoint, on the loopback. `host`: as environment::OpenOptions.
  AgentPrograms(AgentDoor& door, const configs::EnvironmentConfig& config, int port,
                bool allow_unsandboxed, std::vector<std::string> host = {});
  ~AgentPrograms();  // closes the door
  AgentPrograms(const AgentPrograms&) = delete;

 private:
  void Loop();
  void Lead(const AgentTask& task);

  AgentDoor& door_;
  const int port_;
  std::optional<ScratchFolder> folder_;  // of the relay's socket
  std::unique_ptr<SocketRelay> relay_;
  std::string program_;
  std::vector<std::string> command_;
  SandboxOptions sandbox_;
  std::vector<std::thread> threads_;
};

}  // namespace plumb::run
