// The agents of a run's recipe, as one thing: door, endpoint and programs.
//
// Purpose: environment.kind = "agent" becomes the port that a rollout borrows. With a path each
// episode's program is started here; without one the address and the key of the endpoint are
// written to agents/ACTOR.json of the run's folder, for this user alone, and agents from elsewhere
// fetch their episodes. Thread safety: the actor's thread. Ownership: of all of it; borrows the
// session. Errors: kInvalidArgument, kNotFound, kConflict, kUnsupported name the option.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/text/template/chat_template.h"
#include "common/text/tokenizer/tokenizer.h"
#include "configs/config.h"
#include "run/agents/agent_door.h"
#include "run/agents/agent_programs.h"
#include "run/agents/agent_server.h"

namespace plumb::run {

struct AgentSurroundings {
  const Tokenizer* tokenizer = nullptr;
  const ChatTemplate* chat_template = nullptr;  // nullptr: completions only
  std::vector<int32_t> eos = {};
  std::string folder = {};             // of the run
  std::string actor = {};              // its name
  std::vector<std::string> host = {};  // empty: this executable with the verb environment-host
};

class Agents {
 public:
  Agents(const configs::Config& config, const AgentSurroundings& around);
  ~Agents();

  AgentDoor& door() { return door_; }
  const AgentServer& server() const { return server_; }

 private:
  const std::string file_;  // agents/ACTOR.json; "": none is needed
  AgentDoor door_;
  AgentServer server_;
  std::unique_ptr<AgentPrograms> programs_;
};

}  // namespace plumb::run
