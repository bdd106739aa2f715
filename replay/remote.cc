#include "replay/remote.h"

#include <algorithm>
#include <functional>
#include <list>
#include <optional>
#include <thread>
#include <utility>

#include "common/codec.h"
#include "common/error.h"
#include "replay/record.h"

namespace plumb::replay {
namespace {

constexpr size_t kMaxName = 4096;
constexpr size_t kMaxDigest = 128;
// A verb says what form its answer has: sealed groups are as the store holds them. Other forms have
// other verbs, and whoever asks for one that is not served gets kUnsupported.
constexpr char kNext[] = "next_sealed", kEvaluate[] = "evaluate_sealed";
constexpr char kAwaitNext[] = "await_next", kAwaitEvaluate[] = "await_evaluate";
constexpr int kMaxLeasesAtOnce = 4096;
constexpr size_t kMaxCounters = 10'000;
constexpr std::chrono::milliseconds kReportTimeout{1000}, kReportBackoff{5000};
// Changes come with a signal; this catches what has none (leases that run out, calls that go round the server).
constexpr std::chrono::milliseconds kLook{50};
// How much later than the server's own deadline a caller gives up: of leases, which may be many, and of a word.
constexpr std::chrono::seconds kGrace{5}, kWordGrace{2};
// Of calls without which everything goes on as well: who ends must not wait for a store that has ended.
constexpr std::chrono::seconds kShort{2};

int64_t RemainingMs(Deadline deadline) {
  const auto left = deadline - std::chrono::steady_clock::now();
  return std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::milliseconds>(left).count());
}

// A peer's number of milliseconds as a deadline of ours; bounded, so that it cannot overflow the clock.
Deadline FromRemaining(uint64_t ms) {
  constexpr uint64_t kMonthMs = uint64_t{31} * 24 * 3600 * 1000;
  return After(std::chrono::milliseconds(static_cast<int64_t>(std::min(ms, kMonthMs))));
}

uint64_t EpochNow() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
}

std::string EncodeResults(const std::vector<InsertResult>& results) {
  std::string out;
  for (const InsertResult r : results) out.push_back(static_cast<char>(r));
  return out;
}

void WriteCounters(const std::map<std::string, int64_t>& counters, ByteWriter& writer) {
  writer.U32(static_cast<uint32_t>(counters.size()));
  for (const auto& [name, value] : counters) writer.Bytes(name).U64(static_cast<uint64_t>(value));
}

std::string EncodeCounters(const std::map<std::string, int64_t>& counters) {
  ByteWriter writer;
  WriteCounters(counters, writer);
  return writer.Take();
}

std::map<std::string, int64_t> ReadCounters(ByteReader& in) {
  const uint32_t n = in.U32();
  if (n > kMaxCounters) throw Error(ErrorCode::kCorruption, "a peer claims " + std::to_string(n) + " counters");
  std::map<std::string, int64_t> counters;
  for (uint32_t i = 0; i < n; ++i) {
    std::string name(in.Bytes(kMaxName));
    counters[std::move(name)] = static_cast<int64_t>(in.U64());
  }
  in.ExpectEnd();
  return counters;
}

}  // namespace

struct ReplayServer::Impl {
  // One question that waits. `poll` answers it or returns false; after `deadline` it is called with late = true and has
  // to answer.
  struct Parked {
    Deadline deadline;
    std::function<std::optional<std::string>(bool late)> poll;
    RpcResponder responder;
  };

  ReplayTable* table = nullptr;
  Mutex mu;
  CondVar wake;
  std::list<Parked> parked PLUMB_GUARDED_BY(mu);  // the parker works on nodes that it has taken out
  std::map<std::string, uint64_t> epochs PLUMB_GUARDED_BY(mu);  // of each actor's newest life
  // The newest leases of each actor: asked for again under the same number, they are what was lost
  // on the way.
  struct Answer {
    uint64_t epoch = 0, number = 0;
    std::string reply;
  };
  std::map<std::string, Answer> answers PLUMB_GUARDED_BY(mu);
  bool changed PLUMB_GUARDED_BY(mu) = false;
  bool stop PLUMB_GUARDED_BY(mu) = false;
  std::thread parker;
  std::unique_ptr<RpcServer> server;         // last: its threads end first

  void Wake() {
    MutexLock lock(mu);
    changed = true;
    wake.notify_all();
  }

  // False: not yet.
  bool TryAnswer(Parked& question, bool late) {
    try {
      auto answer = question.poll(late);
      if (!answer) return false;
      question.responder.Reply(std::move(*answer));
    } catch (const Error& e) {
      question.responder.Fail(e);
    } catch (const std::exception& e) {
      question.responder.Fail(Error(ErrorCode::kIo, e.what()));
    }
    return true;
  }

  void Park(Deadline deadline, std::function<std::optional<std::string>(bool)> poll, RpcResponder responder) {
    Parked question{deadline, std::move(poll), std::move(responder)};
    if (TryAnswer(question, std::chrono::steady_clock::now() >= deadline)) {
      Wake();  // a question itself changes what others may get: it opens leases
      return;
    }
    MutexLock lock(mu);
    parked.push_back(std::move(question));
    changed = true;
    wake.notify_all();
  }

  void RunParker() {
    MutexLock lock(mu);
    while (!stop) {
      auto until = std::chrono::steady_clock::now() + kLook;
      for (const Parked& question : parked) until = std::min(until, question.deadline);
      if (!changed) wake.wait_until(lock, until);
      if (stop) break;
      changed = false;
      std::list<Parked> asked;
      asked.swap(parked);
      lock.unlock();
      for (auto it = asked.begin(); it != asked.end();) {
        it = TryAnswer(*it, std::chrono::steady_clock::now() >= it->deadline) ? asked.erase(it) : std::next(it);
      }
      lock.lock();
      parked.splice(parked.begin(), asked);  // the order of arrival stays
    }
    parked.clear();
  }

  // Notes the life of an actor; throws kConflict for one that is over.
  void CheckEpoch(const std::string& actor, uint64_t epoch) {
    bool anew = false;
    {
      MutexLock lock(mu);
      const auto [it, first] = epochs.try_emplace(actor, epoch);
      if (epoch < it->second) {
        throw Error(ErrorCode::kConflict,
                    "a newer process of actor '" + actor + "' has taken over; this one must end (are two actors given one name?)");
      }
      anew = !first && epoch > it->second;
      it->second = epoch;
    }
    if (anew) table->ReleaseActor(actor);
  }

  void Handle(RpcRequest request, RpcResponder responder) {
    try {
      Dispatch(request, responder);
    } catch (const Error& e) {
      responder.Fail(e);
    } catch (const std::exception& e) {
      responder.Fail(Error(ErrorCode::kIo, e.what()));
    }
  }
  void Dispatch(const RpcRequest& request, RpcResponder& responder);
};

void ReplayServer::Impl::Dispatch(const RpcRequest& request, RpcResponder& responder) {
  const std::string& verb = request.verb;
  ByteReader in(request.payload, "request '" + verb + "'");
  if (verb == "insert") {
    table->CheckAcknowledged(in.U64());
    const std::vector<TrajectoryGroup> groups = DecodeTrajectoryGroups(BytesOf(in.Rest()));
    const std::string results = EncodeResults(table->InsertMany(groups));
    responder.Reply(ByteWriter().U64(table->Acknowledged()).Take() + results);
    Wake();
  } else if (verb == "lease") {
    const std::string actor(in.Bytes(kMaxName));
    const uint64_t epoch = in.U64();
    const uint64_t number = in.U64();
    const int max = static_cast<int>(std::min<uint32_t>(in.U32(), kMaxLeasesAtOnce));
    const Deadline deadline = FromRemaining(in.U64());
    in.ExpectEnd();
    CheckEpoch(actor, epoch);
    Park(deadline, [this, actor, epoch, number, max](bool late) -> std::optional<std::string> {
      CheckEpoch(actor, epoch);  // not to a life that ended while it waited
      {
        MutexLock lock(mu);
        const auto known = answers.find(actor);
        if (known != answers.end() && known->second.epoch == epoch) {
          if (known->second.number == number) return known->second.reply;
          if (known->second.number > number) return Encode(std::span<const PromptLease>());  // nobody waits for this one
        }
      }
      const auto leases = table->LeaseTo(actor, max, Deadline{});
      if (leases.empty() && !late && !table->Finished()) return std::nullopt;
      std::string reply = Encode(std::span<const PromptLease>(leases));
      if (!leases.empty()) {
        MutexLock lock(mu);
        answers[actor] = {epoch, number, reply};
      }
      return reply;
    }, std::move(responder));
  } else if (verb == kNext || verb == kAwaitNext) {
    const int64_t step = static_cast<int64_t>(in.U64());
    const Deadline deadline = FromRemaining(in.U64());
    in.ExpectEnd();
    Park(deadline, [this, step, whole = verb == kNext](bool late) -> std::optional<std::string> {
      if (whole) return table->TryNext(step, late);
      return table->Ready(step, late) ? std::optional<std::string>("") : std::nullopt;
    }, std::move(responder));
  } else if (verb == kEvaluate || verb == kAwaitEvaluate) {
    const int64_t version = static_cast<int64_t>(in.U64());
    const int samples = static_cast<int>(in.U32());
    const Deadline deadline = FromRemaining(in.U64());
    in.ExpectEnd();
    Park(deadline, [this, version, samples, whole = verb == kEvaluate](bool late) -> std::optional<std::string> {
      if (whole) return table->TryEvaluate(version, samples, late);
      return table->EvaluationReady(version, samples, late) ? std::optional<std::string>("") : std::nullopt;
    }, std::move(responder));
  } else if (verb == "renew") {
    const std::string actor(in.Bytes(kMaxName));
    const uint64_t epoch = in.U64();
    in.ExpectEnd();
    CheckEpoch(actor, epoch);
    table->RenewActor(actor);
    responder.Reply(std::string());
  } else if (verb == "release") {
    table->Release(DecodePromptLeases(BytesOf(in.Rest())));
    responder.Reply(std::string());
    Wake();
  } else if (verb == "release_actor") {
    const std::string actor(in.Bytes(kMaxName));
    in.ExpectEnd();
    responder.Reply(ByteWriter().U32(static_cast<uint32_t>(table->ReleaseActor(actor))).Take());
    Wake();
  } else if (verb == "finished") {
    responder.Reply(std::string(1, table->Finished() ? '\1' : '\0'));
  } else if (verb == "finish") {
    table->Finish();
    responder.Reply(std::string());
    Wake();
  } else if (verb == "counters") {
    responder.Reply(EncodeCounters(table->Counters()));
  } else if (verb == "report") {
    const std::string role(in.Bytes(kMaxName));
    const uint64_t epoch = in.U64();
    table->Report(role, epoch, ReadCounters(in));
    responder.Reply(std::string());
  } else if (verb == "cursor") {
    const int64_t consumed = static_cast<int64_t>(in.U64());
    in.ExpectEnd();
    const auto cursor = table->CursorAt(consumed);
    responder.Reply(ByteWriter().U64(static_cast<uint64_t>(cursor.next_step)).U64(cursor.sequence).Take());
  } else if (verb == "announce") {
    PolicyVersion policy;
    policy.version = static_cast<int64_t>(in.U64());
    policy.digest = std::string(in.Bytes(kMaxDigest));
    in.ExpectEnd();
    table->Announce(policy);
    responder.Reply(std::string());
  } else if (verb == "resume") {
    ReplayTable::Cursor cursor;
    cursor.next_step = static_cast<int64_t>(in.U64());
    cursor.sequence = in.U64();
    in.ExpectEnd();
    responder.Reply(ByteWriter().U64(static_cast<uint64_t>(table->Resume(cursor))).Take());
    Wake();
  } else if (verb == "trim") {
    const int64_t step = static_cast<int64_t>(in.U64());
    in.ExpectEnd();
    table->Trim(step);
    responder.Reply(std::string());
  } else {
    throw Error(ErrorCode::kUnsupported, "the store does not know the request '" + verb.substr(0, 40) + "': is the peer of another version?");
  }
}

ReplayServer::ReplayServer(ReplayTable* table, const std::string& endpoint, RpcServerOptions options)
    : impl_(std::make_unique<Impl>()) {
  impl_->table = table;
  impl_->parker = std::thread([impl = impl_.get()] { impl->RunParker(); });
  try {
    impl_->server = std::make_unique<RpcServer>(
        endpoint, [impl = impl_.get()](RpcRequest request, RpcResponder responder) { impl->Handle(std::move(request), std::move(responder)); },
        options);
  } catch (...) {
    {
      MutexLock lock(impl_->mu);
      impl_->stop = true;
      impl_->wake.notify_all();
    }
    impl_->parker.join();
    throw;
  }
}

ReplayServer::~ReplayServer() {
  {
    MutexLock lock(impl_->mu);
    impl_->stop = true;
    impl_->wake.notify_all();
  }
  impl_->parker.join();
  impl_->server.reset();
}

const std::string& ReplayServer::endpoint() const { return impl_->server->endpoint(); }

std::map<std::string, int64_t> ReplayServer::Counters() const {
  auto counters = impl_->table->Counters();
  for (const auto& [name, value] : impl_->server->counters()) counters["rpc/" + name] = static_cast<int64_t>(value);
  return counters;
}

ImportingServer::ImportingServer(const std::string& endpoint, const std::atomic<int64_t>* rows) {
  server_ = std::make_unique<RpcServer>(endpoint, [rows](const RpcRequest& request, RpcResponder responder) {
    const int64_t now = rows->load();
    if (request.verb == "counters") responder.Reply(EncodeCounters({{"import/rows", now}}));
    else responder.Fail(Error(ErrorCode::kUnavailable, "the store imports its prompts: " + std::to_string(now) + " rows so far"));
  });
}

ReplayClient::ReplayClient(const std::string& endpoint, ReplayClientOptions options)
    : options_(std::move(options)), epoch_(options_.epoch == 0 ? EpochNow() : options_.epoch), rpc_(endpoint, options_.rpc) {}

ReplayClient::~ReplayClient() = default;

std::string ReplayClient::Call(const char* verb, std::string_view payload) {
  return rpc_.Call(verb, payload, After(options_.call_timeout));
}

Payload ReplayClient::CallAndWait(const char* verb, std::string payload, Deadline deadline, std::chrono::milliseconds grace) {
  const auto latest = Deadline::max() - grace;
  return rpc_.CallPayload(verb, Payload(std::move(payload)), std::min(deadline, latest) + grace);
}

std::vector<PromptLease> ReplayClient::Lease(int max_groups, Deadline deadline) {
  if (max_groups < 1) throw Error(ErrorCode::kInvalidArgument, "asked for " + std::to_string(max_groups) + " leases");
  MutexLock lock(lease_mu_);
  ByteWriter request;
  request.Bytes(options_.actor).U64(epoch_).U64(lease_number_).U32(static_cast<uint32_t>(max_groups));
  request.U64(static_cast<uint64_t>(RemainingMs(deadline)));
  // A call that fails leaves the number: whatever the server handed out for it comes with the next call.
  std::vector<PromptLease> leases = DecodePromptLeases(CallAndWait("lease", request.Take(), deadline, kGrace).bytes());
  ++lease_number_;
  return leases;
}

void ReplayClient::Release(std::span<const PromptLease> leases) { rpc_.Call("release", Encode(leases), After(kShort)); }

// Does not wait for a store that is away: whoever renews has work to go on with.
void ReplayClient::Renew() {
  rpc_.Call("renew", ByteWriter().Bytes(options_.actor).U64(epoch_).bytes(), After(kReportTimeout));
}

bool ReplayClient::Finished() {
  const std::string reply = Call("finished", "");
  return reply == std::string(1, '\1');
}

std::vector<InsertResult> ReplayClient::InsertMany(std::span<const TrajectoryGroup> groups) {
  const std::string reply = Call("insert", ByteWriter().U64(acknowledged_).Take() + Encode(groups));
  ByteReader in(reply, "the store's answer to an insert");
  const uint64_t acknowledged = in.U64();
  for (uint64_t known = acknowledged_; known < acknowledged && !acknowledged_.compare_exchange_weak(known, acknowledged);) {
  }
  std::vector<InsertResult> results;
  for (const char c : std::string(in.Rest())) {
    const uint8_t value = static_cast<uint8_t>(c);
    if (value > static_cast<uint8_t>(InsertResult::kRefused)) throw Error(ErrorCode::kCorruption, "the store's answer to an insert is malformed");
    results.push_back(static_cast<InsertResult>(value));
  }
  if (results.size() != groups.size()) {
    throw Error(ErrorCode::kCorruption, "the store answered " + std::to_string(results.size()) + " of " + std::to_string(groups.size()) + " inserts");
  }
  return results;
}

std::vector<TrajectoryGroup> ReplayClient::Next(int64_t step, Deadline deadline) {
  const auto question = [&](Deadline until) {
    return ByteWriter().U64(static_cast<uint64_t>(step)).U64(static_cast<uint64_t>(RemainingMs(until))).Take();
  };
  CallAndWait(kAwaitNext, question(deadline), deadline, kWordGrace);
  const Deadline bytes = After(options_.call_timeout);
  return DecodeBatch(CallAndWait(kNext, question(bytes), bytes, kGrace));
}

std::vector<TrajectoryGroup> ReplayClient::Evaluate(int64_t version, int num_samples, Deadline deadline) {
  const auto question = [&](Deadline until) {
    return ByteWriter()
        .U64(static_cast<uint64_t>(version))
        .U32(static_cast<uint32_t>(num_samples))
        .U64(static_cast<uint64_t>(RemainingMs(until)))
        .Take();
  };
  CallAndWait(kAwaitEvaluate, question(deadline), deadline, kWordGrace);
  const Deadline bytes = After(options_.call_timeout);
  return DecodeBatch(CallAndWait(kEvaluate, question(bytes), bytes, kGrace));
}

void ReplayClient::Finish() { rpc_.Call("finish", "", After(kShort)); }

int ReplayClient::ReleaseActor(const std::string& actor) {
  const std::string reply = Call("release_actor", ByteWriter().Bytes(actor).bytes());
  return static_cast<int>(ByteReader(reply, "the store's answer").U32());
}

std::map<std::string, int64_t> ReplayClient::Counters() {
  const std::string reply = Call("counters", "");
  ByteReader in(reply, "the store's counters");
  return ReadCounters(in);
}

void ReplayClient::Report(const std::string& role, const std::map<std::string, int64_t>& counters) {
  MutexLock lock(report_mu_);
  if (std::chrono::steady_clock::now() < next_report_) return;
  ByteWriter request;
  request.Bytes(role).U64(epoch_);
  WriteCounters(counters, request);
  try {
    rpc_.Call("report", request.bytes(), After(kReportTimeout));
    next_report_ = After(options_.report_interval);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kUnavailable && e.code() != ErrorCode::kDeadline) throw;
    next_report_ = After(kReportBackoff);
  }
}

ReplayTable::Cursor ReplayClient::CursorAt(int64_t consumed_steps) {
  const std::string reply = Call("cursor", ByteWriter().U64(static_cast<uint64_t>(consumed_steps)).bytes());
  ByteReader in(reply, "the store's cursor");
  ReplayTable::Cursor cursor;
  cursor.next_step = static_cast<int64_t>(in.U64());
  cursor.sequence = in.U64();
  in.ExpectEnd();
  return cursor;
}

int64_t ReplayClient::Resume(const ReplayTable::Cursor& cursor) {
  const std::string reply =
      Call("resume", ByteWriter().U64(static_cast<uint64_t>(cursor.next_step)).U64(cursor.sequence).bytes());
  return static_cast<int64_t>(ByteReader(reply, "the store's answer to a resume").U64());
}

void ReplayClient::Announce(const PolicyVersion& policy) {
  Call("announce", ByteWriter().U64(static_cast<uint64_t>(policy.version)).Bytes(policy.digest).bytes());
}

void ReplayClient::Trim(int64_t step) { Call("trim", ByteWriter().U64(static_cast<uint64_t>(step)).bytes()); }

}  // namespace plumb::replay
