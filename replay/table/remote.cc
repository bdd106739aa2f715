#include "replay/table/remote.h"

#include <algorithm>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#include "common/base/error.h"
#include "common/record/codec.h"
#include "replay/store/record.h"

namespace plumb::replay {
namespace {

constexpr size_t kMaxName = 4096;
constexpr size_t kMaxDigest = 128;
constexpr int kMaxLeasesAtOnce = 4096;
constexpr uint32_t kMaxGroupsAtOnce = 65'536;
constexpr size_t kPromptsBytes = size_t{64} << 20;  // one answer goes on until it is so large
// Changes come with a signal; this catches what has none (leases that run out, calls that go round
// the server).
constexpr std::chrono::milliseconds kLook{50};

// A peer's number of milliseconds as a deadline of ours; bounded, so that it cannot overflow the
// clock.
Deadline FromRemaining(uint64_t ms) {
  constexpr uint64_t kMonthMs = uint64_t{31} * 24 * 3600 * 1000;
  return After(std::chrono::milliseconds(static_cast<int64_t>(std::min(ms, kMonthMs))));
}

// What an actor needs: where there are tokens, they are the truth.
void LeaveTextsOut(PromptLease& lease) {
  Prompt& prompt = lease.prompt;
  if (lease.prompt_sum == 0 || prompt.tokens.empty()) return;
  prompt.text.clear();
  prompt.messages.clear();
  prompt.ground_truth.clear();
  prompt.extra_json.clear();
}

std::string EncodeResults(const std::vector<InsertResult>& results) {
  std::string out;
  for (const InsertResult r : results) out.push_back(static_cast<char>(r));
  return out;
}

}  // namespace

struct ReplayServer::Impl {
  // One question that waits. `poll` answers it or returns false; after `deadline` it is called with
  // late = true and has to answer.
  struct Parked {
    Deadline deadline;
    std::function<std::optional<std::string>(bool late)> poll;
    RpcResponder responder;
  };

  ReplayTable* table = nullptr;
  ReplayVerbs verbs;
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
  std::unique_ptr<RpcServer> server;  // last: its threads end first

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

  void Park(Deadline deadline, std::function<std::optional<std::string>(bool)> poll,
            RpcResponder responder) {
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
        it = TryAnswer(*it, std::chrono::steady_clock::now() >= it->deadline) ? asked.erase(it)
                                                                              : std::next(it);
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
                    "a newer process of actor '" + actor +
                        "' has taken over; this one must end (are two actors given one name?)");
      }
      anew = !first && epoch > it->second;
      it->second = epoch;
    }
    if (anew) table->ReleaseActor(actor);
  }

  void Handle(RpcRequest request, RpcResponder responder) {
    try {
      if (!verbs.only.empty() && !verbs.only.contains(request.verb)) {
        if (verbs.others) return verbs.others(std::move(request), std::move(responder));
        throw Error(ErrorCode::kUnsupported,
                    "'" + request.verb.substr(0, 40) + "' is not for this role to ask");
      }
      Dispatch(request, responder);
    } catch (const Error& e) {
      responder.Fail(e);
    } catch (const std::exception& e) {
      responder.Fail(Error(ErrorCode::kIo, e.what()));
    }
  }
  void Dispatch(const RpcRequest& request, RpcResponder& responder);

  // What each verb does with the rest of its request.
  void Insert(ByteReader& in, RpcResponder& responder);
  void Lease(ByteReader& in, RpcResponder& responder);
  void Prompts(ByteReader& in, RpcResponder& responder);
  void Next(ByteReader& in, RpcResponder& responder, bool whole);
  void Evaluate(ByteReader& in, RpcResponder& responder, bool whole);
  void Announce(ByteReader& in, RpcResponder& responder);
  void Resume(ByteReader& in, RpcResponder& responder);
  void Renew(ByteReader& in, RpcResponder& responder) {
    const std::string actor(in.Bytes(kMaxName));
    const uint64_t epoch = in.U64();
    in.ExpectEnd();
    CheckEpoch(actor, epoch);
    table->RenewActor(actor);
    responder.Reply(std::string());
  }
  void Release(ByteReader& in, RpcResponder& responder) {
    table->Release(DecodePromptLeases(BytesOf(in.Rest())));
    responder.Reply(std::string());
    Wake();
  }
  void ReleaseActor(ByteReader& in, RpcResponder& responder) {
    const std::string actor(in.Bytes(kMaxName));
    in.ExpectEnd();
    responder.Reply(ByteWriter().U32(static_cast<uint32_t>(table->ReleaseActor(actor))).Take());
    Wake();
  }
  void Finish(RpcResponder& responder) {
    table->Finish();
    responder.Reply(std::string());
    Wake();
  }
  void Report(ByteReader& in, RpcResponder& responder) {
    const std::string role(in.Bytes(kMaxName));
    const uint64_t epoch = in.U64();
    table->Report(role, epoch, ReadCounters(in));
    responder.Reply(std::string());
  }
  void Cursor(ByteReader& in, RpcResponder& responder) {
    const int64_t consumed = static_cast<int64_t>(in.U64());
    in.ExpectEnd();
    const auto cursor = table->CursorAt(consumed);
    responder.Reply(
        ByteWriter().U64(static_cast<uint64_t>(cursor.next_step)).U64(cursor.sequence).Take());
  }
  void Trim(ByteReader& in, RpcResponder& responder) {
    const int64_t step = static_cast<int64_t>(in.U64());
    in.ExpectEnd();
    table->Trim(step);
    responder.Reply(std::string());
  }
};

void ReplayServer::Impl::Insert(ByteReader& in, RpcResponder& responder) {
  table->CheckAcknowledged(in.U64());
  const uint32_t n = in.U32();
  if (n > kMaxGroupsAtOnce)
    throw Error(ErrorCode::kCorruption, "a peer claims to insert " + std::to_string(n) + " groups");
  std::vector<ScoredBody> groups;
  for (uint32_t i = 0; i < n; ++i) {
    // The request stays where it is until this has returned.
    GroupBody body = GroupBody::Open(Payload(nullptr, in.Bytes(kMaxRecordBytes)));
    const std::string key = LeaseKey(body.head().lease.purpose, body.head().lease.lease_id);
    uint32_t body_sum = 0;
    GroupScore scores = DecodeGroupScore(key, in.Bytes(kMaxRecordBytes), &body_sum);
    if (body_sum != body.sum())
      throw Error(ErrorCode::kCorruption, "scores came with another body",
                  ReadableKey("scores", key));
    groups.push_back({std::move(body), std::move(scores)});
  }
  in.ExpectEnd();
  const std::string results = EncodeResults(table->InsertMany(groups));
  responder.Reply(ByteWriter().U64(table->Acknowledged()).Take() + results);
  Wake();
}

void ReplayServer::Impl::Lease(ByteReader& in, RpcResponder& responder) {
  const std::string actor(in.Bytes(kMaxName));
  const uint64_t epoch = in.U64();
  const uint64_t number = in.U64();
  const int max = static_cast<int>(std::min<uint32_t>(in.U32(), kMaxLeasesAtOnce));
  const Deadline deadline = FromRemaining(in.U64());
  in.ExpectEnd();
  CheckEpoch(actor, epoch);
  Park(
      deadline,
      [this, actor, epoch, number, max](bool late) -> std::optional<std::string> {
        CheckEpoch(actor, epoch);  // not to a life that ended while it waited
        {
          MutexLock lock(mu);
          const auto known = answers.find(actor);
          if (known != answers.end() && known->second.epoch == epoch) {
            if (known->second.number == number) return known->second.reply;
            if (known->second.number > number)
              return Encode(std::span<const PromptLease>());  // nobody waits for this one
          }
        }
        auto leases = table->LeaseTo(actor, max, Deadline{});
        if (leases.empty() && !late && !table->Finished()) return std::nullopt;
        std::for_each(leases.begin(), leases.end(), LeaveTextsOut);
        std::string reply = Encode(std::span<const PromptLease>(leases));
        if (!leases.empty()) {
          MutexLock lock(mu);
          answers[actor] = {epoch, number, reply};
        }
        return reply;
      },
      std::move(responder));
}

// Values as the store holds them, as many as go into one answer, one at least.
void ReplayServer::Impl::Prompts(ByteReader& in, RpcResponder& responder) {
  const uint32_t n = in.U32();
  if (n > kMaxPromptsAtOnce)
    throw Error(ErrorCode::kCorruption, "a peer asks for " + std::to_string(n) + " prompts");
  ByteWriter reply;
  for (uint32_t i = 0; i < n && reply.bytes().size() < kPromptsBytes; ++i) {
    PromptRef ref;
    ref.dataset = in.Bytes(kMaxName);
    ref.row = in.U64();
    ref.sum = in.U32();
    reply.Bytes(table->PromptValue(ref));
  }
  responder.Reply(reply.Take());
}

void ReplayServer::Impl::Next(ByteReader& in, RpcResponder& responder, bool whole) {
  const int64_t step = static_cast<int64_t>(in.U64());
  const Deadline deadline = FromRemaining(in.U64());
  in.ExpectEnd();
  Park(
      deadline,
      [this, step, whole](bool late) -> std::optional<std::string> {
        if (whole) return table->TryNext(step, late);
        return table->Ready(step, late) ? std::optional<std::string>("") : std::nullopt;
      },
      std::move(responder));
}

void ReplayServer::Impl::Evaluate(ByteReader& in, RpcResponder& responder, bool whole) {
  const int64_t version = static_cast<int64_t>(in.U64());
  const int samples = static_cast<int>(in.U32());
  const Deadline deadline = FromRemaining(in.U64());
  in.ExpectEnd();
  Park(
      deadline,
      [this, version, samples, whole](bool late) -> std::optional<std::string> {
        if (whole) return table->TryEvaluate(version, samples, late);
        return table->EvaluationReady(version, samples, late) ? std::optional<std::string>("")
                                                              : std::nullopt;
      },
      std::move(responder));
}

void ReplayServer::Impl::Announce(ByteReader& in, RpcResponder& responder) {
  PolicyVersion policy;
  policy.version = static_cast<int64_t>(in.U64());
  policy.digest = std::string(in.Bytes(kMaxDigest));
  in.ExpectEnd();
  table->Announce(policy);
  responder.Reply(std::string());
}

void ReplayServer::Impl::Resume(ByteReader& in, RpcResponder& responder) {
  ReplayTable::Cursor cursor;
  cursor.next_step = static_cast<int64_t>(in.U64());
  cursor.sequence = in.U64();
  in.ExpectEnd();
  responder.Reply(ByteWriter().U64(static_cast<uint64_t>(table->Resume(cursor))).Take());
  Wake();
}

void ReplayServer::Impl::Dispatch(const RpcRequest& request, RpcResponder& responder) {
  using Handler = void (*)(Impl & self, ByteReader & in, RpcResponder & r);
  static const std::map<std::string_view, Handler> kHandlers = {
      {"insert", [](Impl& self, ByteReader& in, RpcResponder& r) { self.Insert(in, r); }},
      {"lease", [](Impl& self, ByteReader& in, RpcResponder& r) { self.Lease(in, r); }},
      {"prompts", [](Impl& self, ByteReader& in, RpcResponder& r) { self.Prompts(in, r); }},
      {kNext, [](Impl& self, ByteReader& in, RpcResponder& r) { self.Next(in, r, true); }},
      {kAwaitNext, [](Impl& self, ByteReader& in, RpcResponder& r) { self.Next(in, r, false); }},
      {kEvaluate, [](Impl& self, ByteReader& in, RpcResponder& r) { self.Evaluate(in, r, true); }},
      {kAwaitEvaluate,
       [](Impl& self, ByteReader& in, RpcResponder& r) { self.Evaluate(in, r, false); }},
      {"announce", [](Impl& self, ByteReader& in, RpcResponder& r) { self.Announce(in, r); }},
      {"resume", [](Impl& self, ByteReader& in, RpcResponder& r) { self.Resume(in, r); }},
      {"renew", [](Impl& self, ByteReader& in, RpcResponder& r) { self.Renew(in, r); }},
      {"release", [](Impl& self, ByteReader& in, RpcResponder& r) { self.Release(in, r); }},
      {"release_actor",
       [](Impl& self, ByteReader& in, RpcResponder& r) { self.ReleaseActor(in, r); }},
      {"finished",
       [](Impl& self, ByteReader&, RpcResponder& r) {
         r.Reply(std::string(1, self.table->Finished() ? '\1' : '\0'));
       }},
      {"finish", [](Impl& self, ByteReader&, RpcResponder& r) { self.Finish(r); }},
      {"counters", [](Impl& self, ByteReader&,
                      RpcResponder& r) { r.Reply(EncodeCounters(self.table->Counters())); }},
      {"report", [](Impl& self, ByteReader& in, RpcResponder& r) { self.Report(in, r); }},
      {"cursor", [](Impl& self, ByteReader& in, RpcResponder& r) { self.Cursor(in, r); }},
      {"trim", [](Impl& self, ByteReader& in, RpcResponder& r) { self.Trim(in, r); }},
  };
  const auto found = kHandlers.find(request.verb);
  if (found == kHandlers.end()) {
    throw Error(ErrorCode::kUnsupported, "the store does not know the request '" +
                                             request.verb.substr(0, 40) +
                                             "': is the peer of another version?");
  }
  ByteReader in(request.payload, "request '" + request.verb + "'");
  found->second(*this, in, responder);
}

ReplayServer::ReplayServer(ReplayTable* table, const std::string& endpoint,
                           RpcServerOptions options, ReplayVerbs verbs)
    : impl_(std::make_unique<Impl>()) {
  impl_->table = table;
  impl_->verbs = std::move(verbs);
  impl_->parker = std::thread([impl = impl_.get()] { impl->RunParker(); });
  try {
    impl_->server = std::make_unique<RpcServer>(
        endpoint,
        [impl = impl_.get()](RpcRequest request, RpcResponder responder) {
          impl->Handle(std::move(request), std::move(responder));
        },
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
  for (const auto& [name, value] : impl_->server->counters())
    counters["rpc/" + name] = static_cast<int64_t>(value);
  return counters;
}

ImportingServer::ImportingServer(const std::string& endpoint, const std::atomic<int64_t>* rows) {
  server_ = std::make_unique<RpcServer>(
      endpoint, [rows](const RpcRequest& request, RpcResponder responder) {
        const int64_t now = rows->load();
        if (request.verb == "counters") responder.Reply(EncodeCounters({{"import/rows", now}}));
        else
          responder.Fail(Error(ErrorCode::kUnavailable, "the store imports its prompts: " +
                                                            std::to_string(now) + " rows so far"));
      });
}

}  // namespace plumb::replay
