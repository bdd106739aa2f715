#include "run/roles/cluster/member.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/net/rpc/rpc.h"
#include "common/record/group_body.h"
#include "replay/table/remote.h"
#include "run/roles/cluster/cluster_keys.h"
#include "run/roles/cluster/member_weights.h"
#include "run/roles/cluster/model_digest.h"
#include "run/roles/cluster/scoring_hub.h"
#include "run/roles/cluster/welcome.h"
#include "run/roles/role_loops.h"
#include "run/roles/socket_folder.h"
#include "run/session/interrupt.h"

namespace plumb::run {
namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

constexpr milliseconds kCall{5'000};  // a word from the head
constexpr milliseconds kFirstBackoff{200}, kLongestBackoff{5'000};
constexpr milliseconds kFlush{3'000};  // of a role that is stopped
constexpr milliseconds kReports{200};
constexpr milliseconds kTried{4'000};  // until the head has tried to reach this actor
constexpr char kKeyRefused[] = "does not accept our key";  // common/net/wire_socket.cc

uint64_t EpochNow() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::system_clock::now().time_since_epoch())
                                   .count());
}

std::string MachineName() {
  char name[256] = "";
  return gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

bool IsAway(const Error& e) {
  return e.code() == ErrorCode::kUnavailable || e.code() == ErrorCode::kDeadline;
}

// What a role's machine may have otherwise than the head: results do not depend on it.
void CheckOverrides(const std::vector<std::string>& overrides) {
  static constexpr std::string_view kOwn[] = {"run.threads", "run.device", "run.memory_gb",
                                              "rollout.max_batch", "rollout.kv_budget_mb"};
  for (const std::string& each : overrides) {
    const std::string key = each.substr(0, each.find('='));
    if (std::find(std::begin(kOwn), std::end(kOwn), key) != std::end(kOwn)) continue;
    throw Error(ErrorCode::kInvalidArgument,
                "is the head's to say: a role sets run.threads, run.device, run.memory_gb, "
                "rollout.max_batch and rollout.kv_budget_mb, the options of its own machine",
                "--set " + each);
  }
}

// One life of a role with one head: the call connection, and a thread that says it is there.
class HeadLink {
 public:
  HeadLink(const MemberOptions& options, uint64_t epoch)
      : options_(options),
        epoch_(epoch),
        rpc_(options.join, RpcClientOptions{.curve = options.keys}) {}
  ~HeadLink() { End(); }

  Welcome Join() {
    const JoinRequest request{.member = {.name = options_.name,
                                         .kind = options_.kind,
                                         .epoch = epoch_,
                                         .machine = MachineName()},
                              .build = BuildName(),
                              .recipe = options_.recipe};
    Welcome welcome = DecodeWelcome(rpc_.Call(kJoinVerb, EncodeJoin(request), After(kCall)));
    life_ = welcome.life;
    beat_ = milliseconds(welcome.beat_ms);
    return welcome;
  }
  Payload File(const std::string& name) {
    return rpc_.CallPayload(kFileVerb, Payload(EncodeFileQuestion({options_.kind, name})),
                            After(options_.patience));
  }
  void Leave() noexcept {
    try {
      rpc_.Call(kLeaveVerb, EncodeWho({options_.name, epoch_, {}}), After(milliseconds(2'000)));
    } catch (const std::exception& e) {
      LogInfo(std::string("left without a goodbye: ") + e.what());
    }
  }

  enum class State { kThere, kEnded, kAnew, kAway };
  void Begin() {
    thread_ = std::thread([this] { Beats(); });
  }
  // From now on beats speak of `weights`, until nullptr is given; borrowed.
  void SpeakOf(MemberWeights* weights) {
    MutexLock lock(weights_mu_);
    weights_ = weights;
  }
  void End() {
    stop_.store(true);
    if (thread_.joinable()) thread_.join();
  }
  State state() const { return state_.load(); }
  // Asks now; for somebody whose work went wrong and who wants to know whether that was why.
  State Ask() {
    Beat();
    return state();
  }
  void Rethrow() const {
    MutexLock lock(mu_);
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void Beat() {
    Who who{options_.name, epoch_, {}};
    {
      MutexLock lock(weights_mu_);
      if (weights_) who.relay = weights_->Saying();
    }
    try {
      const BeatReply reply = DecodeBeat(rpc_.Call(kBeatVerb, EncodeWho(who), After(kCall)));
      heard_.store(SteadyClock::now());
      {
        MutexLock lock(weights_mu_);
        if (weights_ && reply.relay) weights_->Hear(*reply.relay);
      }
      if (reply.ended) state_.store(State::kEnded);
      else if (!reply.known || reply.life != life_) state_.store(State::kAnew);
    } catch (const Error& e) {
      if (IsAway(e)) {
        if (SteadyClock::now() - heard_.load() > options_.patience) state_.store(State::kAway);
        return;
      }
      MutexLock lock(mu_);  // fenced
      error_ = std::current_exception();
      state_.store(State::kAnew);
    }
  }
  void Beats() {
    auto next = SteadyClock::now();
    while (!stop_.load() && state() == State::kThere) {
      std::this_thread::sleep_for(milliseconds(20));
      if (SteadyClock::now() < next) continue;
      Beat();
      next = SteadyClock::now() + beat_;
    }
  }

  const MemberOptions& options_;
  const uint64_t epoch_;
  RpcClient rpc_;
  std::string life_;
  milliseconds beat_{1000};
  std::atomic<bool> stop_{false};
  std::atomic<State> state_{State::kThere};
  std::atomic<SteadyClock::time_point> heard_{SteadyClock::now()};
  mutable Mutex mu_;
  std::exception_ptr error_ PLUMB_GUARDED_BY(mu_);
  Mutex weights_mu_;
  MemberWeights* weights_ PLUMB_GUARDED_BY(weights_mu_) = nullptr;
  std::thread thread_;
};

std::string DoorAt(const MemberOptions& options, int port) {
  return "tcp://" + ReadTcpAddress(options.join, "--join").host + ":" + std::to_string(port);
}

// What the head gave, as a run's folder that a session opens.
std::unique_ptr<Session> OpenSession(const MemberOptions& options, const Welcome& welcome,
                                     const std::string& folder, HeadLink& link) {
  int64_t bytes = 0;
  for (const RoleFile& file : welcome.files.files) {
    PutRoleFile(folder, file, link.File(file.name));
    bytes += static_cast<int64_t>(file.bytes);
  }
  configs::Config config =
      configs::ParseRecipe(welcome.recipe, "the head's recipe", options.overrides).config;
  config = PointInto(std::move(config), welcome.files.paths, folder);
  config.run.out = folder;
  const RunFolder run{folder};
  RealFileSystem().WriteFileAtomic(run.config(), configs::ToToml(config));
  RealFileSystem().WriteFileAtomic(
      run.identity(), nlohmann::ordered_json{{"run_id", welcome.run_id}}.dump() + "\n");
  auto session = Session::Open(folder);
  if (const std::string own = ModelDigest(*session); own != welcome.model_digest) {
    throw Error(ErrorCode::kConflict,
                "here the recipe and the files of the head come to another model or tokenizer (" +
                    own.substr(0, 12) + ", the head has " + welcome.model_digest.substr(0, 12) +
                    "): head and roles have to be of one build",
                options.join);
  }
  LogInfo("joined run " + welcome.run_id + " at " + options.join + " as " + options.name +
          "; recipe " + welcome.recipe_digest.substr(0, 12) + ", " +
          std::to_string(welcome.files.files.size()) + " files of " + std::to_string(bytes) +
          " bytes");
  return session;
}

// Beats speak of an actor's weights while this lives.
class Spoken {
 public:
  Spoken(HeadLink& link, MemberWeights& weights) : link_(link) { link_.SpeakOf(&weights); }
  ~Spoken() { link_.SpeakOf(nullptr); }
  Spoken(const Spoken&) = delete;

 private:
  HeadLink& link_;
};

bool ActorWork(const Session& session, const MemberOptions& options, const Welcome& welcome,
               uint64_t epoch, const std::function<bool()>& stop, HeadLink& link) {
  ActorAt at{.name = options.name,
             .replay = DoorAt(options, welcome.ports.leases),
             .weights = DoorAt(options, welcome.ports.weights),
             .rewards = {DoorAt(options, welcome.ports.groups)},
             .curve = options.keys,
             .epoch = epoch,
             .stop = stop,
             .flush_when_stopped = kFlush};
  const configs::RunConfig& run = session.config().run;
  if (run.relay == 0 && !run.weight_deltas) return RunActorAt(session, at);
  MemberWeights weights(session.config(), {.name = options.name,
                                           .learner = at.weights,
                                           .head = options.join,
                                           .listen = options.hands_on,
                                           .keys = options.keys,
                                           .folder = session.folder().path});
  std::optional<Spoken> spoken;
  if (weights.relays()) {
    spoken.emplace(link, weights);
    // Its first weights come from where the head says, and those who come with it are told of it.
    const Deadline until = After(kTried);
    while (!weights.Tried() && !stop() && SteadyClock::now() < until) {
      link.Ask();
      std::this_thread::sleep_for(milliseconds(50));
    }
  }
  at.source = &weights.source();
  at.counters = [&] { return weights.counters(); };
  return RunActorAt(session, at);
}

// Asks for groups, scores and stores them, and says which are done.
void RewardWork(const Session& session, const MemberOptions& options, const Welcome& welcome,
                uint64_t epoch, const std::function<bool()>& stop) {
  const std::string scores = DoorAt(options, welcome.ports.scores);
  const RpcClientOptions rpc{.curve = options.keys};
  replay::ReplayClient store(
      scores, {.actor = options.name, .epoch = epoch, .report_interval = kReports, .rpc = rpc});
  RpcClient hub(scores, rpc);
  RewardLoop rewards(session, options.name, store, /*capacity=*/0);
  const auto most = static_cast<size_t>(2 * std::max<int64_t>(1, rewards.scorer().SideBySide()));
  Mutex mu;
  std::vector<uint64_t> done;  // guarded by mu
  size_t inside = 0;           // guarded by mu
  LogInfo("scoring groups as " + options.name);
  NowBusy(Busy::kInOrder);
  TakeQuestion question{.worker = options.name, .done = {}};
  bool last = false;
  while (!rewards.line().failed()) {
    const bool leaving = stop();
    {
      MutexLock lock(mu);
      question.done.insert(question.done.end(), done.begin(), done.end());
      done.clear();
      question.most = leaving || inside >= most ? 0 : static_cast<uint32_t>(most - inside);
      question.wait_ms = inside > 0 ? 50 : 500;  // what is done is said with the next question
      last = leaving && inside == 0;
    }
    try {
      const Payload answer =
          hub.CallPayload(kTakeVerb, Payload(EncodeTake(question)), After(kCall));
      question.done.clear();
      for (ScoringWork& work : DecodeWork(answer)) {
        FinishedGroup sealed{{}, GroupBody::Open(std::move(work.body))};
        {
          MutexLock lock(mu);
          ++inside;
        }
        rewards.Push(sealed, Deadline{}, [&, id = work.id] {
          MutexLock lock(mu);
          done.push_back(id);
          --inside;
        });
      }
    } catch (const Error& e) {
      if (!IsAway(e)) throw;
      if (leaving) break;  // others score what it had
    }
    if (last) break;
    if (question.most == 0) std::this_thread::sleep_for(milliseconds(20));
    rewards.Report();
  }
  rewards.line().Close();
  rewards.line().Rethrow();
  LogInfo("stopping:" + rewards.Summary());
}

}  // namespace

std::string DefaultWorkFolder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (cache && cache[0] == '/') return std::string(cache) + "/plumb";
  if (home && home[0] == '/') return std::string(home) + "/.cache/plumb";
  return std::filesystem::current_path().string();
}

bool RunMember(const MemberOptions& options) {
  CheckMemberName(options.name);
  CheckOverrides(options.overrides);
  ReadTcpAddress(options.join, "--join");
  const auto stopped = [&] { return options.stop != nullptr && options.stop->load(); };
  RealFileSystem().CreateDirectories(options.work);
  auto away_since = SteadyClock::now();
  milliseconds backoff = kFirstBackoff;
  bool said = false;
  NowBusy(Busy::kInOrder);
  while (!stopped()) {
    const uint64_t epoch = EpochNow();
    HeadLink link(options, epoch);
    std::optional<Welcome> welcome;
    try {
      welcome = link.Join();
    } catch (const Error& e) {
      if (!IsAway(e)) throw;
      if (std::string(e.what()).find(kKeyRefused) != std::string::npos) {
        throw Error(ErrorCode::kUnsupported,
                    "the head does not let this key in: its public key has to be a line of the "
                    "head's " +
                        NameOf(options.kind) +
                        ".allowed, and head.pub has to be this "
                        "head's",
                    options.join);
      }
      if (SteadyClock::now() - away_since > options.patience) {
        throw Error(ErrorCode::kUnavailable,
                    "no head answered within " + std::to_string(options.patience.count() / 1000) +
                        " s (--wait): " + e.message(),
                    options.join);
      }
      if (!said) LogInfo("waiting for the head: " + std::string(e.what()));
      said = true;
      for (auto slept = milliseconds(0); slept < backoff && !stopped(); slept += milliseconds(20))
        std::this_thread::sleep_for(milliseconds(20));
      backoff = std::min(2 * backoff, kLongestBackoff);
      continue;
    }
    said = false;
    backoff = kFirstBackoff;
    link.Begin();
    bool finished = false;
    try {
      const SocketFolder folder(options.work);
      const auto session = OpenSession(options, *welcome, folder.path(), link);
      const auto stop = [&] { return stopped() || link.state() != HeadLink::State::kThere; };
      if (options.kind == MemberKind::kActor)
        finished = ActorWork(*session, options, *welcome, epoch, stop, link);
      else RewardWork(*session, options, *welcome, epoch, stop);
    } catch (const Error& e) {
      // What went wrong may have been the head's end; then there is another one, or will be.
      link.Rethrow();
      if (!IsAway(e) && link.Ask() == HeadLink::State::kThere) throw;
      LogWarning(std::string("begins anew: ") + e.what());
    }
    link.End();
    link.Rethrow();
    if (finished || link.state() == HeadLink::State::kEnded || stopped()) {
      link.Leave();
      return !stopped();
    }
    if (link.state() == HeadLink::State::kAway) {
      throw Error(ErrorCode::kUnavailable,
                  "the head has not answered for " +
                      std::to_string(options.patience.count() / 1000) + " s (--wait)",
                  options.join);
    }
    link.Leave();
    away_since = SteadyClock::now();
    LogInfo("the head has begun anew, or has missed this role: joining again");
  }
  return false;
}

}  // namespace plumb::run
