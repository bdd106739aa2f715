// The episodes of agents: between those who ask over HTTP and the actor.
//
// Purpose: an AgentPort (common/record/agent.h). The actor begins episodes; each waits for its
// agent: a program that is started for it (run/agents/agent_programs.h), or somebody elsewhere who
// fetches it. An agent asks with its episode's number and key, is answered when the policy has, and
// may say a reward; the last one said counts. An episode ends when its agent says so or its program
// has ended. One whose agent is silent for timeout_s between two calls, or asks for nothing within
// a minute of its start, is given up; one that takes episode_seconds from its start ends with what
// there is.
// Thread safety: all functions. Ownership: borrows tokenizer and template. Errors: ApiError for
// whoever asks; the port as it says.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/record/agent.h"
#include "common/text/template/chat_template.h"
#include "common/text/tokenizer/tokenizer.h"
#include "configs/config.h"
#include "environment/calls/tool_call.h"
#include "run/agents/placed_conversations.h"
#include "run/serve/answer_request.h"

namespace plumb::run {

struct DoorOptions {
  // What the recipe says; other values of an agent are not followed, and counted.
  configs::RolloutConfig rollout = {};
  configs::EnvironmentConfig environment = {};
  std::chrono::milliseconds first_call{60'000};
  std::vector<int32_t> eos = {};
};

// A call that has been answered, as it is told.
struct AnsweredCall {
  uint64_t episode = 0;
  AgentCall call;
  AgentAnswer answer;
  std::string text;  // without the end token and from a stop string on
  environment::ParsedTurn turn;
  std::vector<int32_t> prompt;  // all that it was drawn behind
};

// An episode for who will be its agent.
struct AgentTask {
  uint64_t episode = 0;
  std::string key;
  std::string json;  // prompt, ground_truth, sample and extra, as environments are told
};

class AgentDoor : public AgentPort {
 public:
  AgentDoor(const Tokenizer* tokenizer, const ChatTemplate* chat_template, DoorOptions options);
  ~AgentDoor() override;

  void Begin(uint64_t episode, const Prompt& prompt, uint32_t sample) override;
  std::vector<AgentEvent> Poll(Deadline deadline) override;
  void Answer(AgentAnswer answer) override;
  void End(uint64_t episode) override;

  // The oldest episode without an agent, which is the caller's from here on; none by the deadline,
  // or once the door is closed: nullopt.
  std::optional<AgentTask> Fetch(Deadline deadline);
  // Of its agent; ApiError 401 for a wrong key, 410 once it is over.
  AnsweredCall Ask(uint64_t episode, const std::string& key, const AnswerRequest& request);
  // The answer did not reach who asked.
  void Left(const AnsweredCall& call);
  void Reward(uint64_t episode, const std::string& key, std::optional<double> reward, bool done);
  // The agent has ended; `error`: why it could not go on.
  void Ended(uint64_t episode, const std::string& error);
  bool Over(uint64_t episode) const;
  // Whoever waits is told that it is over; nothing begins from here on.
  void Close();
  bool closed() const;

  // environment/calls, malformed_calls, other_sampling: of what agents asked for.
  std::map<std::string, int64_t> Counters() const;

 private:
  struct Episode;
  using Shared = std::shared_ptr<Episode>;

  Shared Find(uint64_t episode, const std::string& key) const;
  void Finish(Episode& episode, AgentEvent event) PLUMB_REQUIRES(mu_);
  void Expire() PLUMB_REQUIRES(mu_);
  void CountSampling(const AnswerRequest& request);
  void CheckTools(const Said& said) const;  // the template writes them
  std::string TextOf(const AgentAnswer& answer) const;

  const Tokenizer* const tokenizer_;
  const ChatTemplate* const template_;
  const DoorOptions options_;
  const bool keeps_beginnings_;
  const configs::ToolForm form_;
  mutable Mutex mu_;
  CondVar events_changed_, tasks_changed_, answered_;
  std::map<uint64_t, Shared> episodes_ PLUMB_GUARDED_BY(mu_);
  std::deque<AgentEvent> events_ PLUMB_GUARDED_BY(mu_);
  std::deque<uint64_t> waiting_ PLUMB_GUARDED_BY(mu_);  // without an agent
  std::map<uint64_t, std::optional<AgentAnswer>> calls_ PLUMB_GUARDED_BY(mu_);
  std::map<std::string, int64_t> counters_ PLUMB_GUARDED_BY(mu_);
  uint64_t next_call_ PLUMB_GUARDED_BY(mu_) = 1;
  bool closed_ PLUMB_GUARDED_BY(mu_) = false;
};

}  // namespace plumb::run
