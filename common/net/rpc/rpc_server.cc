#include <algorithm>
#include <set>
#include <unordered_map>

#include "common/base/log.h"
#include "common/net/rpc/call_frame.h"
#include "common/net/rpc/rpc.h"
#include "common/net/wire_loop.h"

namespace plumb {
namespace {

using TimePoint = std::chrono::steady_clock::time_point;
constexpr size_t kMaxClients = 4096;
constexpr int64_t kMaxTimeoutMs = int64_t{1000} * 3600 * 24 * 365;

}  // namespace

class RpcServer::Impl {
 public:
  Impl(const std::string& endpoint, RpcHandler handler, RpcServerOptions options)
      : options_(std::move(options)),
        handler_(std::move(handler)),
        loop_(WireSocket::Kind::kRouter, endpoint,
              {.max_message_bytes = kMaxPieceBytes,
               .times = options_.times,
               .server = options_.curve}),
        done_(std::make_shared<Mailbox<Done>>(&loop_.socket)),
        work_(options_.workers, [this](Task task) { Work(std::move(task)); }) {
    PLUMB_CHECK(options_.workers > 0 && options_.piece_bytes > 0 &&
                options_.piece_bytes <= kMaxPieceBytes);
    loop_.Start([this] { return Turn(); }, [this](WireSocket::Incoming& in) { Take(in); },
                [this](const Error& e) { complaints_.Warning(e.what()); });
  }

  ~Impl() {
    work_.Close();  // handlers that run finish, and their answers still go out
    loop_.Stop();
    done_->Close();
  }

  const std::string& endpoint() const { return loop_.socket.endpoint(); }
  std::map<std::string, uint64_t> counters() const { return loop_.counters(); }

 private:
  struct Task {
    RpcRequest request;
    RpcResponder responder;
  };
  struct Done {
    std::string client;
    uint64_t id = 0;
    RpcResponder::Answer answer;
  };
  struct Call {
    RpcRequest head;  // until it is handed on
    Pieces request;
    bool done = false;
    CallFrame frame;         // of the reply
    Payload payload;         // of the reply
    std::string route;       // on which the reply went out; empty: it did not
    bool forgotten = false;  // the client does not wait any more
  };
  struct Client {
    std::string route;
    TimePoint heard;
    uint64_t beat = 0;  // the newest that was answered
    std::map<uint64_t, Call> calls;
  };

  void Count(const char* name) { loop_.Count(name); }

  // If the handler throws, this answers; the copy that the handler was given dies on the way
  // without being the last.
  void Work(Task task) {
    const std::string verb = task.request.verb;
    try {
      handler_(std::move(task.request), task.responder);
    } catch (const Error& e) {
      task.responder.Fail(e);
    } catch (const std::exception& e) {
      const Error failed(ErrorCode::kUnavailable,
                         "the handler of '" + verb + "' failed: " + e.what());
      LogError(failed.message());
      task.responder.Fail(failed);
    }
  }

  WireLoop::Turn Turn() {
    for (Done& done : done_->Take()) Finish(std::move(done));
    const TimePoint now = std::chrono::steady_clock::now();
    if (now >= next_sweep_) {
      std::erase_if(clients_, [&](const auto& c) {
        return c.second.heard + options_.forget_client_after < now;
      });
      next_sweep_ = now + options_.forget_client_after / 4;
    }
    return {.until = std::min(next_sweep_, now + std::chrono::seconds(1))};
  }

  void Take(WireSocket::Incoming& in) {
    if (in.problem) return Count(in.problem);
    CallFrame frame;
    try {
      frame = DecodeCallFrame(in.header);
    } catch (const Error&) {
      return Count("dropped_malformed");
    }
    if (frame.kind == wire::CallKind::Reply || frame.kind == wire::CallKind::Known)
      return Count("dropped_malformed");
    if (!clients_.contains(frame.client) && clients_.size() >= kMaxClients)
      return Count("dropped_overloaded");
    Client& client = clients_[frame.client];
    client.route = in.route;
    client.heard = std::chrono::steady_clock::now();
    if (frame.kind == wire::CallKind::Request)
      return TakeRequest(client, frame, std::move(in.payload));
    if (frame.kind == wire::CallKind::Outstanding) return TakeOutstanding(client, frame);
    const auto found = client.calls.find(frame.id);
    if (found == client.calls.end()) return;  // of a life before, or no longer wanted
    Call& call = found->second;
    if (frame.kind == wire::CallKind::Pull) {
      const auto piece = call.done ? PieceOf(call.payload, frame) : std::nullopt;
      if (!piece) return Count("dropped_malformed");
      frame.kind = wire::CallKind::Piece;
      Count(Send(client, frame, *piece) ? "pieces" : "reply_unroutable");
    } else if (call.request.Take(frame.offset, in.payload)) {
      Advance(client, frame, call);
    }
  }

  bool Send(const Client& client, const CallFrame& frame, const Payload& payload = {}) {
    return loop_.socket.Send(client.route, EncodeCallFrame(frame), payload) ==
           WireSocket::Sent::kYes;
  }

  void TakeRequest(Client& client, CallFrame& frame, Payload payload) {
    const auto found = client.calls.find(frame.id);
    if (found != client.calls.end()) {
      Count("repeated_requests");
      if (found->second.done) return SendReply(client, found->second);
      found->second.request.AskAgain();
      return Advance(client, frame, found->second);
    }
    if (work_.size() >= options_.max_waiting) return Count("dropped_overloaded");
    Count("requests");
    Call& call = client.calls[frame.id];
    const int64_t timeout = std::clamp<int64_t>(frame.timeout_ms, 0, kMaxTimeoutMs);
    call.head = {.verb = std::move(frame.verb),
                 .payload = {},
                 .deadline = After(std::chrono::milliseconds(timeout))};
    try {
      call.request.Begin(frame.bytes, std::move(payload));
    } catch (const Error& e) {
      RpcResponder([&](RpcResponder::Answer answer) {
        Finish({frame.client, frame.id, std::move(answer)});
      }).Fail(e);
      return;
    }
    Advance(client, frame, call);
  }

  // Hands a request on whose last piece has come, or asks for more of it.
  void Advance(Client& client, const CallFrame& frame, Call& call) {
    while (const auto pull =
               call.request.Ask(frame.client, frame.id, options_.piece_bytes, client.beat))
      Send(client, *pull);
    if (!call.request.whole() || call.head.deadline == Deadline{}) return;
    RpcRequest request = std::exchange(call.head, {});
    request.payload = call.request.Release();
    const auto post = [done = done_, client = frame.client,
                       id = frame.id](RpcResponder::Answer answer) {
      done->Post({client, id, std::move(answer)});
    };
    work_.Push({std::move(request), RpcResponder(post)});
  }

  void TakeOutstanding(Client& client, const CallFrame& frame) {
    const std::set<uint64_t> wanted(frame.ids.begin(), frame.ids.end());
    CallFrame known{.kind = wire::CallKind::Known, .client = frame.client};
    known.beat = frame.beat;
    for (auto it = client.calls.begin(); it != client.calls.end();) {
      Call& call = it->second;
      if (wanted.contains(it->first)) {
        known.ids.push_back(it->first);
        // On the connection it went out on it arrives before anything we say now; on another one it
        // may be lost.
        if (call.done && call.route != client.route) {
          Count("repeated_replies");
          SendReply(client, call);
        } else if (call.request.LostBy(frame.heard)) {
          call.request.AskAgain();
          CallFrame of{.client = frame.client, .id = it->first};
          Advance(client, of, call);
        }
      } else if (call.done || !call.request.whole()) {
        it = client.calls.erase(it);
        continue;
      } else {
        call.forgotten = true;
      }
      ++it;
    }
    if (!Send(client, known)) Count("reply_unroutable");
    client.beat = frame.beat;
  }

  void Finish(Done done) {
    const auto client = clients_.find(done.client);
    if (client == clients_.end()) return;
    const auto found = client->second.calls.find(done.id);
    if (found == client->second.calls.end() || found->second.done) return;
    Count(done.answer.error ? "errors" : "replies");
    if (found->second.forgotten) {
      client->second.calls.erase(found);
      return;
    }
    Call& call = found->second;
    call.done = true;
    call.frame = {.kind = wire::CallKind::Reply, .client = done.client, .id = done.id};
    call.frame.error = done.answer.error;
    call.frame.message = std::move(done.answer.message);
    call.frame.where = std::move(done.answer.where);
    call.frame.bytes = done.answer.payload.size();
    call.payload = std::move(done.answer.payload);
    SendReply(client->second, call);
  }

  void SendReply(Client& client, Call& call) {
    if (Send(client, call.frame, call.payload.Part(0, options_.piece_bytes))) {
      call.route = client.route;
    } else {
      call.route.clear();
      Count("reply_unroutable");
    }
  }

  const RpcServerOptions options_;
  const RpcHandler handler_;
  std::unordered_map<std::string, Client> clients_;  // the thread's
  TimePoint next_sweep_{};                           // the thread's
  LogEvery complaints_{std::chrono::seconds(5)};
  WireLoop loop_;
  const std::shared_ptr<Mailbox<Done>> done_;
  WorkQueue<Task> work_;
};

RpcServer::RpcServer(const std::string& endpoint, RpcHandler handler, RpcServerOptions options)
    : impl_(std::make_unique<Impl>(endpoint, std::move(handler), std::move(options))) {}
RpcServer::~RpcServer() = default;
const std::string& RpcServer::endpoint() const { return impl_->endpoint(); }
std::map<std::string, uint64_t> RpcServer::counters() const { return impl_->counters(); }

}  // namespace plumb
