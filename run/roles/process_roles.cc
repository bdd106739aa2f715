// The roles of a run in processes: the loops of role_loops.h, met over ZeroMQ.
//
//   actor ──sealed groups (Sender/Receiver, acknowledged when durable)──► reward
//   reward ──bodies and scores (ReplayClient.InsertMany)──► replay
//   actor ◄──leases (ReplayClient)── replay ──batches (ReplayClient)──► learner
//   learner ──weights (RpcServer)──► actor
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/net/rpc/rpc.h"
#include "common/net/stream/transport.h"
#include "common/record/group_body.h"
#include "configs/checks/actor_device.h"
#include "configs/parallel.h"
#include "learner/loop/weight_publisher.h"
#include "policy_model/memory/threads.h"
#include "replay/table/remote.h"
#include "run/report/line_wrap.h"
#include "run/roles/learner_ports.h"
#include "run/roles/observer.h"
#include "run/roles/role_loops.h"
#include "run/roles/roles.h"
#include "run/roles/run_memory.h"
#include "run/roles/sharing/actor_ranks.h"
#include "run/session/interrupt.h"
#include "run/session/recipe/map_advice.h"

namespace plumb::run {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kReports{200};  // between two reports of a role

// A line for people, on the terminal that the roles share, as the observer of a run in one process
// says it.
void Say(const std::string& text, const RunOptions& options) {
  const std::string note = MapAdviceBySet(text);  // a run has a recipe
  LogInfo(note);
  if (options.quiet) return;
  std::printf("%s\n", FitLine(note, stdout).c_str());
  std::fflush(stdout);
}

int RanksHere(const configs::Config& config) {
  return static_cast<int>(configs::ReadParallel(config.run.parallel).ranks());
}

// Sends groups to the reward workers, each by its lease: sealed once, however often it has to be
// offered.
class GroupSender {
 public:
  explicit GroupSender(std::vector<std::unique_ptr<Sender>>& senders) : senders_(senders) {}
  void Send(const TrajectoryGroup& group) {
    const std::string key = LeaseKey(group.lease.purpose, group.lease.lease_id);
    if (key != key_ || attempt_ != group.lease.attempt) {
      body_.emplace(GroupBody::Seal(group));
      key_ = key;
      attempt_ = group.lease.attempt;
    }
    Sender& sender = *senders_[group.lease.lease_id % senders_.size()];
    sender.Send(body_->bytes().str(), After(milliseconds(1000)), 0, group.policy.version);
    body_.reset();
    key_.clear();
  }

 private:
  std::vector<std::unique_ptr<Sender>>& senders_;
  std::optional<GroupBody> body_;  // of the group that is offered now
  std::string key_;
  uint32_t attempt_ = 0;
};

}  // namespace

void RunReplayRole(const Session& session, const Endpoints& endpoints, const RunOptions& options) {
  std::unique_ptr<replay::Store> store = OpenStore(session);
  std::map<std::string, int64_t> data;
  {
    // A large file takes a while, also when this role was started again: whoever waits sees that it
    // gets on.
    std::atomic<int64_t> rows{0};
    const replay::ImportingServer importing(endpoints.replay(), &rows);
    data = ImportPrompts(
        session, *store, [&](const std::string& note) { Say(note, options); }, &rows);
  }
  replay::ReplayTable table(store.get(), TableOptionsOf(session.config()));
  table.Report("data", data);  // for the learner, which sums up
  replay::ReplayServer server(&table, endpoints.replay());
  LogInfo("serving prompts and batches at " + server.endpoint());
  NowBusy(Busy::kInOrder);
  while (!options.Stopped()) std::this_thread::sleep_for(milliseconds(100));
  LogInfo("stopping: " + table.Describe());
}

void RunRewardRole(const Session& session, const Endpoints& endpoints, int64_t index,
                   const RunOptions& options) {
  const std::string name = "reward-" + std::to_string(index);
  replay::ReplayClient replay(endpoints.replay(), {.actor = name, .report_interval = kReports});
  // Only a durable group is acknowledged; until the store answers, the actors keep theirs too. What
  // is in the line is bounded by the credit that the receiver grants.
  RewardLoop rewards(session, name, replay, /*capacity=*/0);
  Receiver receiver(
      {.endpoint = endpoints.reward(index),
       .run = session.run_id(),
       .credit_messages = static_cast<uint32_t>(2 * session.config().rollout.prompts_per_step)},
      [&](TransportMessage message, Ack ack) {
        auto right =
            std::make_shared<Ack>(std::move(ack));  // dropped with the group: delivered again
        FinishedGroup sealed{{}, GroupBody::Open(std::move(message.payload))};
        rewards.Push(sealed, Deadline{}, [right] { right->Complete(); });
      });
  LogInfo("scoring groups at " + receiver.endpoint());
  NowBusy(Busy::kInOrder);
  auto said = std::chrono::steady_clock::now();
  while (!options.Stopped() && !rewards.line().failed()) {
    std::this_thread::sleep_for(milliseconds(100));
    if (std::chrono::steady_clock::now() - said > std::chrono::seconds(60)) {
      said = std::chrono::steady_clock::now();
      LogInfo("so far:" + rewards.Summary());
    }
    rewards.Report();
  }
  rewards.line().Close();
  rewards.line().Rethrow();
  LogInfo("stopping:" + rewards.Summary());
}

bool RunActorAt(const Session& session, const ActorAt& at) {
  const RpcClientOptions rpc{.curve = at.curve};
  replay::ReplayClient replay(
      at.replay, {.actor = at.name, .epoch = at.epoch, .report_interval = kReports, .rpc = rpc});
  std::optional<actor::RemoteWeightSource> remote;
  if (!at.source) remote.emplace(at.weights, rpc);
  WeightSource* const source = at.source ? at.source : &*remote;
  policy_model::UseThreads(ThreadSharesOf(session.config()).actor);
  // Whichever has the actor; where it is apart, its device has nothing else.
  const auto apart = PlanActors(session, RanksHere(session.config()));
  const RunMemory memory = apart ? *apart : PlanRun(session);
  actor::FetchedPolicy policy(
      WithPlan(memory, [&] { return EmptyWeights(session, session.stream()); }), source);

  std::optional<LeadingRank> leading;
  if (at.ranks) WithPlan(memory, [&] { leading.emplace(*at.ranks, session); });
  std::vector<std::unique_ptr<Sender>> senders;
  for (const std::string& endpoint : at.rewards) {
    senders.push_back(std::make_unique<Sender>(SenderOptions{.endpoint = endpoint,
                                                             .run = session.run_id(),
                                                             .producer = at.name,
                                                             .epoch = replay.epoch(),
                                                             .curve = at.curve}));
  }
  GroupSender groups(senders);
  const auto sink = [&](const TrajectoryGroup& group) { groups.Send(group); };
  NowBusy(Busy::kInOrder);
  const bool finished = WithPlan(memory, [&] {
    return RunActorLoop(session, at.name,
                        {.store = replay,
                         .stream = session.stream(),
                         .policy = policy,
                         .sink = sink,
                         .stop = at.stop,
                         .leading = leading ? &*leading : nullptr,
                         .counters = at.counters});
  });
  if (!finished && at.flush_when_stopped.count() == 0) return false;
  const Deadline until = After(finished ? milliseconds(30'000) : at.flush_when_stopped);
  try {
    for (auto& sender : senders) sender->Flush(until);
  } catch (const Error& e) {
    if (finished) throw;
    LogInfo(std::string("answers that others will give again: ") + e.what());
  }
  return finished;
}

void RunActorRole(const Session& session, const Endpoints& endpoints, int64_t index,
                  const RunOptions& options) {
  ActorAt at{.name = "actor-" + std::to_string(index),
             .replay = endpoints.replay(),
             .weights = endpoints.weights(),
             .rewards = {},
             .stop = [&] { return options.Stopped(); },
             .ranks = options.ranks};
  for (int64_t i = 0; i < session.config().run.reward_workers; ++i)
    at.rewards.push_back(endpoints.reward(i));
  RunActorAt(session, at);
}

RunSummary RunLearnerRole(const Session& session, const Endpoints& endpoints,
                          const RunOptions& given) {
  // Whether it fits was asked before the first role was started; since then they have taken some.
  const RunMemory memory = PlanRun(session);
  const RunOptions options = PlannedOptions(given, memory);
  Observer observer(session, options);
  observer.Note(memory.Line());
  replay::ReplayClient store(endpoints.replay(), {.actor = "learner"});
  replay::ReplayClient watch(endpoints.replay(),
                             {.actor = "learner-watch", .call_timeout = milliseconds(1000)});
  const bool lends =
      session.stream().device().is_cuda() && configs::ActorDevice(session.config()).is_cuda();
  learner::WeightPublisher publisher(endpoints.weights(), {}, lends);
  policy_model::UseThreads(ThreadSharesOf(session.config(), options.ranks_here).learner);
  const learner::LearnerResult result = WithPlan(memory, [&] {
    policy_model::Weights weights = MakeWeights(session);
    return RunLearnerLoop(
        session, options, observer, weights,
        {.store = store, .watch = watch, .weights = publisher, .slice = milliseconds(1000)});
  });
  std::map<std::string, int64_t> counters;
  try {
    counters = (result.stopped_early ? watch : store).Counters();
  } catch (const Error& e) {
    if (!result.stopped_early || !TryAgain(e)) throw;
    LogWarning(std::string("the summary lacks the store's counters: ") +
               e.what());  // it was stopped, too
  }
  return FinishRun(session, observer, result, std::move(counters));
}

}  // namespace plumb::run
