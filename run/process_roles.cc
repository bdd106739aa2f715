// The roles of a run in processes: the same objects as in local_roles.cc, met over ZeroMQ.
//
//   actor ──groups (Sender/Receiver, acknowledged when durable)──► reward
//   reward ──groups (ReplayClient.InsertMany)──► replay
//   actor ◄──leases (ReplayClient)── replay ──batches (ReplayClient)──► learner
//   learner ──weights (RpcServer)──► actor
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "common/codec.h"
#include "common/error.h"
#include "common/log.h"
#include "common/rpc.h"
#include "common/transport.h"
#include "learner/weight_publisher.h"
#include "policy_model/transformer.h"
#include "replay/remote.h"
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

bool Stopped(const RunOptions& options) { return options.stop && options.stop->load(); }

uint64_t NewEpoch() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::system_clock::now().time_since_epoch()).count());
}

// What a reward role counted and how long its parts took, on one line.
std::string Summary(const reward::GroupScorer& scorer) {
  std::string line;
  for (const auto& [name, count] : scorer.Counters()) line += " " + name + "=" + std::to_string(count);
  for (const auto& [name, seconds] : scorer.Latencies()) line += " " + name + "=" + std::to_string(seconds) + "s";
  return line;
}

// Tells the store what a role has done, a few times a second; while the store is away nothing is said.
class Reporter {
 public:
  explicit Reporter(replay::ReplayClient& client) : client_(client) {}
  void Tell(const RoleTotals& totals, std::map<std::string, int64_t> counters) {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return;
    counters.merge(ToCounters(totals));
    try {
      client_.Report(counters);
      next_ = now + milliseconds(200);
    } catch (const Error& e) {
      if (!TryAgain(e)) throw;
      next_ = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    }
  }

 private:
  replay::ReplayClient& client_;
  std::chrono::steady_clock::time_point next_;
};

std::map<std::string, int64_t> ScorerCounters(const reward::GroupScorer& scorer) {
  std::map<std::string, int64_t> counters;
  for (const auto& [name, count] : scorer.Counters()) counters[name] = static_cast<int64_t>(count);
  return counters;
}

}  // namespace

void RunReplayRole(const Session& session, const Endpoints& endpoints, const RunOptions& options) {
  std::unique_ptr<replay::Store> store = OpenStore(session);
  PromptData prompts;
  {
    // A large file takes a while, also when this role was started again: whoever waits sees that it gets on.
    std::atomic<int64_t> rows{0};
    const replay::ImportingServer importing(endpoints.replay(), &rows);
    prompts = LoadPrompts(session, &rows);
    for (const std::string& note : prompts.notes) LogInfo(note);
    store->PutPrompts(replay::kTrainDataset, prompts.train);
    if (!prompts.eval.empty()) store->PutPrompts(replay::kEvalDataset, prompts.eval);
  }
  replay::ReplayTable table(store.get(), TableOptionsOf(session.config()));
  replay::ReplayServer server(&table, endpoints.replay());
  LogInfo("serving prompts and batches at " + server.endpoint());
  NowBusy(Busy::kInOrder);
  while (!Stopped(options)) std::this_thread::sleep_for(milliseconds(100));
  LogInfo("stopping: " + table.Describe());
}

void RunRewardRole(const Session& session, const Endpoints& endpoints, int64_t index, const RunOptions& options) {
  const std::string name = "reward-" + std::to_string(index);
  const auto& config = session.config();
  reward::GroupScorer scorer(config.reward, reward::WithModelParts(session.tokenizer()));
  replay::ReplayClient replay(endpoints.replay(), {.actor = name});

  // Only a durable group is acknowledged; until the store answers, the actors keep theirs too.
  ScoringLine scoring([&](TrajectoryGroup& group) { scorer.Score(group); },
                      [&](std::span<const TrajectoryGroup> groups) { replay.InsertMany(groups); }, ScoringOptionsOf(config, scorer));
  // What is in the line is bounded by the credit that the receiver grants.
  Receiver receiver({.endpoint = endpoints.reward(index), .run = session.run_id(),
                     .credit_messages = static_cast<uint32_t>(2 * config.rollout.prompts_per_step)},
                    [&](TransportMessage message, Ack ack) {
                      auto right = std::make_shared<Ack>(std::move(ack));  // dropped with the group: delivered again
                      scoring.Push(DecodeGroup(message.payload.bytes()), Deadline{}, [right] { right->Complete(); });
                    });
  LogInfo("scoring groups at " + receiver.endpoint());
  NowBusy(Busy::kInOrder);
  Reporter reporter(replay);
  auto said = std::chrono::steady_clock::now();
  while (!Stopped(options) && !scoring.failed()) {
    std::this_thread::sleep_for(milliseconds(100));
    if (std::chrono::steady_clock::now() - said > std::chrono::seconds(60)) {
      said = std::chrono::steady_clock::now();
      LogInfo("so far:" + Summary(scorer));
    }
    reporter.Tell({.reward_s = scoring.score_seconds()}, ScorerCounters(scorer));
  }
  scoring.Close();
  scoring.Rethrow();
  LogInfo("stopping:" + Summary(scorer));
}

void RunActorRole(const Session& session, const Endpoints& endpoints, int64_t index, const RunOptions& options) {
  const std::string name = "actor-" + std::to_string(index);
  const auto& config = session.config();
  const uint64_t epoch = NewEpoch();
  replay::ReplayClient replay(endpoints.replay(), {.actor = name, .epoch = epoch});
  actor::RemoteWeightSource source(endpoints.weights());
  actor::FetchedPolicy policy(session.shape(), session.stream(), session.dtype(), &source);

  std::vector<std::unique_ptr<Sender>> senders;
  for (int64_t i = 0; i < config.run.reward_workers; ++i) {
    senders.push_back(std::make_unique<Sender>(SenderOptions{
        .endpoint = endpoints.reward(i), .run = session.run_id(), .producer = name, .epoch = epoch}));
  }
  actor::Rollout rollout(session.shape(), session.stream(), session.dtype(),
                         RolloutOptionsOf(session, name), &replay, &policy, &session.tokenizer(),
                         session.chat_template(), [&](const TrajectoryGroup& group) {
                           Sender& sender = *senders[group.lease.lease_id % senders.size()];
                           sender.Send(Encode(group), After(milliseconds(1000)), 0, group.policy.version);
                         });
  LogInfo("generating as " + name);
  NowBusy(Busy::kInOrder);
  Reporter reporter(replay);
  while (!Stopped(options) && rollout.Pump(After(milliseconds(200)))) {
    const actor::EngineCounters& engine = rollout.engine().counters();
    std::map<std::string, int64_t> counters;
    AddRolloutCounters(rollout.counters(), counters);
    reporter.Tell({.generate_s = engine.generate_seconds, .generated_tokens = static_cast<int64_t>(engine.generated_tokens)}, counters);
  }
  if (Stopped(options)) {
    rollout.Stop();
  } else {
    for (auto& sender : senders) sender->Flush(After(std::chrono::seconds(30)));
  }
  const auto& c = rollout.counters();
  LogInfo("stopping: " + std::to_string(c.groups_delivered) + " groups delivered, " + std::to_string(c.stale_leases) +
          " stale leases, " + std::to_string(c.refused_prompts) + " refused prompts, " +
          std::to_string(c.port_retries) + " retries");
}

RunSummary RunLearnerRole(const Session& session, const Endpoints& endpoints, const RunOptions& options) {
  const auto& config = session.config();
  Observer observer(session, options);
  const DemonstrationData demonstrations = LoadDemonstrations(session);
  for (const std::string& note : demonstrations.notes) observer.Note(note);
  replay::ReplayClient replay(endpoints.replay(), {.actor = "learner"});
  learner::WeightPublisher publisher(endpoints.weights());
  policy_model::Weights weights = MakeWeights(session);
  learner::Checkpoints checkpoints(session.folder().checkpoints(), config.run.keep_checkpoints,
                                   session.tokenizer_source());
  // Short questions of its own: a store that is away holds up neither the end of a run nor the look at what gets on.
  replay::ReplayClient watch(endpoints.replay(), {.actor = "learner-watch", .call_timeout = milliseconds(1000)});
  LearnerPorts ports({.batches = &replay, .weights = &publisher,
                      .announce = [&](const PolicyVersion& policy) { watch.Announce(policy); },
                      .progress = [&] { return ProgressOf(watch.Counters()); },
                      .stop = [&] { return Stopped(options); },
                      .slice = milliseconds(1000)});
  learner::LearnerHooks hooks = observer.Hooks();
  const auto totals_now = [&](std::map<std::string, int64_t>& counters) {
    try {
      ports.Patiently(StallTime(config), [&] {
        counters = watch.Counters();
        if (counters.contains("import/rows")) throw Error(ErrorCode::kUnavailable, "the store imports its prompts", endpoints.replay());
      });
    } catch (const Error& e) {
      if (!Stopped(options) || !TryAgain(e)) throw;
      LogWarning(std::string("a step's metrics lack the store's counters: ") + e.what());
      counters.clear();
    }
    return TakeRoleTotals(counters);
  };
  RoleTimes times;
  bool stepped = false;
  // What was done before the first step belongs to none: the evaluation of version 0, and, after a restart of this process alone, all
  // that the others had done.
  const auto begin_here = [&] {
    std::map<std::string, int64_t> ignored;
    times = RoleTimes(totals_now(ignored));
  };
  hooks.evaluated = [&, inner = hooks.evaluated](const learner::EvalResult& result, std::span<const TrajectoryGroup> groups) {
    inner(result, groups);
    if (!stepped) begin_here();
  };
  hooks.step = [&, inner = hooks.step](int64_t step, std::map<std::string, double>& metrics) {
    std::map<std::string, int64_t> counters;
    times.AddStep(totals_now(counters), metrics);
    stepped = true;
    AddCounterMetrics(counters, metrics);
    inner(step, metrics);
  };
  // What the store has seen is no less later: where it has ended before the learner (a role failed, and all are to end), the
  // last word of it is kept with the checkpoint.
  std::string store_state;
  hooks.store_state = [&] {
    try {
      ports.Patiently(StallTime(config), [&] { store_state = replay::ReplayTable::CursorText(watch.CursorAt(0)); });
    } catch (const Error& e) {
      if (!Stopped(options) || !TryAgain(e) || store_state.empty()) throw;
      LogWarning(std::string("the checkpoint is saved without a new word of the store: ") + e.what());
    }
    return store_state;
  };
  hooks.resumed = [&](int64_t step, const std::string& then) {
    replay::ReplayTable::Cursor cursor = replay::ReplayTable::ParseCursor(then);
    cursor.next_step = step;
    int64_t reopened = 0;
    ports.Patiently(StallTime(config), [&] { reopened = replay.Resume(cursor); });
    NoteReopened(observer, reopened);
    begin_here();
  };
  hooks.checkpointed = [&](int64_t oldest_step) {
    TrimOrSay([&] { (Stopped(options) ? watch : replay).Trim(KeepFromStep(config, oldest_step)); });
  };
  learner::LearnerLoop loop(config, weights, ports, ports, checkpoints, demonstrations.train,
                            demonstrations.heldout, hooks);
  RunSummary summary;
  summary.learner = loop.Run(options.resume);
  summary.wanted_steps = config.run.steps;
  try {
    summary.counters = summary.learner.stopped_early ? watch.Counters() : replay.Counters();
  } catch (const Error& e) {
    if (!summary.learner.stopped_early || !TryAgain(e)) throw;
    LogWarning(std::string("the summary lacks the store's counters: ") + e.what());  // it was stopped, too
  }
  TakeRoleTotals(summary.counters);
  observer.Finish(summary);
  return summary;
}

}  // namespace plumb::run
