#include <atomic>
#include <chrono>
#include <exception>
#include <thread>
#include <vector>

#include "common/error.h"
#include "common/mutex.h"
#include "policy_model/transformer.h"
#include "reward/reward_model.h"
#include "reward/scorer.h"
#include "run/interrupt.h"
#include "run/learner_ports.h"
#include "run/observer.h"
#include "run/role_totals.h"
#include "run/roles.h"
#include "run/scoring_line.h"

namespace plumb::run {
namespace {

using std::chrono::milliseconds;

// The first failure of any thread of a local run; the others notice and end.
class Failure {
 public:
  void Set(std::exception_ptr error) {
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
  mutable Mutex mu_;
  std::exception_ptr error_ PLUMB_GUARDED_BY(mu_);
  std::atomic<bool> failed_{false};
};

// The learner's weights in place: publishing is saying the number.
class InPlaceSink : public WeightSink {
 public:
  bool WantsBytes() const override { return false; }
  void Publish(const PolicyVersion& version, std::span<const std::byte>) override {
    MutexLock lock(mu_);
    policy_ = version;
    version_.store(version.version);
  }
  PolicyVersion policy() const {
    MutexLock lock(mu_);
    return policy_;
  }
  int64_t version() const { return version_.load(); }  // for the decode loop: no lock

 private:
  mutable Mutex mu_;
  PolicyVersion policy_ PLUMB_GUARDED_BY(mu_);
  std::atomic<int64_t> version_{-1};
};

// Double-buffered hand-over for schedule async: the actor copies the newest version while the learner goes on.
class BufferedWeights : public WeightSink, public WeightSource {
 public:
  void Publish(const PolicyVersion& version, std::span<const std::byte> flat) override {
    {
      MutexLock lock(mu_);
      flat_.assign(flat.begin(), flat.end());
      version_ = version;
    }
    changed_.notify_all();
  }
  std::optional<PolicyVersion> Await(const PolicyVersion& held, Deadline deadline) override {
    MutexLock lock(mu_);
    if (!changed_.wait_until(lock, deadline, [&]() PLUMB_REQUIRES(mu_) { return version_.version >= 0 && version_ != held; })) return std::nullopt;
    return version_;
  }
  bool Read(const PolicyVersion& version, std::span<std::byte> flat) override {
    MutexLock lock(mu_);
    if (version != version_) return false;
    PLUMB_CHECK(flat.size() == flat_.size());
    std::copy(flat_.begin(), flat_.end(), flat.begin());
    return true;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<std::byte> flat_ PLUMB_GUARDED_BY(mu_);
  PolicyVersion version_ PLUMB_GUARDED_BY(mu_);
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
  const bool sync = config.run.schedule == configs::Schedule::kSync;

  Failure failure;
  std::atomic<bool> ended{false};
  // Reward role: each group is stored as soon as it is scored.
  ScoringOptions scoring_options = ScoringOptionsOf(config, scorer);
  scoring_options.capacity = static_cast<size_t>(4 * config.rollout.prompts_per_step);
  ScoringLine scoring([&](TrajectoryGroup& group) { scorer.Score(group); },
                      [&](std::span<const TrajectoryGroup> groups) { table.InsertMany(groups); }, scoring_options);

  actor::RolloutCounters rollout_counters;
  std::atomic<double> generate_seconds{0};
  std::atomic<int64_t> generated_tokens{0};
  std::thread actor_thread([&] {
    try {
      policy_model::SetThreads(static_cast<int>(config.run.threads));
      // Of its own: what it reads of the learner's was waited for before it was published.
      const OwnedStream stream(session.stream().device());
      std::unique_ptr<actor::Policy> policy;
      if (sync) {
        policy = std::make_unique<actor::SharedPolicy>(&weights, [&] { return in_place.policy(); }, [&] { return in_place.version(); });
      } else {
        policy = std::make_unique<actor::FetchedPolicy>(session.shape(), stream, session.dtype(),
                                                        &buffered);
      }
      actor::Rollout rollout(session.shape(), stream, session.dtype(),
                             RolloutOptionsOf(session, "actor-0"), &table, policy.get(),
                             &session.tokenizer(), session.chat_template(),
                             [&](const TrajectoryGroup& group) {
                               while (!scoring.Push(group, After(milliseconds(500)))) {
                                 if (failure.failed() || scoring.failed() || ended.load()) return;
                               }
                             });
      while (!ended.load() && !failure.failed() && !scoring.failed() && rollout.Pump(After(milliseconds(100)))) {
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
    WeightSink& sink = sync ? static_cast<WeightSink&>(in_place) : buffered;
    LearnerPorts ports({.batches = &table, .weights = &sink,
                        .announce = [&](const PolicyVersion& policy) { table.Announce(policy); },
                        .progress = [&] {
                          auto counters = table.Counters();
                          counters["actor/generated_tokens"] = generated_tokens.load();
                          for (const auto& [name, count] : scorer.Counters()) counters[name] = static_cast<int64_t>(count);
                          return ProgressOf(counters);
                        },
                        .check = [&] {
                          failure.Rethrow();
                          scoring.Rethrow();
                        },
                        .stop = [&] { return options.stop && options.stop->load(); }});
    learner::LearnerHooks hooks = observer.Hooks();
    RoleTimes times;
    bool stepped = false;
    const auto totals_now = [&] {
      return RoleTotals{.generate_s = generate_seconds.load(), .reward_s = scoring.score_seconds(),
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
      int64_t reopened = 0;
      ports.Patiently(StallTime(config), [&] { reopened = table.Resume(cursor); });
      NoteReopened(observer, reopened);
    };
    hooks.checkpointed = [&](int64_t oldest_step) { TrimOrSay([&] { table.Trim(KeepFromStep(config, oldest_step)); }); };
    learner::LearnerLoop loop(config, weights, ports, ports, checkpoints, demonstrations.train, demonstrations.heldout,
                              hooks);
    summary.learner = loop.Run(options.resume);
    NowBusy(Busy::kInOrder);  // what follows only waits for the other threads and sums up
  } catch (...) {
    failure.Set(std::current_exception());
  }
  table.Finish();
  ended.store(true);
  actor_thread.join();
  scoring.Close();
  failure.Rethrow();
  scoring.Rethrow();

  summary.wanted_steps = config.run.steps;
  summary.counters = table.Counters();
  for (const auto& [name, count] : scorer.Counters()) summary.counters[name] += static_cast<int64_t>(count);
  AddRolloutCounters(rollout_counters, summary.counters);
  observer.Finish(summary);
  return summary;
}

}  // namespace plumb::run
