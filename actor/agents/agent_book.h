// What agents ask of the engine, and the trajectories that come of it.
//
// Purpose: each answer of a group is an episode of an agent (common/record/agent.h). A conversation
// of it is a request of the engine with turns: at the end of a call it keeps its slot and its
// pages, and a call that goes on with it computes only what stands behind. A conversation whose
// slot is wanted by others is put aside and computed anew when it goes on; tokens and log-probs are
// the same either way, for draws are addressed by their place. Each conversation becomes a
// trajectory: the first call's prompt, what the policy drew, and, masked, what the agent put
// between. A turn whose asker left before it was answered belongs to none.
// Limits: environment.max_turns calls an episode, data.max_prompt_tokens of a conversation's
// prompt, rollout.max_new_tokens behind it: what goes beyond is refused, and the episode ends as
// kLength, as one whose time is over does, with what there is. An agent that fails gives its answer
// up: one trajectory of the group, kAborted, with the reason.
// Thread safety: none, the actor's thread. Ownership: borrows port, tokenizer and engine, of which
// it has every request. Errors: the engine's refusals are answers to the agent.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actor/engine.h"
#include "actor/turns/episodes.h"
#include "common/record/agent.h"
#include "common/text/tokenizer/tokenizer.h"

namespace plumb::actor {

struct AgentOptions {
  int32_t max_turns = 8;             // calls of an episode
  int32_t max_prompt_tokens = 1024;  // of a conversation
  int32_t max_new_tokens = 64;       // behind its prompt
  int32_t max_positions = 0;         // of the model; 0: no bound of its own
};

struct AgentCounters {
  uint64_t branches = 0;    // conversations beyond the first of an episode
  uint64_t put_aside = 0;   // that gave their slot to others
  uint64_t left_calls = 0;  // answered to nobody
  uint64_t refused = 0;     // calls, for a limit
};

class AgentBook {
 public:
  AgentBook(AgentPort* port, const Tokenizer* tokenizer, Engine* engine, AgentOptions options);
  ~AgentBook();  // gives up what is left

  // `request`: the caller's number of the group. `prompt`: whole, and tokenized for an answer that
  // has no conversation.
  void Begin(uint64_t request, const Prompt& prompt, uint64_t prompt_key, int32_t samples);
  // Takes in what has come from agents; waits for it until the deadline.
  void Poll(Deadline deadline);
  // What a step of the engine has drawn and ended.
  void AfterStep();
  // Of every result of the engine.
  void Take(GenerateResult result);
  // A group all of whose episodes are over: of each answer its trajectories, in front the one that
  // spoke last, then the others in the order they began. Samples are not numbered.
  using Answers = std::vector<std::vector<Trajectory>>;
  std::optional<std::pair<uint64_t, Answers>> TakeDone();
  // Gives up whatever is left of a group.
  void Close(uint64_t request);

  const EpisodeCounters& counters() const { return counters_; }
  const AgentCounters& agent_counters() const { return agent_counters_; }

 private:
  struct Conversation;
  struct Episode;
  struct Group {
    std::vector<uint64_t> episodes;  // by sample
    uint64_t prompt_key = 0;
    std::vector<int32_t> prompt;  // tokens of the row's prompt
    int32_t open = 0;             // episodes that are not over
  };

  void TakeCall(const AgentCall& call);
  void TakeLeft(const AgentCall& call);
  void Refuse(const AgentCall& call, const std::string& code, const std::string& why);
  void Submit(Episode& episode, Conversation& conversation);
  void Answered(Episode& episode, Conversation& conversation, FinishReason finish);
  void EndTurns();
  void MakeRoom();
  // `finish` and `why` of all its answers.
  void Finish(Episode& episode, FinishReason finish, const std::string& why);
  void CloseIfDone(Episode& episode);
  std::vector<Trajectory> Record(Episode& episode, const Group& group);
  Trajectory RecordOf(Episode& episode, Conversation& conversation);
  Trajectory Empty(const Episode& episode, const Group& group);

  AgentPort* const port_;
  const Tokenizer* const tokenizer_;
  Engine* const engine_;
  const AgentOptions options_;
  std::map<uint64_t, Episode> episodes_;
  std::map<uint64_t, Group> groups_;
  // By the engine's request: (episode, conversation).
  std::map<uint64_t, std::pair<uint64_t, uint32_t>> requests_;
  std::deque<uint64_t> done_;  // groups
  uint64_t next_episode_ = 0, next_request_ = 0, clock_ = 0;
  EpisodeCounters counters_;
  AgentCounters agent_counters_;
};

}  // namespace plumb::actor
