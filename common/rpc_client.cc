#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "common/call_frame.h"
#include "common/mutex.h"
#include "common/rpc.h"
#include "common/wire_socket.h"

namespace plumb {
namespace {

using TimePoint = std::chrono::steady_clock::time_point;
constexpr size_t kConfirmAtOnceBytes = size_t{64} << 10;  // larger replies are not kept by the server until the next beat

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
      : options_(options),
        endpoint_(endpoint),
        name_(RandomName()),
        socket_(WireSocket::Kind::kDealer, endpoint, options.max_message_bytes, options.times) {
    thread_ = std::thread([this] { Run(); });
  }

  ~Impl() {
    {
      MutexLock lock(mu_);
      stopping_ = true;
    }
    answered_.notify_all();
    socket_.Wake();
    thread_.join();
  }

  Payload Call(std::string_view verb, Payload payload, Deadline deadline) {
    if (payload.size() > options_.max_message_bytes) {
      throw Error(ErrorCode::kInvalidArgument,
                  "'" + std::string(verb) + "' with " + std::to_string(payload.size()) + " bytes; at most " +
                      std::to_string(options_.max_message_bytes) + " can be sent",
                  endpoint_);
    }
    const TimePoint begin = std::chrono::steady_clock::now();
    auto call = std::make_shared<Pending>();
    call->frame.client = name_;
    call->frame.verb = std::string(verb);
    call->payload = std::move(payload);
    call->deadline = deadline;
    const uint64_t id = call->frame.id = next_id_++;
    call->frame.checksum = CallChecksum(call->frame, call->payload);
    MutexLock lock(mu_);
    pending_[id] = call;
    ++counters_["calls"];
    lock.unlock();
    socket_.Wake();
    lock.lock();
    answered_.wait_until(lock, deadline,
                         [&]() PLUMB_REQUIRES(mu_) { return call->answered || stopping_; });
    pending_.erase(id);
    if (call->answered) {
      lock.unlock();
      if (call->code != 0) throw Error(static_cast<ErrorCode>(call->code), call->message, call->where);
      return std::move(call->reply);
    }
    must_beat_ = true;  // so that the server forgets it too
    if (stopping_) throw Error(ErrorCode::kUnavailable, "the client was closed while '" + call->frame.verb + "' waited", endpoint_);
    ++counters_["deadlines"];
    const TimePoint now = std::chrono::steady_clock::now();
    throw Error(ErrorCode::kDeadline,
                "no reply to '" + call->frame.verb + "' after " + std::to_string(MsBetween(begin, now)) + " ms; " +
                    (heard_ == TimePoint{} ? "the server was never heard of"
                                           : "the server was last heard of " + std::to_string(MsBetween(heard_, now)) +
                                                 " ms ago") +
                    (call->sent ? "" : "; the request was not sent"),
                endpoint_);
  }

  std::map<std::string, uint64_t> counters() const {
    MutexLock lock(mu_);
    return counters_;
  }

 private:
  struct Pending {
    CallFrame frame;
    Payload payload;
    TimePoint deadline;
    bool sent = false;       // with mu_ held, as all below
    uint64_t sent_beat = 0;  // the last beat before it was sent
    bool answered = false;
    Payload reply;
    uint8_t code = 0;
    std::string message, where;
  };

  void Run() {
    bool blocked = false;  // something waits for the socket to take it
    for (;;) {
      socket_.Poll(next_beat_, blocked);
      {
        MutexLock lock(mu_);
        if (stopping_) return;
      }
      WireSocket::Incoming in;
      while (socket_.Receive(in)) Handle(in);
      const TimePoint now = std::chrono::steady_clock::now();
      // libzmq has been seen to keep a connection whose byte stream was damaged; silence is what tells.
      if (!unconfirmed_) quiet_since_ = now;
      if (now - quiet_since_ > options_.times.heartbeat_timeout + options_.times.beat) Reconnect();
      blocked = SendRequests();
      if (now >= next_beat_ || must_beat_.load()) blocked |= !Beat(now);
    }
  }

  // True when the socket took not all of them.
  bool SendRequests() {
    std::vector<std::shared_ptr<Pending>> ready;
    {
      MutexLock lock(mu_);
      for (const auto& [id, call] : pending_) {
        if (!call->sent && !call->answered) ready.push_back(call);
      }
    }
    for (const auto& call : ready) {
      CallFrame frame = call->frame;
      frame.kind = wire::CallKind::Request;
      frame.timeout_ms = std::max<int64_t>(0, MsBetween(std::chrono::steady_clock::now(), call->deadline));
      if (socket_.Send("", EncodeCallFrame(frame), call->payload) != WireSocket::Sent::kYes) return true;
      unconfirmed_ = true;
      MutexLock lock(mu_);
      call->sent = true;
      call->sent_beat = beat_;
    }
    return false;
  }

  bool Beat(TimePoint now) {
    next_beat_ = now + options_.times.beat;
    must_beat_ = false;
    CallFrame frame;
    frame.kind = wire::CallKind::Outstanding;
    frame.client = name_;
    frame.beat = beat_ + 1;
    {
      MutexLock lock(mu_);
      for (const auto& [id, call] : pending_) {
        if (call->sent && !call->answered) frame.ids.push_back(id);
      }
    }
    if (frame.ids.empty() && !unconfirmed_) return true;  // nothing to say
    if (socket_.Send("", EncodeCallFrame(frame), {}) != WireSocket::Sent::kYes) {
      must_beat_ = true;
      return false;
    }
    ++beat_;
    unconfirmed_ = !frame.ids.empty();
    return true;
  }

  void Handle(WireSocket::Incoming& in) {
    try {
      if (!in.valid) throw Error(ErrorCode::kCorruption, "garbage");
      CallFrame frame = DecodeCallFrame(in.header);
      if (frame.client != name_) throw Error(ErrorCode::kCorruption, "somebody else's");
      quiet_since_ = std::chrono::steady_clock::now();
      if (frame.kind == wire::CallKind::Reply) return TakeReply(frame, std::move(in.payload));
      if (frame.kind == wire::CallKind::Known) return TakeKnown(frame);
      throw Error(ErrorCode::kCorruption, "not for a client");
    } catch (const Error&) {
      MutexLock lock(mu_);
      ++counters_["dropped_malformed"];
      Reconnect();
    }
  }

  void Reconnect() {
    socket_.Reconnect();
    quiet_since_ = std::chrono::steady_clock::now();
    must_beat_ = true;
  }

  void TakeReply(CallFrame& frame, Payload payload) {
    if (frame.checksum != CallChecksum(frame, payload)) {
      MutexLock lock(mu_);
      ++counters_["dropped_checksum"];
      Reconnect();  // the server repeats what it answered on a connection that is gone
      return;
    }
    unconfirmed_ = true;
    if (payload.size() > kConfirmAtOnceBytes) must_beat_ = true;
    MutexLock lock(mu_);
    heard_ = std::chrono::steady_clock::now();
    const auto found = pending_.find(frame.id);
    if (found == pending_.end() || found->second->answered) {
      ++counters_["dropped_late"];
      return;
    }
    Pending& call = *found->second;
    call.answered = true;
    call.reply = std::move(payload);
    call.code = frame.error;
    call.message = std::move(frame.message);
    call.where = std::move(frame.where);
    answered_.notify_all();
  }

  void TakeKnown(const CallFrame& frame) {
    MutexLock lock(mu_);
    heard_ = std::chrono::steady_clock::now();
    for (const auto& [id, call] : pending_) {
      if (!call->sent || call->answered || call->sent_beat >= frame.beat) continue;
      if (std::find(frame.ids.begin(), frame.ids.end(), id) != frame.ids.end()) continue;
      call->sent = false;  // it never arrived, or the server is a new one
      ++counters_["resent"];
    }
  }

  const RpcClientOptions options_;
  const std::string endpoint_;
  const std::string name_;
  WireSocket socket_;  // the thread's

  mutable Mutex mu_;
  CondVar answered_;
  std::map<uint64_t, std::shared_ptr<Pending>> pending_ PLUMB_GUARDED_BY(mu_);
  std::map<std::string, uint64_t> counters_ PLUMB_GUARDED_BY(mu_);
  bool stopping_ PLUMB_GUARDED_BY(mu_) = false;
  TimePoint heard_ PLUMB_GUARDED_BY(mu_){};

  std::atomic<uint64_t> next_id_{1};
  std::atomic<bool> must_beat_{true};
  uint64_t beat_ = 0;         // the thread's, as all below
  bool unconfirmed_ = false;  // the server may hold calls that we are done with
  TimePoint next_beat_{};
  TimePoint quiet_since_ = std::chrono::steady_clock::now();  // since the last word, or since there is one to wait for
  std::thread thread_;
};

RpcClient::RpcClient(const std::string& endpoint, RpcClientOptions options)
    : impl_(std::make_unique<Impl>(endpoint, options)) {}
RpcClient::~RpcClient() = default;

std::string RpcClient::Call(std::string_view verb, std::string_view payload, Deadline deadline) {
  return impl_->Call(verb, Payload(std::string(payload)), deadline).str();
}
Payload RpcClient::CallPayload(std::string_view verb, Payload payload, Deadline deadline) {
  return impl_->Call(verb, std::move(payload), deadline);
}
std::map<std::string, uint64_t> RpcClient::counters() const { return impl_->counters(); }

}  // namespace plumb
