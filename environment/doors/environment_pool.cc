#include "environment/doors/environment_pool.h"

#include <algorithm>
#include <cstdio>

#include "common/base/error.h"
#include "common/base/log.h"

namespace plumb::environment {
namespace {

using Clock = std::chrono::steady_clock;

std::string Seconds(std::chrono::milliseconds d) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", static_cast<double>(d.count()) / 1000);
  return text;
}

}  // namespace

struct EnvironmentPool::Local {
  std::unique_ptr<Peer> peer;
  bool running = false;
  std::map<uint64_t, Conversation> conversations;
  std::map<uint64_t, std::string> gone;  // conversations that cannot go on: why
};

EnvironmentPool::EnvironmentPool(EnvironmentPoolOptions options, ConversationRules rules,
                                 Factory factory)
    : options_(std::move(options)),
      rules_(std::move(rules)),
      factory_(std::move(factory)),
      workers_(static_cast<size_t>(options_.workers)) {
  threads_.emplace_back([this] { Loop(0); });
  Problem problem;
  {
    MutexLock lock(mu_);
    ready_.wait(lock, [this]() PLUMB_REQUIRES(mu_) { return started_; });
    problem = problem_;
  }
  if (problem) {
    threads_[0].join();
    throw Error(ErrorCode::kInvalidArgument, *problem, options_.what);
  }
  for (size_t i = 1; i < static_cast<size_t>(options_.workers); ++i)
    threads_.emplace_back([this, i] { Loop(i); });
}

EnvironmentPool::~EnvironmentPool() {
  {
    MutexLock lock(mu_);
    closing_ = true;
  }
  work_.notify_all();
  replied_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void EnvironmentPool::Begin(uint64_t episode, const Prompt& prompt, uint32_t sample) {
  {
    MutexLock lock(mu_);
    if (episodes_.contains(episode)) {
      throw Error(ErrorCode::kInvalidArgument,
                  "episode " + std::to_string(episode) + " has begun already", options_.what);
    }
    const auto least =
        std::min_element(workers_.begin(), workers_.end(),
                         [](const Worker& a, const Worker& b) { return a.episodes < b.episodes; });
    ++least->episodes;
    episodes_[episode] = {static_cast<size_t>(least - workers_.begin()),
                          Clock::now() + options_.episode};
    least->jobs.push_back(
        {.ask = Ask::kBegin, .episode = episode, .prompt = prompt, .sample = sample, .text = ""});
    ++counters_["environment/episodes"];
  }
  work_.notify_all();
}

void EnvironmentPool::Act(uint64_t episode, const std::string& text) {
  {
    MutexLock lock(mu_);
    const auto it = episodes_.find(episode);
    if (it == episodes_.end()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "episode " + std::to_string(episode) + " has not begun, or has ended",
                  options_.what);
    }
    workers_[it->second.worker].jobs.push_back(
        {.ask = Ask::kAct, .episode = episode, .prompt = {}, .sample = 0, .text = text});
    ++counters_["environment/turns"];
  }
  work_.notify_all();
}

void EnvironmentPool::End(uint64_t episode) {
  {
    MutexLock lock(mu_);
    const auto it = episodes_.find(episode);
    if (it == episodes_.end()) return;
    Worker& worker = workers_[it->second.worker];
    std::erase_if(worker.jobs, [&](const Job& job) { return job.episode == episode; });
    std::erase_if(replies_, [&](const EnvironmentReply& r) { return r.episode == episode; });
    --worker.episodes;
    worker.jobs.push_back(
        {.ask = Ask::kEnd, .episode = episode, .prompt = {}, .sample = 0, .text = ""});
    episodes_.erase(it);
  }
  work_.notify_all();
}

std::vector<EnvironmentReply> EnvironmentPool::Poll(Deadline deadline) {
  MutexLock lock(mu_);
  while (replies_.empty() && !closing_ && Clock::now() < deadline)
    replied_.wait_until(lock, deadline);
  std::vector<EnvironmentReply> out(std::make_move_iterator(replies_.begin()),
                                    std::make_move_iterator(replies_.end()));
  replies_.clear();
  return out;
}

std::map<std::string, double> EnvironmentPool::Counters() const {
  MutexLock lock(mu_);
  return counters_;
}

void EnvironmentPool::Count(const std::string& name, double by) {
  MutexLock lock(mu_);
  counters_["environment/" + name] += by;
}

void EnvironmentPool::Reply(EnvironmentReply reply) {
  {
    MutexLock lock(mu_);
    if (!episodes_.contains(reply.episode)) return;  // ended meanwhile
    if (!reply.error.empty()) ++counters_["environment/errors"];
    if (reply.failed_call) ++counters_["environment/failed_calls"];
    replies_.push_back(std::move(reply));
  }
  replied_.notify_all();
}

void EnvironmentPool::Lost(Local& local, Failure failure, const std::string& why) {
  local.running = false;
  for (const auto& [episode, conversation] : local.conversations)
    local.gone[episode] = "the process that it was in is gone: " + why;
  local.conversations.clear();
  std::string disabled;
  {
    MutexLock lock(mu_);
    ++counters_["environment/errors/" + std::string(FailureName(failure))];
    const auto now = Clock::now();
    lost_.push_back(now);
    while (now - lost_.front() > options_.lost_window) lost_.pop_front();
    if (lost_.size() >= options_.lost_at_most && disabled_.empty()) {
      disabled = disabled_ = "it broke " + std::to_string(lost_.size()) + " times within " +
                             Seconds(options_.lost_window) + " s, last: " + why +
                             ". Mend it, try it with `plumb env test`, then resume";
    }
  }
  if (!disabled.empty()) LogError(options_.what + " is given up: " + disabled);
}

void EnvironmentPool::Run(Local& local, const Job& job) {
  Deadline until;
  std::string refused;
  {
    MutexLock lock(mu_);
    const auto it = episodes_.find(job.episode);
    if (it == episodes_.end() && job.ask != Ask::kEnd) return;
    until = it == episodes_.end() ? Clock::now() + options_.timeout : it->second.until;
    refused = disabled_;
  }
  EnvironmentReply failed{.episode = job.episode};
  const auto fail = [&](const std::string& why) {
    failed.error = why;
    Reply(failed);
  };
  const auto known = local.conversations.find(job.episode);
  if (job.ask == Ask::kEnd) {
    local.gone.erase(job.episode);
    if (known == local.conversations.end()) return;
    local.conversations.erase(known);
  } else if (!refused.empty()) {
    return fail(options_.what + " is given up: " + refused);
  } else if (const auto gone = local.gone.find(job.episode); gone != local.gone.end()) {
    return fail(gone->second);
  } else if (Clock::now() >= until) {
    Count("errors/episode");
    return fail("the conversation took longer than environment.episode_seconds = " +
                Seconds(options_.episode));
  }
  if (!local.running) {
    if (local.peer == nullptr) local.peer = factory_();
    std::string tools;  // as of the first
    if (const Problem why = local.peer->Start(&tools)) {
      Lost(local, Failure::kStart, *why);
      return fail(*why);
    }
    local.running = true;
  }
  PeerRequest request{.ask = job.ask,
                      .episode = job.episode,
                      .prompt = &job.prompt,
                      .sample = job.sample,
                      .text = "",
                      .content = "",
                      .calls = {},
                      .last = false};
  Conversation::Turn turn;
  if (job.ask == Ask::kAct) {
    turn = known->second.Take(job.text);
    if (!turn.malformed.empty()) Count("malformed_calls");
    if (!turn.calls.empty()) Count("calls", static_cast<double>(turn.calls.size()));
    if (turn.answered) return Reply(known->second.Answer(turn, {}));
    request = turn.request;
  }
  const auto start = Clock::now();
  const bool whole = start + options_.timeout <= until;
  try {
    PeerReply reply =
        local.peer->Call(request, std::min<Deadline>(until, start + options_.timeout));
    Count("seconds", std::chrono::duration<double>(Clock::now() - start).count());
    if (!reply.error.empty()) Count("errors/reported");
    if (job.ask == Ask::kBegin) {
      const auto begun =
          local.conversations.emplace(job.episode, Conversation(job.episode, rules_)).first;
      Reply(begun->second.Opening(std::move(reply)));
    } else if (job.ask == Ask::kAct) {
      Reply(known->second.Answer(turn, std::move(reply)));
    }
  } catch (const PeerLost& lost) {
    Count("seconds", std::chrono::duration<double>(Clock::now() - start).count());
    std::string why = lost.message();
    if (lost.failure == Failure::kTimeout) {
      why += whole
                 ? "; environment.timeout_s = " + Seconds(options_.timeout) + " is the limit"
                 : "; environment.episode_seconds = " + Seconds(options_.episode) + " is the limit";
    }
    Lost(local, lost.failure, why);
    local.gone.erase(job.episode);
    if (job.ask != Ask::kEnd) {
      local.gone[job.episode] = why;
      fail(why);
    }
  } catch (const Error& error) {
    Count("errors/reported");
    fail(error.what());
  }
}

void EnvironmentPool::Loop(size_t index) {
  Local local;
  if (index == 0) {
    Problem problem;
    std::string tools;
    try {
      local.peer = factory_();
      problem = local.peer->Start(&tools);
      if (!problem) rules_.tools = ToolTable(tools);
    } catch (const Error& error) {
      problem = error.what();
    }
    local.running = !problem;
    {
      MutexLock lock(mu_);
      problem_ = problem;
      started_ = true;
    }
    ready_.notify_all();
    if (problem) return;
  }
  MutexLock lock(mu_);
  while (true) {
    work_.wait(lock,
               [&]() PLUMB_REQUIRES(mu_) { return closing_ || !workers_[index].jobs.empty(); });
    if (closing_) return;
    const Job job = std::move(workers_[index].jobs.front());
    workers_[index].jobs.pop_front();
    lock.unlock();
    Run(local, job);
    lock.lock();
  }
}

}  // namespace plumb::environment
