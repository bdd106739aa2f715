// The actor role: leases in, trajectory groups out.
//
// Purpose: leases prompts, waits for exactly the version a lease names (or the newest), generates,
// and hands every group on until it is taken. One call, Pump, does a bounded piece of it, so that a
// single-threaded local run can drive it as well as a thread or a process of its own.
// Versions: a lease that names a version is sampled by that version from its first token to its
// last: the weights change only when no such group is in flight, and leases of another version
// wait. A lease without a version (-1) takes the newest at hand; weights may then change under it
// between steps (keys and values of older weights stay), and every token carries the version that
// drew it. A lease whose version is already past is given back, counted.
// Thread safety: none, one thread pumps. Ownership: owns the engine; ports, policy, tokenizer and
// template are the caller's.
// Environments: with one, an answer is a conversation (actor/episodes.h): the engine keeps the
// sample's slot and pages while its environment works, and goes on with the others. With agents,
// which ask the policy themselves (actor/agents/agent_book.h), a group has as many trajectories as
// they had conversations, in the order of its samples; of a held-out prompt one a sample.
// Leases: what is held is renewed until the store has its answers, also by an actor that works for
// longer than a lease lasts.
// Errors: kDeadline, kUnavailable and kNoSpace of a port are counted and tried again by the next
// Pump; the rest pass through and leave the groups that were not taken in the outbox.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "actor/agents/agent_book.h"
#include "actor/engine.h"
#include "actor/turns/episodes.h"
#include "actor/weight_subscriber.h"
#include "common/base/log.h"
#include "common/record/ports.h"
#include "common/text/template/chat_template.h"
#include "common/text/tokenizer/tokenizer.h"

namespace plumb::actor {

// Takes a finished group, and may move it away; returns once it is safe with the next role
// (durable, or acknowledged). Throwing keeps it here: it must then be as it was.
using GroupSink = std::function<void(TrajectoryGroup&)>;

struct RolloutOptions {
  std::string run_id;
  std::string actor = "actor-0";  // name in the groups
  EngineOptions engine;
  int32_t group_size_hint = 1;  // usual G: how many leases fill the batch
  // the store is told so often that this actor works on what it holds
  int32_t renew_ms = 30'000;
  // between questions for leases, and for newer weights, while busy
  int32_t poll_ms = 20;
  EpisodeOptions episodes;   // where there is an environment
  AgentOptions agents;       // where there are agents
  bool greedy_last = false;  // of a group to train on, the last answer is the greedy one
  EngineShare share;         // where several processes compute the model together
};

// What answers the policy, and where the whole prompt of a lease is found that came without its
// texts.
struct Surroundings {
  EnvironmentPort* environment = nullptr;  // nullptr: an answer has one turn
  AgentPort* agents = nullptr;             // instead of an environment
  std::function<Prompt(const PromptLease&)> whole_prompt = [](const PromptLease& lease) {
    return lease.prompt;
  };
  // Asked before each wait for a port: who is to end waits for none that may have ended already.
  std::function<bool()> stop = [] { return false; };
};

struct RolloutCounters {
  uint64_t leases = 0;
  uint64_t groups_delivered = 0;
  // delivered as kAborted: empty, or no room in the model or the pool
  uint64_t refused_prompts = 0;
  // delivered as kAborted: the chat template is missing or refuses the messages
  uint64_t untokenizable = 0;
  uint64_t stale_leases = 0;  // given back: their version is past
  uint64_t port_retries = 0;  // kDeadline, kUnavailable or kNoSpace of a port
};

class Rollout {
 public:
  // `chat_template` may be nullptr: prompts with messages are then refused.
  Rollout(const policy_model::ModelShape& shape, const Stream& stream, DType dtype,
          RolloutOptions options, PromptSource* prompts, Policy* policy, const Tokenizer* tokenizer,
          const ChatTemplate* chat_template, GroupSink sink, Surroundings around = {});

  // Leases what fits, steps the engine, delivers what finished. Returns after at least one group
  // was delivered, at the deadline, or when there is nothing to do before it; with a deadline in
  // the past: one engine step at most.
  // False: the source has finished and everything is delivered.
  bool Pump(Deadline deadline);
  // Gives every lease that is not answered back; the rollout is empty afterwards. Finished groups
  // are delivered first.
  void Stop();

  const RolloutCounters& counters() const { return counters_; }
  const EpisodeCounters& episode_counters() const { return episode_counters_; }
  const AgentCounters& agent_counters() const { return agent_counters_; }
  const Engine& engine() const { return engine_; }
  // Leases held and not delivered.
  size_t in_flight() const { return in_flight_.size() + pending_.size() + outbox_.size(); }

 private:
  void LeaseMore(Deadline deadline);
  void SubmitPending(Deadline deadline);
  bool VersionReady(int64_t wanted, Deadline deadline);
  bool SubmitOne(PromptLease lease);  // false: what it needs is not at hand
  // To the engine, with what each sample's answer begins with.
  void Generate(uint64_t request, std::vector<std::vector<int32_t>> openings);
  void Converse(Deadline deadline);
  void ServeAgents(Deadline deadline);
  void CollectAgents();
  // What was in flight under the engine's or the agents' number.
  PromptLease TakeLease(uint64_t request);
  // Something is to be done without waiting for anybody.
  bool Busy() const { return !engine_.idle() && !engine_.blocked(); }
  void GiveBack(const PromptLease& lease);
  void Release();
  void Renew();
  void Tokenize(Prompt& prompt) const;
  void StepEngine();
  void Collect();
  bool Deliver();
  TrajectoryGroup Build(PromptLease lease, std::vector<GeneratedSample> samples,
                        std::span<const std::vector<TurnNote>> notes = {});
  TrajectoryGroup BuildOfAgents(PromptLease lease, AgentBook::Answers answers);
  // Whose names and version they have; `newest`: that drew any token of it.
  void Sign(TrajectoryGroup& group, int64_t newest);
  void NoteVersion();

  const RolloutOptions options_;
  PromptSource* const prompts_;
  Policy* const policy_;
  const Tokenizer* const tokenizer_;
  const ChatTemplate* const chat_template_;
  const GroupSink sink_;
  const Surroundings around_;
  Engine engine_;
  std::unique_ptr<Episodes> episodes_;  // nullptr: no environment
  std::unique_ptr<AgentBook> agents_;   // nullptr: no agents
  EpisodeCounters episode_counters_;
  AgentCounters agent_counters_;
  // leased, not submitted: their version is not here yet
  std::deque<PromptLease> pending_;
  std::map<uint64_t, PromptLease> in_flight_;  // by engine request id
  std::deque<TrajectoryGroup> outbox_;         // finished, not taken by the sink
  std::vector<PromptLease> returned_;          // given back, which the store does not know yet
  uint64_t next_request_ = 0;
  int32_t exact_in_flight_ = 0;        // of in_flight_, those that name a version
  int64_t exact_version_ = -1;         // which one; meaningful while exact_in_flight_ > 0
  std::map<int64_t, Digest> digests_;  // of the versions sampled with lately
  int64_t samples_held_ = 0;           // of pending_ and in_flight_
  std::chrono::steady_clock::time_point next_lease_{};  // no question for leases before
  std::chrono::steady_clock::time_point next_look_{};   // nor for newer weights
  std::chrono::steady_clock::time_point next_renewal_{};
  std::chrono::steady_clock::time_point next_release_{};
  bool source_finished_ = false;
  LogEvery stale_log_{std::chrono::seconds(10)};
  RolloutCounters counters_;
};

}  // namespace plumb::actor
