// Host processes working for one reward function, and what is done about the ones that break.
//
// Purpose: `workers` threads, each owning one process; a queue in front; quarantine of inputs that
// break the process three times; a breaker that disables the function after five broken processes
// in 60 s; stalls named in the log.
//
//   Score() caller --job--> queue --> thread i: Worker::Call(group, deadline) --scores--> caller
//
// Thread safety: Run() is safe for concurrent calls; a Worker is used by its own thread only.
// Ownership: the pool owns workers and threads; the destructor ends both.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "reward/part/reward.h"

namespace plumb::reward {

// One process or connection behind a protocol.
class Worker {
 public:
  virtual ~Worker() = default;
  // One score a trajectory. Starts the process if there is none. `broke`: set true when the process
  // had to be killed or ended: the next call starts a new one. Never throws.
  virtual std::vector<PartScore> Call(const TrajectoryGroup& group, Deadline deadline,
                                      bool* broke) = 0;
};

struct PoolOptions {
  std::string name;              // the part, for messages
  std::string peer = "process";  // or "server", for messages
  int workers = 1;
  std::chrono::milliseconds timeout{10000};  // wall clock of one call
  int quarantine_after = 3;                  // broken processes on one input
  int disable_after = 5;                     // broken processes within `disable_window`
  std::chrono::milliseconds disable_window{60000};
  // each answer of a group is a call of its own, side by side on the workers
  bool per_answer = false;
  // a call or a wait longer than this is named in the log, again and again
  std::chrono::milliseconds stall_after{60000};
};

class WorkerPool {
 public:
  using Factory = std::function<std::unique_ptr<Worker>(int index)>;
  WorkerPool(PoolOptions options, Factory factory);
  ~WorkerPool();

  // Blocks until a worker has answered, or the deadline; throws FunctionDisabled once the breaker
  // is open.
  std::vector<PartScore> Run(const TrajectoryGroup& group, Deadline deadline);

 private:
  struct Job;
  struct Slot {
    int64_t group = -1;  // lease id in work, -1: idle
    std::chrono::steady_clock::time_point since;
  };
  void Loop(int index);
  void RecordBroken(uint64_t input, const PartScore& first) PLUMB_REQUIRES(mu_);

  const PoolOptions options_;
  const Factory factory_;
  mutable Mutex mu_;
  CondVar work_;
  CondVar done_;
  std::deque<std::shared_ptr<Job>> queue_ PLUMB_GUARDED_BY(mu_);
  std::vector<Slot> slots_ PLUMB_GUARDED_BY(mu_);
  std::map<uint64_t, int> broken_inputs_ PLUMB_GUARDED_BY(mu_);  // input hash -> broken processes
  std::deque<std::chrono::steady_clock::time_point> broken_at_ PLUMB_GUARDED_BY(mu_);
  std::string disabled_ PLUMB_GUARDED_BY(mu_);  // non-empty: why
  bool closing_ PLUMB_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

// A reward function that is a pool of workers and nothing else.
class PooledFunction : public RewardFunction {
 public:
  PooledFunction(std::string name, std::string digest, PoolOptions pool,
                 WorkerPool::Factory factory, std::vector<TruthName> truths = {})
      : name_(std::move(name)),
        digest_(std::move(digest)),
        truths_(std::move(truths)),
        pool_(std::move(pool), std::move(factory)) {}
  const std::string& name() const override { return name_; }
  const std::string& digest() const override { return digest_; }
  bool slow() const override { return true; }
  std::vector<TruthName> truths() const override { return truths_; }
  std::vector<PartScore> Score(const TrajectoryGroup& group, Deadline deadline) override {
    return pool_.Run(group, deadline);
  }

 private:
  const std::string name_;
  const std::string digest_;
  const std::vector<TruthName> truths_;
  WorkerPool pool_;
};

}  // namespace plumb::reward
