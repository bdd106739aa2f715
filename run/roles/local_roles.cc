// All roles of a run in this process: ports are direct calls, the actor and the rewards are
// threads.
#include <atomic>
#include <chrono>
#include <exception>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/mutex.h"
#include "configs/checks/actor_device.h"
#include "policy_model/memory/threads.h"
#include "policy_model/memory/weight_shelf.h"
#include "run/roles/observer.h"
#include "run/roles/role_loops.h"
#include "run/roles/roles.h"
#include "run/roles/run_memory.h"
#include "run/session/interrupt.h"

namespace plumb::run {
namespace {

using std::chrono::milliseconds;

// The first failure of any thread of a local run; the others notice and end.
class Failure {
 public:
  explicit Failure(const RunMemory& memory) : memory_(memory) {}
  // Within a catch block.
  void Set() {
    std::exception_ptr error;
    try {
      RethrowWithPlan(memory_);
    } catch (...) {
      error = std::current_exception();
    }
    MutexLock lock(mu_);
    if (!error_) error_ = error;
    failed_.store(true);
  }
  bool failed() const { return failed_.load(); }
  void Rethrow() const {
    MutexLock lock(mu_);
    if (error_) std::rethrow_exception(error_);
  }

 private:
  const RunMemory& memory_;
  mutable Mutex mu_;
  std::exception_ptr error_ PLUMB_GUARDED_BY(mu_);
  std::atomic<bool> failed_{false};
};

// The hand-over of a learner's weights to the actor beside it. In place: publishing is saying the
// number. Else the actor copies what is new of the newest version while the learner goes on.
class LocalWeights : public WeightSink, public WeightSource {
 public:
  LocalWeights(bool in_place, bool from_device) : in_place_(in_place), from_device_(from_device) {}
  bool WantsBytes() const override { return !in_place_; }
  bool TakesFromDevice() const override { return from_device_; }
  void Publish(const PolicyVersion& version, std::span<const WeightSet> sets) override {
    if (!in_place_) shelf_.Put(sets);
    {
      MutexLock lock(mu_);
      newest_ = {.version = version, .sets = {}};
      for (const WeightSet& set : sets)
        newest_.sets.push_back({set.name, set.digest, shelf_.Size(set.digest).value_or(0)});
      number_.store(version.version);
    }
    changed_.notify_all();
  }
  PolicyVersion Newest() {
    MutexLock lock(mu_);
    return newest_.version;
  }
  int64_t number() const { return number_.load(); }  // for the decode loop: no lock
  std::optional<WeightOffer> Await(const PolicyVersion& held, Deadline deadline) override {
    MutexLock lock(mu_);
    const auto other = [&]() PLUMB_REQUIRES(mu_) {
      return newest_.version.version >= 0 && newest_.version != held;
    };
    if (!changed_.wait_until(lock, deadline, other)) return std::nullopt;
    return newest_;
  }
  bool Read(const Digest& set, std::span<std::byte> into) override {
    return shelf_.Read(set, into);
  }
  std::optional<std::string> Lend(const Digest& set) override { return shelf_.Lend(set); }
  void Return(const Digest& set) override { shelf_.Return(set); }

 private:
  const bool in_place_, from_device_;
  policy_model::WeightShelf shelf_;
  Mutex mu_;
  CondVar changed_;
  WeightOffer newest_ PLUMB_GUARDED_BY(mu_);
  std::atomic<int64_t> number_{-1};
};

}  // namespace

RunSummary RunLocal(const Session& session, const RunOptions& given) {
  const configs::Config& config = session.config();
  CheckActors(session, given.ranks_here);
  const Device actor_device = config.rollout.device.empty()
                                  ? session.stream().device()
                                  : configs::ActorDevice(config, given.ranks_here);
  RunStart start(session, given);
  replay::ReplayTable& table = start.table;
  policy_model::Weights& weights = start.weights;
  const bool sync = config.run.schedule == configs::Schedule::kSync;
  const bool in_place = sync && actor_device == session.stream().device();
  LocalWeights published(in_place, /*from_device=*/actor_device.is_cuda());

  const ThreadShares threads = ThreadSharesOf(config, start.options.ranks_here);
  Failure failure(start.memory);
  std::atomic<bool> ended{false};
  start.observer.Doing("the reward parts are started");
  RewardLoop rewards(session, "reward-0", table,
                     static_cast<size_t>(4 * config.rollout.prompts_per_step));
  const auto actor_ends = [&] {
    return ended.load() || failure.failed() || rewards.line().failed();
  };
  std::thread actor_thread([&] {
    try {
      policy_model::UseThreads(threads.actor);
      // Of its own: what it reads of the learner's was waited for before it was published.
      const OwnedStream stream(actor_device);
      std::unique_ptr<actor::Policy> policy;
      if (in_place) {
        policy = std::make_unique<actor::SharedPolicy>(
            &weights, [&] { return published.Newest(); }, [&] { return published.number(); });
      } else {
        policy = std::make_unique<actor::FetchedPolicy>(EmptyWeights(session, stream), &published);
      }
      const auto sink = [&](TrajectoryGroup& group) {
        FinishedGroup made{std::move(group), std::nullopt};
        while (!rewards.Push(made, After(milliseconds(500)))) {
          if (actor_ends()) return;
        }
      };
      RunActorLoop(
          session, "actor-0",
          {.store = table, .stream = stream, .policy = *policy, .sink = sink, .stop = actor_ends});
    } catch (...) {
      failure.Set();
    }
  });

  learner::LearnerResult result;
  try {
    policy_model::UseThreads(threads.learner);
    const auto check = [&] {
      failure.Rethrow();
      rewards.line().Rethrow();
    };
    result = RunLearnerLoop(session, start.options, start.observer, weights,
                            {.store = table, .watch = table, .weights = published, .check = check},
                            &rewards.scorer());
    NowBusy(Busy::kInOrder);  // what follows only waits for the other threads and sums up
  } catch (...) {
    failure.Set();
  }
  table.Finish();
  ended.store(true);
  actor_thread.join();
  rewards.line().Close();
  failure.Rethrow();
  rewards.line().Rethrow();
  rewards.Report();
  return FinishRun(session, start.observer, std::move(result), table.Counters());
}

}  // namespace plumb::run
