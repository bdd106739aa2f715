#include "run/roles/cluster/head.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/net/stream/transport.h"
#include "common/record/group_body.h"
#include "learner/loop/weight_publisher.h"
#include "policy_model/memory/threads.h"
#include "replay/table/remote.h"
#include "run/roles/cluster/cluster_keys.h"
#include "run/roles/cluster/model_digest.h"
#include "run/roles/cluster/reception.h"
#include "run/roles/cluster/relay_desk.h"
#include "run/roles/cluster/role_files.h"
#include "run/roles/cluster/scoring_hub.h"
#include "run/roles/observer.h"
#include "run/roles/role_loops.h"
#include "run/roles/run_memory.h"
#include "run/session/interrupt.h"
#include "run/session/run_folder.h"

namespace plumb::run {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLook{50};
constexpr milliseconds kLostAfter{8'000};  // a silent role; of it come also the beats
constexpr std::chrono::seconds kGoodbye{10};
constexpr char kCounted[] = "cluster/";  // the name under which the head counts

int PortOf(const std::string& endpoint) {
  return std::stoi(ReadTcpAddress(endpoint, endpoint).port);
}

// Scores at the head while nobody else does; its parts are made when they are first needed.
class ScoringHere {
 public:
  ScoringHere(const Session& session, replay::ReplayTable& table, ScoringHub& hub)
      : session_(session), table_(table), hub_(hub), thread_([this] { Run(); }) {}
  ~ScoringHere() { End(); }
  void End() {
    ended_.store(true);
    if (thread_.joinable()) thread_.join();
  }
  void Rethrow() {
    MutexLock lock(mu_);
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void Run() {
    try {
      std::optional<RewardLoop> rewards;
      while (!ended_.load()) {
        const size_t most = static_cast<size_t>(session_.config().rollout.prompts_per_step);
        for (ScoringWork& work : hub_.TakeHere(most, After(milliseconds(200)))) {
          if (!rewards) {
            LogInfo("no reward worker is there: the head scores");
            rewards.emplace(session_, "reward-head", table_, /*capacity=*/0);
          }
          FinishedGroup sealed{{}, GroupBody::Open(std::move(work.body))};
          rewards->Push(sealed, Deadline{}, [this, id = work.id] { hub_.Done({id}); });
        }
        if (!rewards) continue;
        rewards->Report();
        rewards->line().Rethrow();
      }
      if (!rewards) return;
      rewards->line().Close();
      rewards->line().Rethrow();
      rewards->Report();
      LogInfo("the head has scored:" + rewards->Summary());
    } catch (...) {
      MutexLock lock(mu_);
      error_ = std::current_exception();
    }
  }

  const Session& session_;
  replay::ReplayTable& table_;
  ScoringHub& hub_;
  std::atomic<bool> ended_{false};
  Mutex mu_;
  std::exception_ptr error_ PLUMB_GUARDED_BY(mu_);
  std::thread thread_;
};

// All that listens. Its parts end in the reverse of their order: nothing is asked of one that has
// gone.
class Doors {
 public:
  Doors(const Session& session, replay::ReplayTable& table, bool insecure)
      : table_(table), hub_(StallTime(session.config()) / 2) {
    const configs::Config& config = session.config();
    const HeadDoors keys = ReadHeadDoors(config.run.keys, config.run.listen, insecure);
    const TcpAddress listen = ReadTcpAddress(config.run.listen, "run.listen");
    leases_ = std::make_unique<replay::ReplayServer>(
        &table, listen.At(1), RpcServerOptions{.curve = keys.actors},
        replay::ReplayVerbs{.only = {"lease", "renew", "release", "finished", "report"},
                            .others = {}});
    publisher_ = std::make_unique<learner::WeightPublisher>(
        listen.At(2), RpcServerOptions{.curve = keys.actors}, /*lends=*/false,
        learner::WeightBlocks{.on = config.run.relay > 0 || config.run.weight_deltas,
                              .changes = config.run.weight_deltas});
    if (config.run.relay > 0) {
      relays_ = std::make_unique<RelayDesk>(
          RelayDeskOptions{.fanout = config.run.relay, .doors = keys.actors, .reach = {}});
    }
    groups_ = std::make_unique<Receiver>(
        ReceiverOptions{
            .endpoint = listen.At(3),
            .run = session.run_id(),
            .credit_messages = static_cast<uint32_t>(2 * config.rollout.prompts_per_step),
            .curve = keys.actors},
        [this](TransportMessage message, Ack ack) {
          auto right = std::make_shared<Ack>(std::move(ack));
          hub_.Offer(std::move(message.payload), [right] { right->Complete(); });
        });
    scores_ = std::make_unique<replay::ReplayServer>(
        &table, listen.At(4), RpcServerOptions{.curve = keys.rewards},
        replay::ReplayVerbs{.only = {"prompts", "insert", "report"},
                            .others = [this](RpcRequest request, RpcResponder responder) {
                              if (request.verb != kTakeVerb)
                                throw Error(ErrorCode::kUnsupported,
                                            "'" + request.verb.substr(0, 40) +
                                                "' is not for this role to ask");
                              hub_.Take(DecodeTake(request.payload), std::move(responder));
                            }});
    reception_ = std::make_unique<Reception>(
        ReceptionOptions{.endpoint = listen.At(0),
                         .doors = keys.all,
                         .config = config,
                         .recipe_digest = RecipeDigestOfRun(session.folder().config()),
                         .run_id = session.run_id(),
                         .model_digest = ModelDigest(session),
                         .ports = {.leases = PortOf(leases_->endpoint()),
                                   .weights = PortOf(publisher_->endpoint()),
                                   .groups = PortOf(groups_->endpoint()),
                                   .scores = PortOf(scores_->endpoint())},
                         .lost_after = kLostAfter,
                         .gone =
                             [this](const Member& member) {
                               if (member.kind != MemberKind::kActor) return hub_.Left(member.name);
                               table_.ReleaseActor(member.name);
                               if (relays_) relays_->Gone(member.name);
                             },
                         .relay =
                             [this](const std::string& name, const RelaySaying& saying) {
                               return relays_ ? relays_->Hear(name, saying) : std::nullopt;
                             }});
    keeper_ = std::thread([this] { Keep(); });
  }
  ~Doors() {
    ended_.store(true);
    keeper_.join();
    hub_.Close();
  }
  Doors(const Doors&) = delete;

  Reception& reception() { return *reception_; }
  learner::WeightPublisher& publisher() { return *publisher_; }
  ScoringHub& hub() { return hub_; }

  // For the store's counters, of which metrics and the summary are made.
  void Report() {
    std::map<std::string, int64_t> counters;
    for (const auto& [name, count] : reception_->counters()) counters[kCounted + name] = count;
    for (const auto& [name, count] : hub_.counters())
      counters[std::string(kCounted) + "groups_" + name] = count;
    for (const auto& [name, count] : publisher_->counters()) counters[kCounted + name] = count;
    if (relays_) {
      for (const auto& [name, count] : relays_->counters()) counters[kCounted + name] = count;
    }
    // Keys that only other doors have refused.
    int64_t& refused = counters[std::string(kCounted) + "keys_refused"];
    for (const replay::ReplayServer* server : {leases_.get(), scores_.get()}) {
      const auto found = server->Counters();
      const auto keys = found.find("rpc/keys_refused");
      if (keys != found.end()) refused += keys->second;
    }
    const auto streams = groups_->counters();
    const auto keys = streams.find("keys_refused");
    if (keys != streams.end()) refused += static_cast<int64_t>(keys->second);
    table_.Report("head", counters);
  }

 private:
  void Keep() {
    int64_t refused = 0;
    auto next = std::chrono::steady_clock::now();
    while (!ended_.load()) {
      std::this_thread::sleep_for(kLook);
      reception_->Sweep();
      hub_.ShareAmong(reception_->roster().Count(MemberKind::kReward));
      hub_.Tick();
      table_.ShareAmong(std::max<int64_t>(1, reception_->roster().Count(MemberKind::kActor)));
      if (std::chrono::steady_clock::now() < next) continue;
      next = std::chrono::steady_clock::now() + std::chrono::seconds(1);
      Report();
      const int64_t now = reception_->counters()["keys_refused"];
      if (now > refused)
        LogWarning(std::to_string(now - refused) +
                   " attempts to join with a key that is in no list (" + std::to_string(now) +
                   " in all)");
      refused = now;
    }
  }

  replay::ReplayTable& table_;
  ScoringHub hub_;
  std::unique_ptr<replay::ReplayServer> leases_;
  std::unique_ptr<learner::WeightPublisher> publisher_;
  std::unique_ptr<RelayDesk> relays_;  // where actors hand weights on
  std::unique_ptr<Receiver> groups_;
  std::unique_ptr<replay::ReplayServer> scores_;
  std::unique_ptr<Reception> reception_;
  std::atomic<bool> ended_{false};
  std::thread keeper_;
};

// Until the first actor is there; false: the run is to stop.
bool AwaitActor(const Reception& reception, const RunOptions& options, milliseconds patience) {
  const Deadline until = After(patience);
  while (reception.roster().Count(MemberKind::kActor) == 0) {
    if (options.Stopped()) return false;
    if (std::chrono::steady_clock::now() > until) {
      throw Error(ErrorCode::kDeadline,
                  "no actor has joined within " + std::to_string(patience.count() / 1000) +
                      " s (run.stall_seconds): start `plumb role actor --join tcp://HOST:PORT` on "
                      "machines that reach this one",
                  reception.endpoint());
    }
    std::this_thread::sleep_for(kLook);
  }
  return true;
}

}  // namespace

RunSummary RunClusterHead(const Session& session, const RunOptions& given, bool insecure) {
  const configs::Config& config = session.config();
  RunStart start(session, given);
  replay::ReplayTable& table = start.table;
  const RunOptions& options = start.options;
  Doors doors(session, table, insecure);
  ScoringHere scoring(session, table, doors.hub());
  const std::string file = session.folder().path + "/" + kClusterFile;
  RealFileSystem().WriteFileAtomic(
      file, nlohmann::ordered_json{{"listen", doors.reception().endpoint()},
                                   {"recipe", doors.reception().recipe_digest()}}
                    .dump() +
                "\n");
  start.observer.Note("roles join at " + doors.reception().endpoint() +
                      (config.run.keys.empty() ? " without keys" : ", keys of " + config.run.keys) +
                      "; recipe " + doors.reception().recipe_digest());
  // A stop while it waits ends like one before the first step.
  AwaitActor(doors.reception(), options, StallTime(config));
  policy_model::UseThreads(ThreadSharesOf(config, options.ranks_here).learner);
  learner::LearnerResult result = WithPlan(start.memory, [&] {
    return RunLearnerLoop(
        session, options, start.observer, start.weights,
        {.store = table, .watch = table, .weights = doors.publisher(), .check = [&] {
           scoring.Rethrow();
         }});
  });
  NowBusy(Busy::kInOrder);
  if (!result.stopped_early) {
    // Roles leave when they hear that there is no more to do; whoever does not is on its own.
    table.Finish();
    doors.reception().SayEnded();
    const Deadline until = After(kGoodbye);
    while (!doors.reception().roster().members().empty() && !options.Stopped() &&
           std::chrono::steady_clock::now() < until)
      std::this_thread::sleep_for(kLook);
  }
  doors.Report();
  scoring.End();
  scoring.Rethrow();
  RealFileSystem().Remove(file);
  return FinishRun(session, start.observer, std::move(result), table.Counters());
}

}  // namespace plumb::run
