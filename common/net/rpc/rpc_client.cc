#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <random>

#include "common/net/rpc/call_frame.h"
#include "common/net/rpc/rpc.h"
#include "common/net/wire_loop.h"

namespace plumb {
namespace {

using TimePoint = std::chrono::steady_clock::time_point;
// larger replies are not kept by the server until the next beat
constexpr size_t kConfirmAtOnceBytes = size_t{64} << 10;
constexpr std::chrono::seconds kPiecePatience{30};  // for more of a reply that has begun to arrive

int64_t MsBetween(TimePoint from, TimePoint to) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(to - from).count();
}

std::string RandomName() {
  std::random_device random;
  char name[40];
  std::snprintf(name, sizeof name, "%08x%08x%08x%08x", random(), random(), random(), random());
  return name;
}

}  // namespace

class RpcClient::Impl {
 public:
  Impl(const std::string& endpoint, RpcClientOptions options)
      : options_(std::move(options)),
        endpoint_(endpoint),
        name_(RandomName()),
        loop_(WireSocket::Kind::kDealer, endpoint,
              {.max_message_bytes = kMaxPieceBytes,
               .times = options_.times,
               .client = options_.curve}) {
    PLUMB_CHECK(options_.piece_bytes > 0 && options_.piece_bytes <= kMaxPieceBytes);
    loop_.Start([this] { return Turn(); }, [this](WireSocket::Incoming& in) { Take(in); },
                [this](const Error& e) { FailAll(e); });
  }

  ~Impl() {
    Close();
    loop_.Stop();
    std::unique_lock lock(mu_);
    answered_.wait(lock, [&] { return callers_ == 0; });
  }

  Payload Call(std::string_view verb, Payload payload, Deadline deadline,
               std::optional<std::span<std::byte>> into = {}) {
    const TimePoint begin = std::chrono::steady_clock::now();
    auto call = std::make_shared<Pending>();
    call->frame.client = name_;
    call->frame.verb = std::string(verb);
    call->frame.bytes = payload.size();
    call->payload = std::move(payload);
    call->deadline = deadline;
    call->into = into;
    std::unique_lock lock(mu_);
    if (closed_) throw Closed();
    const uint64_t id = call->frame.id = next_id_++;
    pending_[id] = call;
    ++callers_;
    lock.unlock();
    loop_.Count("calls");
    loop_.socket.Wake();
    lock.lock();
    while (!call->answered && std::chrono::steady_clock::now() < call->deadline)
      answered_.wait_until(lock, call->deadline);
    pending_.erase(id);
    --callers_;
    answered_.notify_all();
    if (call->answered) {
      if (call->error) throw *call->error;
      return call->reply.Release();
    }
    must_beat_ = true;  // so that the server forgets it too
    const TimePoint now = std::chrono::steady_clock::now();
    const std::string heard =
        heard_ == TimePoint{}
            ? "the server was never heard of"
            : "the server was last heard of " + std::to_string(MsBetween(heard_, now)) + " ms ago";
    const std::string part = !call->sent ? "; the request was not sent"
                             : !call->reply.begun()
                                 ? ""
                                 : "; " + std::to_string(call->reply.got()) + " of the reply's " +
                                       std::to_string(call->reply.bytes()) + " bytes had arrived";
    loop_.Count("deadlines");
    throw Error(ErrorCode::kDeadline,
                "no reply to '" + call->frame.verb + "' after " +
                    std::to_string(MsBetween(begin, now)) + " ms; " + heard + part +
                    "; the connection: " + loop_.socket.state(),
                endpoint_);
  }

  void Close() {
    {
      std::lock_guard lock(mu_);
      closed_ = true;
    }
    FailAll(Closed());
  }

  std::map<std::string, uint64_t> counters() const { return loop_.counters(); }

 private:
  struct Pending {
    CallFrame frame;
    Payload payload;
    std::optional<std::span<std::byte>> into;
    TimePoint deadline;  // guarded by mu_, as all below
    bool sent = false;
    uint64_t sent_beat = 0;  // the last beat before it was sent
    Pieces reply;  // written while the caller waits, and under the lock: the place is the caller's
    bool answered = false;
    std::optional<Error> error;
  };

  WireLoop::Turn Turn() {
    const TimePoint now = std::chrono::steady_clock::now();
    // libzmq has been seen to keep a connection whose byte stream was damaged; silence is what
    // tells.
    if (!unconfirmed_) quiet_since_ = now;
    if (now - quiet_since_ > options_.times.heartbeat_timeout + options_.times.beat) Reconnect();
    bool blocked = SendRequests();
    if (now >= next_beat_ || must_beat_) blocked |= !Beat(now);
    return {.until = next_beat_, .write = blocked};
  }

  bool Send(const CallFrame& frame, const Payload& payload = {}) {
    return loop_.socket.Send("", EncodeCallFrame(frame), payload) == WireSocket::Sent::kYes;
  }

  void Finish(Pending& call, std::optional<Error> error = {}) {
    call.answered = true;
    call.error = std::move(error);
    answered_.notify_all();
  }

  Error Closed() const {
    return Error(ErrorCode::kUnavailable, "the client was closed while calls waited", endpoint_);
  }

  void FailAll(const Error& error) {
    std::lock_guard lock(mu_);
    for (const auto& [id, call] : pending_) {
      if (!call->answered) Finish(*call, error);
    }
  }

  // True when the socket took not all of them.
  bool SendRequests() {
    std::vector<std::shared_ptr<Pending>> ready;
    {
      std::lock_guard lock(mu_);
      for (const auto& [id, call] : pending_) {
        if (!call->sent && !call->answered) ready.push_back(call);
      }
    }
    for (const auto& call : ready) {
      CallFrame frame = call->frame;
      frame.timeout_ms =
          std::max<int64_t>(0, MsBetween(std::chrono::steady_clock::now(), call->deadline));
      if (!Send(frame, call->payload.Part(0, options_.piece_bytes))) return true;
      unconfirmed_ = true;
      std::lock_guard lock(mu_);
      call->sent = true;
      call->sent_beat = beat_;
    }
    return false;
  }

  bool Beat(TimePoint now) {
    next_beat_ = now + options_.times.beat;
    must_beat_ = false;
    CallFrame frame{.kind = wire::CallKind::Outstanding, .client = name_};
    frame.beat = beat_ + 1;
    frame.heard = known_;
    {
      std::lock_guard lock(mu_);
      for (const auto& [id, call] : pending_) {
        if (call->sent && !call->answered) frame.ids.push_back(id);
      }
    }
    if (frame.ids.empty() && !unconfirmed_) return true;  // nothing to say
    if (!Send(frame)) {
      must_beat_ = true;
      return false;
    }
    ++beat_;
    unconfirmed_ = !frame.ids.empty();
    return true;
  }

  void Take(WireSocket::Incoming& in) {
    const char* problem = in.problem;
    try {
      if (!problem) {
        CallFrame frame = DecodeCallFrame(in.header);
        if (frame.client == name_ && TakeFrame(frame, std::move(in.payload))) return;
      }
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kCorruption) throw;
    }
    loop_.Count(problem ? problem : "dropped_malformed");
    Reconnect();  // the server repeats what it answered on a connection that is gone
  }

  void Reconnect() {
    loop_.socket.Reconnect();
    quiet_since_ = std::chrono::steady_clock::now();
    must_beat_ = true;
  }

  // False: not for a client.
  bool TakeFrame(CallFrame& frame, Payload payload) {
    quiet_since_ = std::chrono::steady_clock::now();
    std::lock_guard lock(mu_);
    heard_ = quiet_since_;
    if (frame.kind == wire::CallKind::Known) {
      TakeKnown(frame);
      return true;
    }
    const auto found = pending_.find(frame.id);
    const bool waited_for = found != pending_.end() && !found->second->answered;
    if (frame.kind == wire::CallKind::Pull) {
      const auto piece = waited_for ? PieceOf(found->second->payload, frame) : std::nullopt;
      frame.kind = wire::CallKind::Piece;
      if (piece) Send(frame, *piece);  // what is lost is pulled again
      return true;
    }
    if (frame.kind != wire::CallKind::Reply && frame.kind != wire::CallKind::Piece) return false;
    unconfirmed_ = true;
    if (waited_for) TakeReply(*found->second, frame, std::move(payload));
    else loop_.Count("dropped_late");
    return true;
  }

  // REQUIRES: mu_.
  void TakeReply(Pending& call, CallFrame& frame, Payload payload) {
    if (frame.error != 0) {
      return Finish(call, Error(static_cast<ErrorCode>(frame.error), std::move(frame.message),
                                std::move(frame.where)));
    }
    if (frame.kind == wire::CallKind::Piece) {
      if (call.reply.Take(frame.offset, payload)) loop_.Count("pieces");
    } else if (!call.reply.begun()) {
      try {
        call.reply.Begin(frame.bytes, std::move(payload), call.into);
      } catch (const Error& e) {
        return Finish(
            call,
            Error(e.code(), "the reply to '" + call.frame.verb + "': " + e.message(), endpoint_));
      }
    } else {
      call.reply.AskAgain();
    }
    if (call.reply.whole()) {
      if (call.reply.bytes() > kConfirmAtOnceBytes) must_beat_ = true;
      return Finish(call);
    }
    call.deadline = std::max(call.deadline, After(kPiecePatience));
    Pull(call);
  }

  void Pull(Pending& call) {
    while (const auto pull = call.reply.Ask(name_, call.frame.id, options_.piece_bytes, beat_)) {
      unconfirmed_ = true;
      Send(*pull);
    }
  }

  // REQUIRES: mu_.
  void TakeKnown(const CallFrame& frame) {
    known_ = std::max(known_, frame.beat);
    for (const auto& [id, call] : pending_) {
      if (!call->sent || call->answered) continue;
      if (std::find(frame.ids.begin(), frame.ids.end(), id) == frame.ids.end()) {
        if (call->sent_beat >= frame.beat) continue;
        call->sent = false;  // it never arrived, or the server is a new one
        call->reply = {};
        loop_.Count("resent");
      } else if (call->reply.LostBy(frame.beat)) {
        call->reply.AskAgain();
        Pull(*call);
      }
    }
  }

  const RpcClientOptions options_;
  const std::string endpoint_;
  const std::string name_;

  std::mutex mu_;
  std::condition_variable answered_;
  std::map<uint64_t, std::shared_ptr<Pending>> pending_;  // guarded by mu_, as the next four
  bool closed_ = false;
  uint64_t next_id_ = 1;
  int callers_ = 0;
  TimePoint heard_{};

  std::atomic<bool> must_beat_{true};
  uint64_t beat_ = 0;         // the thread's, as all below
  uint64_t known_ = 0;        // the newest beat that was answered
  bool unconfirmed_ = false;  // the server may hold calls that we are done with
  TimePoint next_beat_{};
  // since the last word, or since there is one to wait for
  TimePoint quiet_since_ = std::chrono::steady_clock::now();
  WireLoop loop_;
};

RpcClient::RpcClient(const std::string& endpoint, RpcClientOptions options)
    : impl_(std::make_unique<Impl>(endpoint, std::move(options))) {}
RpcClient::~RpcClient() = default;

std::string RpcClient::Call(std::string_view verb, std::string_view payload, Deadline deadline) {
  return impl_->Call(verb, Payload(std::string(payload)), deadline).str();
}
Payload RpcClient::CallPayload(std::string_view verb, Payload payload, Deadline deadline) {
  return impl_->Call(verb, std::move(payload), deadline);
}
void RpcClient::CallInto(std::string_view verb, Payload payload, std::span<std::byte> into,
                         Deadline deadline) {
  impl_->Call(verb, std::move(payload), deadline, into);
}
void RpcClient::Close() { impl_->Close(); }
std::map<std::string, uint64_t> RpcClient::counters() const { return impl_->counters(); }

}  // namespace plumb
