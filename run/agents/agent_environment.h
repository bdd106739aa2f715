// Agents seen from the other side: an environment that speaks first, for who has no policy but a
// script (`plumb env test`).
//
// Purpose: an EnvironmentPort over an AgentDoor. What an agent asks with is what it says to the
// policy; what the policy says is its answer. Calls of an episode are answered one at a time, in
// the order they came. Thread safety: one thread. Ownership: borrows door and tokenizer. Errors: as
// the port.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "common/record/environment.h"
#include "common/text/tokenizer/tokenizer.h"
#include "run/agents/agent_door.h"

namespace plumb::run {

class AgentEnvironment : public EnvironmentPort {
 public:
  AgentEnvironment(AgentDoor& door, const Tokenizer& tokenizer)
      : door_(door), tokenizer_(tokenizer) {}

  std::string ToolsJson() const override { return ""; }
  void Begin(uint64_t episode, const Prompt& prompt, uint32_t sample) override;
  void Act(uint64_t episode, const std::string& text) override;
  std::vector<EnvironmentReply> Poll(Deadline deadline) override;
  void End(uint64_t episode) override;

 private:
  struct Open {
    std::deque<AgentCall> calls;  // the first is the one that was told
    bool awaits = true;           // the caller wants to hear of it
  };
  // What the episode has to say, if it is wanted.
  void Say(uint64_t episode, Open& open, std::vector<EnvironmentReply>* out);

  AgentDoor& door_;
  const Tokenizer& tokenizer_;
  std::map<uint64_t, Open> episodes_;
};

}  // namespace plumb::run
