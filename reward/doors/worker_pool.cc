#include "reward/doors/worker_pool.h"

#include <algorithm>
#include <cstdio>
#include <iterator>

#include "reward/part/notice.h"

namespace plumb::reward {
namespace {

using Clock = std::chrono::steady_clock;

// What the function saw: the same prompt with the same answers is the same input.
uint64_t InputHash(const TrajectoryGroup& group) {
  uint64_t hash = std::hash<std::string>{}(PromptText(group.lease.prompt));
  for (const Trajectory& trajectory : group.trajectories) {
    hash = hash * 1099511628211u ^ std::hash<std::string>{}(trajectory.completion);
  }
  return hash;
}

std::string Seconds(Clock::duration d) {
  return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(d).count()) + " s";
}

std::vector<PartScore> AllFailed(const TrajectoryGroup& group, Failure failure,
                                 const std::string& reason) {
  return std::vector<PartScore>(group.trajectories.size(), PartScore::Failed(failure, reason));
}

}  // namespace

struct WorkerPool::Job {
  const TrajectoryGroup* group;
  Deadline deadline;
  uint64_t input;
  int worker = -1;  // -1: still in the queue
  bool done = false;
  std::vector<PartScore> scores;
};

WorkerPool::WorkerPool(PoolOptions options, Factory factory)
    : options_(std::move(options)),
      factory_(std::move(factory)),
      slots_(static_cast<size_t>(options_.workers)) {
  for (int i = 0; i < options_.workers; ++i) threads_.emplace_back([this, i] { Loop(i); });
}

WorkerPool::~WorkerPool() {
  {
    MutexLock lock(mu_);
    closing_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::RecordBroken(uint64_t input, const PartScore& first) {
  const auto now = Clock::now();
  // bounded; a real quarantine is far smaller
  if (broken_inputs_.size() > 100000) broken_inputs_.clear();
  // A server that is away or a process that does not start is not the input's fault.
  if (first.failure != Failure::kUnavailable && first.failure != Failure::kStart)
    ++broken_inputs_[input];
  broken_at_.push_back(now);
  while (now - broken_at_.front() > options_.disable_window) broken_at_.pop_front();
  if (static_cast<int>(broken_at_.size()) >= options_.disable_after && disabled_.empty()) {
    disabled_ = "its " + options_.peer + " broke " + std::to_string(broken_at_.size()) +
                " times within " + Seconds(options_.disable_window) + ", last: " + first.reason +
                ". The run stops rather than go on without this reward: mend the code, try it with "
                "`plumb reward test`, "
                "then resume";
    UrgentNotice("reward '" + options_.name + "' is disabled: " + disabled_);
  }
}

namespace {

// Which option a call ran into.
void NameTheLimit(std::chrono::milliseconds timeout, std::vector<PartScore>& scores) {
  char seconds[32];
  std::snprintf(seconds, sizeof seconds, "%g", static_cast<double>(timeout.count()) / 1000);
  for (PartScore& score : scores) {
    if (score.scored() || score.failure != Failure::kTimeout) continue;
    score.reason += "; the part's timeout_s = " + std::string(seconds) +
                    " is the limit: raise it where that is too short";
  }
}

}  // namespace

void WorkerPool::Loop(int index) {
  std::unique_ptr<Worker> worker = factory_(index);
  MutexLock lock(mu_);
  while (true) {
    work_.wait(lock, [this]() PLUMB_REQUIRES(mu_) { return closing_ || !queue_.empty(); });
    if (closing_) return;
    const std::shared_ptr<Job> job = queue_.front();
    queue_.pop_front();
    job->worker = index;
    const auto start = Clock::now();
    slots_[static_cast<size_t>(index)] = {static_cast<int64_t>(job->group->lease.lease_id), start};
    lock.unlock();
    bool broke = false;
    std::vector<PartScore> scores = worker->Call(
        *job->group, std::min<Deadline>(job->deadline, start + options_.timeout), &broke);
    if (start + options_.timeout <= job->deadline) NameTheLimit(options_.timeout, scores);
    lock.lock();
    slots_[static_cast<size_t>(index)].group = -1;
    if (broke) RecordBroken(job->input, scores.empty() ? PartScore() : scores.front());
    job->scores = std::move(scores);
    job->done = true;
    done_.notify_all();
  }
}

std::vector<PartScore> WorkerPool::Run(const TrajectoryGroup& group, Deadline deadline) {
  // What the workers see: the group, or its answers one by one.
  std::vector<TrajectoryGroup> single;
  if (options_.per_answer && group.trajectories.size() > 1) {
    for (const Trajectory& trajectory : group.trajectories) {
      TrajectoryGroup one;
      one.lease = group.lease;
      one.trajectories = {trajectory};
      single.push_back(std::move(one));
    }
  }
  std::vector<std::shared_ptr<Job>> jobs;
  for (const TrajectoryGroup& one : single)
    jobs.push_back(std::make_shared<Job>(Job{&one, deadline, InputHash(one)}));
  if (single.empty())
    jobs.push_back(std::make_shared<Job>(Job{&group, deadline, InputHash(group)}));

  const auto start = Clock::now();
  MutexLock lock(mu_);
  if (!disabled_.empty()) throw FunctionDisabled(disabled_, "reward '" + options_.name + "'");
  for (const auto& job : jobs) {
    if (const auto it = broken_inputs_.find(job->input);
        it != broken_inputs_.end() && it->second >= options_.quarantine_after) {
      job->scores = AllFailed(*job->group, Failure::kQuarantined,
                              "this input broke the function " + std::to_string(it->second) +
                                  " times before; not tried again");
      job->done = true;
      continue;
    }
    queue_.push_back(job);
    work_.notify_one();
  }
  auto next = start + options_.stall_after;
  for (const auto& job : jobs) {
    while (!job->done) {
      const bool queued = job->worker < 0;
      done_.wait_until(lock, queued ? std::min<Deadline>(next, deadline) : next);
      const auto now = Clock::now();
      if (job->done) break;
      if (job->worker < 0 && now >= deadline) {
        queue_.erase(std::find(queue_.begin(), queue_.end(), job));
        job->scores = AllFailed(*job->group, Failure::kTimeout,
                                "no worker was free for " + Seconds(now - start));
        job->done = true;
        break;
      }
      if (now >= next) {
        next = now + options_.stall_after;
        UrgentNotice("waiting for group " + std::to_string(group.lease.lease_id) + " on reward '" +
                     options_.name + "' " +
                     (job->worker < 0 ? "in its queue of " + std::to_string(queue_.size())
                                      : "at worker " + std::to_string(job->worker)) +
                     " for " + Seconds(now - start));
      }
    }
  }
  if (!disabled_.empty()) throw FunctionDisabled(disabled_, "reward '" + options_.name + "'");
  std::vector<PartScore> scores;
  for (const auto& job : jobs) {
    std::move(job->scores.begin(), job->scores.end(), std::back_inserter(scores));
    // A worker that returned too little must not shift the others' scores.
    if (job->scores.size() != job->group->trajectories.size())
      return std::vector<PartScore>(scores.size() + group.trajectories.size() + 1);
  }
  return scores;
}

}  // namespace plumb::reward
