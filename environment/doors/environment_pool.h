// Environments behind the port: workers that each hold a peer and the conversations in it.
//
// Purpose: an EnvironmentPort (common/record/environment.h). A conversation stays with the worker
// that began it, the one with the fewest then; a worker asks its peer one thing at a time, so
// environment.workers bounds what goes on side by side. A call has timeout_s, counted from when it
// is asked, a conversation episode_seconds from Begin, the policy's own time included. When a
// peer is lost (a process died or was killed at its deadline) every conversation in it ends with an
// error, and the next Begin starts it again; five losses within a minute end the pool: every reply
// is then that error.
// Thread safety: all functions; a thread a worker. Ownership: peers live and die in their threads.
// The destructor waits for the calls that are under way, timeout_s at most. Errors: as the port;
// the constructor throws Error(kInvalidArgument) with what the first peer says, where it does not
// start.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "common/record/environment.h"
#include "environment/doors/conversation.h"
#include "environment/doors/peer.h"

namespace plumb::environment {

struct EnvironmentPoolOptions {
  int64_t workers = 1;
  std::chrono::milliseconds timeout{10000};
  std::chrono::milliseconds episode{300000};
  size_t lost_at_most = 5;
  std::chrono::milliseconds lost_window{60000};
  std::string what;  // in messages: "environment python (game.py)"
};

class EnvironmentPool : public EnvironmentPort {
 public:
  using Factory = std::function<std::unique_ptr<Peer>()>;
  // `rules.tools` is filled here, from the first peer.
  EnvironmentPool(EnvironmentPoolOptions options, ConversationRules rules, Factory factory);
  ~EnvironmentPool() override;

  std::string ToolsJson() const override { return rules_.tools.json(); }
  void Begin(uint64_t episode, const Prompt& prompt, uint32_t sample) override;
  void Act(uint64_t episode, const std::string& text) override;
  std::vector<EnvironmentReply> Poll(Deadline deadline) override;
  void End(uint64_t episode) override;

  const ConversationRules& rules() const { return rules_; }
  // environment/episodes, turns, calls, failed_calls, malformed_calls, seconds (in calls), errors,
  // and errors/KIND by the names of Failure, "reported" (by the environment itself) and "episode"
  // (its time was over).
  std::map<std::string, double> Counters() const;

 private:
  struct Job {
    Ask ask = Ask::kBegin;
    uint64_t episode = 0;
    Prompt prompt;
    uint32_t sample = 0;
    std::string text;
  };
  struct Worker {
    std::deque<Job> jobs;
    int64_t episodes = 0;
  };
  struct Episode {
    size_t worker = 0;
    Deadline until;
  };
  struct Local;  // what a worker's thread alone knows

  void Loop(size_t index);
  void Run(Local& local, const Job& job);
  // Null when there is no peer, with the reply's error set.
  void Lost(Local& local, Failure failure, const std::string& why);
  void Reply(EnvironmentReply reply);
  void Count(const std::string& name, double by = 1);

  const EnvironmentPoolOptions options_;
  ConversationRules rules_;
  const Factory factory_;
  mutable Mutex mu_;
  CondVar work_, ready_, replied_;
  std::vector<Worker> workers_ PLUMB_GUARDED_BY(mu_);
  std::map<uint64_t, Episode> episodes_ PLUMB_GUARDED_BY(mu_);
  std::deque<EnvironmentReply> replies_ PLUMB_GUARDED_BY(mu_);
  std::deque<std::chrono::steady_clock::time_point> lost_ PLUMB_GUARDED_BY(mu_);
  std::string disabled_ PLUMB_GUARDED_BY(mu_);  // not empty: why
  std::map<std::string, double> counters_ PLUMB_GUARDED_BY(mu_);
  bool started_ PLUMB_GUARDED_BY(mu_) = false;  // the first peer has, or has not: problem_
  Problem problem_ PLUMB_GUARDED_BY(mu_);
  bool closing_ PLUMB_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace plumb::environment
