// Agents that ask the policy themselves: the port between the actor and whoever speaks with them.
//
// Purpose: where an environment is asked what to say, an agent asks: a program of its own that
// calls the policy as it calls any model. An episode is one answer's; its calls belong to
// conversations, each of which becomes a trajectory: a call either begins one with its prompt or
// goes on with one behind what stands there already. Who speaks with agents knows texts and tells
// tokens; the actor knows tokens only.
// Thread safety: every implementation is safe for concurrent calls. Begin, Answer and End return at
// once. Errors: what goes wrong with an agent is AgentEvent::error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/record/ports.h"
#include "common/record/trajectory.h"

namespace plumb {

struct AgentCall {
  uint64_t call = 0;  // its number, not used again
  uint64_t episode = 0;
  uint32_t conversation = 0;  // of the episode: 0, 1, ... in the order they begin
  bool begins = false;        // with `tokens` as its prompt; else they stand behind what is there
  std::vector<int32_t> tokens = {};  // not empty
  int32_t limit = 0;                 // new tokens at most; 0: as many as there is room for
  std::vector<std::string> stop = {};
};

struct AgentEvent {
  enum class Kind : uint8_t {
    kCall,   // `call`
    kLeft,   // who asked `call` has gone without its answer, which is nobody's turn then
    kEnded,  // the episode is over: no call of it comes any more
  };
  Kind kind = Kind::kCall;
  AgentCall call = {};
  uint64_t episode = 0;
  // Of kEnded.
  std::optional<double> reward = {};  // of the episode; finite
  bool cut = false;                   // by a limit: "length"
  bool timed_out = false;             // that of its time
  std::string error = {};             // it cannot go on, one sentence: its answers are given up
};

// What becomes of a call. Exactly one to each, but for those of an episode that has ended.
struct AgentAnswer {
  uint64_t call = 0;
  uint64_t episode = 0;
  std::vector<int32_t> tokens = {};  // with the end token, or what completed a stop string
  std::vector<float> logprobs = {};  // of the tokens
  FinishReason finish = FinishReason::kStop;
  std::string stop = {};     // the call's own stop string that ended it
  std::string refused = {};  // not empty: there is no answer; why, for the agent
  std::string code = {};     // of a refusal, a word for programs
};

class AgentPort {
 public:
  virtual ~AgentPort() = default;
  virtual void Begin(uint64_t episode, const Prompt& prompt, uint32_t sample) = 0;
  // What has come; waits for the first until the deadline. Empty: nothing before it.
  virtual std::vector<AgentEvent> Poll(Deadline deadline) = 0;
  virtual void Answer(AgentAnswer answer) = 0;
  // The episode is over or given up: no event of it comes any more.
  virtual void End(uint64_t episode) = 0;
};

}  // namespace plumb
