#include <algorithm>
#include <deque>
#include <exception>
#include <set>
#include <thread>
#include <unordered_map>

#include "common/call_frame.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/rpc.h"
#include "common/wire_socket.h"

namespace plumb {
namespace {

using TimePoint = std::chrono::steady_clock::time_point;
constexpr size_t kMaxClients = 4096;
constexpr int64_t kMaxTimeoutMs = int64_t{1000} * 3600 * 24 * 365;

// A worker is inside a handler: if that throws, the worker answers, not the responder that dies on the way.
thread_local bool in_handler = false;

}  // namespace

// Where answers from any thread wait for the server's thread. Outlives the server in the hands of responders.
class RpcReplier {
 public:
  struct Done {
    std::string client;
    uint64_t id = 0;
    uint8_t error = 0;
    std::string message, where;
    Payload payload;
    uint32_t checksum = 0;
  };

  explicit RpcReplier(WireSocket* socket) : socket_(socket) {}

  void Post(Done done) {
    CallFrame frame;
    frame.client = done.client;
    frame.id = done.id;
    frame.error = done.error;
    done.checksum = CallChecksum(frame, done.payload);  // here, so that large replies do not hold up the server's thread
    MutexLock lock(mu_);
    if (!socket_) return;
    done_.push_back(std::move(done));
    socket_->Wake();
  }
  std::vector<Done> Take() {
    MutexLock lock(mu_);
    return std::exchange(done_, {});
  }
  void Close() {
    MutexLock lock(mu_);
    socket_ = nullptr;
  }

 private:
  Mutex mu_;
  WireSocket* socket_ PLUMB_GUARDED_BY(mu_);  // nullptr: the server is gone
  std::vector<Done> done_ PLUMB_GUARDED_BY(mu_);
};

RpcResponder::RpcResponder(RpcResponder&& other) noexcept { *this = std::move(other); }
RpcResponder& RpcResponder::operator=(RpcResponder&& other) noexcept {
  if (this == &other) return *this;
  if (open_) Fail(Error(ErrorCode::kUnavailable, "the request was dropped without an answer"));
  replier_ = std::move(other.replier_);
  client_ = std::move(other.client_);
  id_ = other.id_;
  open_ = std::exchange(other.open_, false);
  return *this;
}
RpcResponder::~RpcResponder() {
  if (!open_ || (in_handler && std::uncaught_exceptions() > 0)) return;
  Fail(Error(ErrorCode::kUnavailable, "the request was dropped without an answer"));
}
void RpcResponder::Reply(std::string payload) { Reply(Payload(std::move(payload))); }
void RpcResponder::Reply(Payload payload) {
  if (!std::exchange(open_, false)) return;
  if (auto replier = replier_.lock()) replier->Post({.client = client_, .id = id_, .payload = std::move(payload)});
}
void RpcResponder::Fail(const Error& error) {
  if (!std::exchange(open_, false)) return;
  if (auto replier = replier_.lock()) {
    replier->Post({.client = client_, .id = id_, .error = static_cast<uint8_t>(error.code()), .message = error.message(),
                   .where = error.where()});
  }
}

class RpcServer::Impl {
 public:
  Impl(const std::string& endpoint, RpcHandler handler, RpcServerOptions options)
      : options_(options),
        handler_(std::move(handler)),
        socket_(WireSocket::Kind::kRouter, endpoint, options.max_message_bytes, options.times),
        replier_(std::make_shared<RpcReplier>(&socket_)) {
    PLUMB_CHECK(options_.workers > 0);
    for (int i = 0; i < options_.workers; ++i) workers_.emplace_back([this] { Work(); });
    thread_ = std::thread([this] { Run(); });
  }

  ~Impl() {
    {
      MutexLock lock(mu_);
      closing_ = true;
    }
    work_.notify_all();
    for (std::thread& worker : workers_) worker.join();  // handlers that run finish, and their answers still go out
    {
      MutexLock lock(mu_);
      stopping_ = true;
    }
    socket_.Wake();
    thread_.join();
    replier_->Close();
  }

  const std::string& endpoint() const { return socket_.endpoint(); }
  std::map<std::string, uint64_t> counters() const {
    MutexLock lock(mu_);
    return counters_;
  }

  RpcResponder MakeResponder(const std::string& client, uint64_t id);

 private:
  struct Task {
    RpcRequest request;
    std::string client;
    uint64_t id = 0;
  };
  struct Call {
    bool done = false;
    CallFrame frame;     // of the reply
    Payload payload;     // of the reply
    std::string route;   // on which the reply went out; empty: it did not
    bool forgotten = false;  // the client does not wait any more
  };
  struct Client {
    std::string route;
    TimePoint heard;
    std::map<uint64_t, Call> calls;
  };

  void Count(const char* name) {
    MutexLock lock(mu_);
    ++counters_[name];
  }

  void Work() {
    for (;;) {
      Task task;
      {
        MutexLock lock(mu_);
        work_.wait(lock, [&]() PLUMB_REQUIRES(mu_) { return closing_ || !tasks_.empty(); });
        if (closing_) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      const std::string verb = task.request.verb;
      RpcReplier::Done failed{.client = task.client, .id = task.id};
      in_handler = true;
      try {
        handler_(std::move(task.request), MakeResponder(task.client, task.id));
        in_handler = false;
        continue;
      } catch (const Error& e) {
        failed.error = static_cast<uint8_t>(e.code());
        failed.message = e.message();
        failed.where = e.where();
      } catch (const std::exception& e) {
        failed.error = static_cast<uint8_t>(ErrorCode::kUnavailable);
        failed.message = "the handler of '" + verb + "' failed: " + e.what();
        LogError(failed.message);
      }
      in_handler = false;
      replier_->Post(std::move(failed));
    }
  }

  void Run() {
    TimePoint next_sweep = std::chrono::steady_clock::now() + options_.forget_client_after;
    for (;;) {
      socket_.Poll(std::min(next_sweep, std::chrono::steady_clock::now() + std::chrono::seconds(1)), false);
      for (RpcReplier::Done& done : replier_->Take()) Finish(std::move(done));
      {
        MutexLock lock(mu_);
        if (stopping_) return;
      }
      WireSocket::Incoming in;
      for (int n = 0; n < 256 && socket_.Receive(in); ++n) Handle(in);
      const TimePoint now = std::chrono::steady_clock::now();
      if (now >= next_sweep) {
        std::erase_if(clients_, [&](const auto& c) { return c.second.heard + options_.forget_client_after < now; });
        next_sweep = now + options_.forget_client_after / 4;
      }
    }
  }

  void Handle(WireSocket::Incoming& in) {
    if (!in.valid) return Count("dropped_malformed");
    if (in.payload.size() > options_.max_message_bytes) return Count("dropped_oversized");
    CallFrame frame;
    try {
      frame = DecodeCallFrame(in.header);
    } catch (const Error&) {
      return Count("dropped_malformed");
    }
    const bool request = frame.kind == wire::CallKind::Request;
    if (!request && frame.kind != wire::CallKind::Outstanding) return Count("dropped_malformed");
    if (request && frame.checksum != CallChecksum(frame, in.payload)) return Count("dropped_checksum");
    if (!clients_.contains(frame.client) && clients_.size() >= kMaxClients) return Count("dropped_overloaded");
    Client& client = clients_[frame.client];
    client.route = in.route;
    client.heard = std::chrono::steady_clock::now();
    if (request) TakeRequest(client, frame, std::move(in.payload));
    else TakeOutstanding(client, frame);
  }

  void TakeRequest(Client& client, CallFrame& frame, Payload payload) {
    const auto found = client.calls.find(frame.id);
    if (found != client.calls.end()) {
      Count("repeated_requests");
      if (found->second.done) SendReply(client, found->second);
      return;
    }
    {
      MutexLock lock(mu_);
      if (tasks_.size() >= options_.max_waiting) {
        ++counters_["dropped_overloaded"];
        return;
      }
      ++counters_["requests"];
      const int64_t timeout = std::clamp<int64_t>(frame.timeout_ms, 0, kMaxTimeoutMs);
      tasks_.push_back({.request = {.verb = std::move(frame.verb),
                                    .payload = std::move(payload),
                                    .deadline = After(std::chrono::milliseconds(timeout))},
                        .client = frame.client,
                        .id = frame.id});
    }
    client.calls[frame.id];
    work_.notify_one();
  }

  void TakeOutstanding(Client& client, const CallFrame& frame) {
    const std::set<uint64_t> wanted(frame.ids.begin(), frame.ids.end());
    CallFrame known;
    known.kind = wire::CallKind::Known;
    known.client = frame.client;
    known.beat = frame.beat;
    for (auto it = client.calls.begin(); it != client.calls.end();) {
      Call& call = it->second;
      if (wanted.contains(it->first)) {
        known.ids.push_back(it->first);
        // On the connection it went out on it arrives before anything we say now; on another one it may be lost.
        if (call.done && call.route != client.route) {
          Count("repeated_replies");
          SendReply(client, call);
        }
      } else if (call.done) {
        it = client.calls.erase(it);
        continue;
      } else {
        call.forgotten = true;
      }
      ++it;
    }
    if (socket_.Send(client.route, EncodeCallFrame(known), {}) != WireSocket::Sent::kYes) Count("reply_unroutable");
  }

  void Finish(RpcReplier::Done done) {
    const auto client = clients_.find(done.client);
    if (client == clients_.end()) return;
    const auto found = client->second.calls.find(done.id);
    if (found == client->second.calls.end() || found->second.done) return;
    Count(done.error ? "errors" : "replies");
    if (found->second.forgotten) {
      client->second.calls.erase(found);
      return;
    }
    Call& call = found->second;
    call.done = true;
    call.frame.kind = wire::CallKind::Reply;
    call.frame.client = done.client;
    call.frame.id = done.id;
    call.frame.error = done.error;
    call.frame.message = std::move(done.message);
    call.frame.where = std::move(done.where);
    call.frame.checksum = done.checksum;
    call.payload = std::move(done.payload);
    SendReply(client->second, call);
  }

  void SendReply(Client& client, Call& call) {
    if (socket_.Send(client.route, EncodeCallFrame(call.frame), call.payload) == WireSocket::Sent::kYes) {
      call.route = client.route;
    } else {
      call.route.clear();
      Count("reply_unroutable");
    }
  }

  const RpcServerOptions options_;
  const RpcHandler handler_;
  WireSocket socket_;                                // the thread's
  const std::shared_ptr<RpcReplier> replier_;
  std::unordered_map<std::string, Client> clients_;  // the thread's

  mutable Mutex mu_;
  CondVar work_;
  std::deque<Task> tasks_ PLUMB_GUARDED_BY(mu_);
  std::map<std::string, uint64_t> counters_ PLUMB_GUARDED_BY(mu_);
  bool closing_ PLUMB_GUARDED_BY(mu_) = false;  // workers take no more
  bool stopping_ PLUMB_GUARDED_BY(mu_) = false;
  std::vector<std::thread> workers_;
  std::thread thread_;
  friend class RpcServer;
};

RpcResponder RpcServer::Impl::MakeResponder(const std::string& client, uint64_t id) {
  return RpcServer::MakeResponder(replier_, client, id);
}

RpcResponder RpcServer::MakeResponder(const std::shared_ptr<RpcReplier>& replier, const std::string& client, uint64_t id) {
  RpcResponder responder;
  responder.replier_ = replier;
  responder.client_ = client;
  responder.id_ = id;
  responder.open_ = true;
  return responder;
}

RpcServer::RpcServer(const std::string& endpoint, RpcHandler handler, RpcServerOptions options)
    : impl_(std::make_unique<Impl>(endpoint, std::move(handler), options)) {}
RpcServer::~RpcServer() = default;
const std::string& RpcServer::endpoint() const { return impl_->endpoint(); }
std::map<std::string, uint64_t> RpcServer::counters() const { return impl_->counters(); }

}  // namespace plumb
