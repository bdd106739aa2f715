#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "common/bounded_queue.h"
#include "common/error.h"
#include "policy_model/transformer.h"
#include "reward/reward_model.h"
#include "reward/scorer.h"
#include "run/observer.h"
#include "run/role_totals.h"
#include "run/roles.h"

namespace plumb::run {
namespace {

using std::chrono::milliseconds;

// The first failure of any thread of a local run; the others notice and end.
class Failure {
 public:
  void Set(std::exception_ptr error) {
    std::lock_guard lock(mu_);
    if (!error_) error_ = error;
    failed_.store(true);
  }
  bool failed() const { return failed_.load(); }
  void Rethrow() const {
    std::lock_guard lock(mu_);
    if (error_) std::rethrow_exception(error_);
  }

 private:
  mutable std::mutex mu_;
  std::exception_ptr error_;
  std::atomic<bool> failed_{false};
};

// A BatchSource that gives up as soon as another role of the process has failed, instead of at the deadline.
class WatchedBatches : public BatchSource {
 public:
  WatchedBatches(BatchSource& inner, const Failure& failure) : inner_(inner), failure_(failure) {}
  std::vector<TrajectoryGroup> Next(int64_t step, Deadline deadline) override {
    return Watch(deadline, [&](Deadline slice) { return inner_.Next(step, slice); });
  }
  std::vector<TrajectoryGroup> Evaluate(int64_t version, int num_samples, Deadline deadline) override {
    return Watch(deadline, [&](Deadline slice) { return inner_.Evaluate(version, num_samples, slice); });
  }
  void Finish() override { inner_.Finish(); }

 private:
  template <class Call>
  std::vector<TrajectoryGroup> Watch(Deadline deadline, const Call& call) {
    for (;;) {
      const Deadline slice = std::min(deadline, After(milliseconds(500)));
      try {
        return call(slice);
      } catch (const Error& e) {
        failure_.Rethrow();
        if (e.code() != ErrorCode::kDeadline || slice == deadline) throw;
      }
    }
  }
  BatchSource& inner_;
  const Failure& failure_;
};

// The learner's weights in place: publishing is saying the number.
class InPlaceSink : public WeightSink {
 public:
  void Publish(const PolicyVersion& version, std::span<const std::byte>) override {
    std::lock_guard lock(mu_);
    version_ = version;
  }
  PolicyVersion version() const {
    std::lock_guard lock(mu_);
    return version_;
  }

 private:
  mutable std::mutex mu_;
  PolicyVersion version_;
};

// Double-buffered hand-over for schedule async: the actor copies the newest version while the learner goes on.
class BufferedWeights : public WeightSink, public WeightSource {
 public:
  void Publish(const PolicyVersion& version, std::span<const std::byte> flat) override {
    {
      std::lock_guard lock(mu_);
      flat_.assign(flat.begin(), flat.end());
      version_ = version;
    }
    changed_.notify_all();
  }
  PolicyVersion Newest() override {
    std::lock_guard lock(mu_);
    return version_;
  }
  std::optional<PolicyVersion> Fetch(int64_t than, std::span<std::byte> flat, Deadline deadline) override {
    std::unique_lock lock(mu_);
    if (!changed_.wait_until(lock, deadline, [&] { return version_.version > than; })) return std::nullopt;
    PLUMB_CHECK(flat.size() == flat_.size());
    std::copy(flat_.begin(), flat_.end(), flat.begin());
    return version_;
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::vector<std::byte> flat_;
  PolicyVersion version_;
};

}  // namespace

RunSummary RunLocal(const Session& session, const RunOptions& options) {
  const configs::Config& config = session.config();
  std::unique_ptr<replay::Store> store = OpenStore(session);
  Observer observer(session, options);
  const PromptData prompts = LoadPrompts(session);
  const DemonstrationData demonstrations = LoadDemonstrations(session);
  for (const auto* notes : {&prompts.notes, &demonstrations.notes}) {
    for (const std::string& note : *notes) observer.Note(note);
  }
  store->PutPrompts(replay::kTrainDataset, prompts.train);
  if (!prompts.eval.empty()) store->PutPrompts(replay::kEvalDataset, prompts.eval);
  replay::ReplayTable table(store.get(), TableOptionsOf(config));
  reward::GroupScorer scorer(config.reward, reward::WithModelParts(session.tokenizer()));

  policy_model::Weights weights = MakeWeights(session);
  InPlaceSink in_place;
  BufferedWeights buffered;
  const bool sync = config.run.schedule == "sync";

  Failure failure;
  std::atomic<bool> ended{false};
  BoundedQueue<TrajectoryGroup> finished(static_cast<size_t>(4 * config.rollout.prompts_per_step));

  std::atomic<double> reward_seconds{0};
  // Reward role: scores what is finished and inserts everything at hand with one sync of the store's log.
  std::thread reward_thread([&] {
    try {
      for (;;) {
        auto first = finished.Pop(After(milliseconds(200)));
        if (!first) {
          if (finished.closed() || failure.failed()) return;
          continue;
        }
        std::vector<TrajectoryGroup> groups;
        groups.push_back(std::move(*first));
        while (groups.size() < 64) {
          auto next = finished.Pop(After(milliseconds(0)));
          if (!next) break;
          groups.push_back(std::move(*next));
        }
        const auto begin = std::chrono::steady_clock::now();
        scorer.ScoreMany(groups);
        reward_seconds.store(reward_seconds.load() + std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
        table.InsertMany(groups);
      }
    } catch (...) {
      failure.Set(std::current_exception());
    }
  });

  actor::RolloutCounters rollout_counters;
  std::atomic<double> generate_seconds{0};
  std::atomic<int64_t> generated_tokens{0};
  std::thread actor_thread([&] {
    try {
      policy_model::SetThreads(static_cast<int>(config.run.threads));
      std::unique_ptr<actor::Policy> policy;
      if (sync) {
        policy = std::make_unique<actor::SharedPolicy>(&weights, [&] { return in_place.version(); });
      } else {
        policy = std::make_unique<actor::FetchedPolicy>(session.shape(), session.device(), session.dtype(), &buffered);
      }
      actor::Rollout rollout(session.shape(), session.device(), session.dtype(), RolloutOptionsOf(session, "actor-0"),
                             &table, policy.get(), &session.tokenizer(), session.chat_template(),
                             [&](const TrajectoryGroup& group) {
                               while (!finished.Push(group, After(milliseconds(500)))) {
                                 if (failure.failed() || ended.load()) return;
                               }
                             });
      while (!ended.load() && !failure.failed() && rollout.Pump(After(milliseconds(100)))) {
        generate_seconds.store(rollout.engine().counters().generate_seconds);
        generated_tokens.store(static_cast<int64_t>(rollout.engine().counters().generated_tokens));
      }
      rollout_counters = rollout.counters();
    } catch (...) {
      failure.Set(std::current_exception());
    }
  });

  RunSummary summary;
  try {
    learner::Checkpoints checkpoints(session.folder().checkpoints(), config.run.keep_checkpoints,
                                     session.tokenizer_source());
    WatchedBatches batches(table, failure);
    learner::LearnerHooks hooks = observer.Hooks();
    RoleTimes times;
    bool stepped = false;
    const auto totals_now = [&] {
      return RoleTotals{.generate_s = generate_seconds.load(), .reward_s = reward_seconds.load(),
                        .generated_tokens = generated_tokens.load()};
    };
    hooks.evaluated = [&, inner = hooks.evaluated](const learner::EvalResult& result, std::span<const TrajectoryGroup> groups) {
      inner(result, groups);
      if (!stepped) times = RoleTimes(totals_now());  // the evaluation of version 0 belongs to no step
    };
    hooks.step = [&, inner = hooks.step](int64_t step, std::map<std::string, double>& metrics) {
      times.AddStep(totals_now(), metrics);
      stepped = true;
      AddCounterMetrics(table.Counters(), metrics);
      for (const auto& [name, count] : scorer.Counters()) metrics[name] = static_cast<double>(count);
      for (const auto& [name, seconds] : scorer.Latencies()) metrics[name] = seconds;
      inner(step, metrics);
    };
    hooks.store_state = [&] { return replay::ReplayTable::CursorText(table.CursorAt(0)); };
    hooks.resumed = [&](int64_t step, const std::string& then) {
      replay::ReplayTable::Cursor cursor = replay::ReplayTable::ParseCursor(then);
      cursor.next_step = step;
      table.CheckCursor(cursor);
    };
    hooks.checkpointed = [&](int64_t oldest_step) { table.Trim(KeepFromStep(config, oldest_step)); };
    WeightSink& sink = sync ? static_cast<WeightSink&>(in_place) : buffered;
    learner::LearnerLoop loop(config, weights, batches, sink, checkpoints, demonstrations.train, demonstrations.heldout,
                              hooks);
    summary.learner = loop.Run(options.resume);
  } catch (...) {
    failure.Set(std::current_exception());
  }
  table.Finish();
  ended.store(true);
  actor_thread.join();
  finished.Close();
  reward_thread.join();
  failure.Rethrow();

  summary.wanted_steps = config.run.steps;
  summary.counters = table.Counters();
  for (const auto& [name, count] : scorer.Counters()) summary.counters[name] += static_cast<int64_t>(count);
  AddRolloutCounters(rollout_counters, summary.counters);
  observer.Finish(summary);
  return summary;
}

}  // namespace plumb::run
