// Request and reply over ZeroMQ: RpcClient (DEALER) -> RpcServer (ROUTER), with deadlines, late
// answers and payloads of any size.
//
//   Client   Request{client, id, verb, timeout, bytes} + payload  ─────►  Server   worker threads
//            run the handler
//            ◄─────  Reply{id, error code, message, bytes} + payload               now or later,
//                    from any thread
//            Outstanding{ids}  ─────►  once a second, at reconnect and when a reply came: the
//                                      server forgets what is not
//            ◄─────  Known{ids}        in the list and repeats what is done; the client sends again
//                                      what is not known
//   A payload above piece_bytes comes as its first piece; who receives it asks for the rest, a few
//   pieces ahead:
//   either   Pull{id, offset, bytes}   ─────►  the other    ◄─────  Piece{id, offset} + bytes
//
// Promise: within one life of the server a request runs once, whatever is lost on the way; a server
// that restarts may run it again: handlers are idempotent. A payload has no limit but memory: what
// is on its way at once are a few pieces, and a piece that a connection took with it is asked for
// again. Payloads are not copied on the way out, and on the way in not at all where they are of one
// piece, else once, into their place.
// Thread safety: all methods. The client has one thread of its own, the server one and its workers;
// all are joined in the destructors. Errors: those of endpoints (common/net/endpoint.h); kDeadline
// names the server, how long, and what the connection was doing; an Error thrown by the handler
// arrives with the same code and message.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "common/base/error.h"
#include "common/net/stream/transport.h"
#include "common/record/payload.h"
#include "common/record/ports.h"

namespace plumb {

inline constexpr size_t kMaxPieceBytes = size_t{64} << 20;

struct RpcRequest {
  std::string verb;
  Payload payload;      // converts to std::string_view
  Deadline deadline{};  // when the caller stops waiting, on this process's clock
};

// The right to answer one request, once; from any thread, also after the server is gone (then
// without effect). All copies gone without an answer: the caller gets kUnavailable.
class RpcResponder {
 public:
  struct Answer {
    uint8_t error = 0;  // or an ErrorCode
    std::string message, where;
    Payload payload;
  };
  RpcResponder() = default;
  explicit RpcResponder(std::function<void(Answer)> post)
      : right_(std::make_shared<Right>(std::move(post))) {}

  void Reply(std::string payload) { Reply(Payload(std::move(payload))); }
  void Reply(Payload payload) {
    Give({.payload = std::move(payload)});
  }  // the same bytes may go to many callers
  void Fail(const Error& e) {
    Give({.error = static_cast<uint8_t>(e.code()), .message = e.message(), .where = e.where()});
  }

 private:
  struct Right {
    explicit Right(std::function<void(Answer)> p) : post(std::move(p)) {}
    ~Right() {
      if (open)
        post({.error = static_cast<uint8_t>(ErrorCode::kUnavailable),
              .message = "the request was dropped without an answer"});
    }
    std::function<void(Answer)> post;
    std::atomic<bool> open{true};
  };
  void Give(Answer answer) {
    if (right_ && right_->open.exchange(false)) right_->post(std::move(answer));
  }
  std::shared_ptr<Right> right_;
};

using RpcHandler = std::function<void(RpcRequest request, RpcResponder responder)>;

struct RpcServerOptions {
  int workers = 4;  // threads that run handlers
  // requests not yet taken by a worker; more are left to be sent again
  size_t max_waiting = 1024;
  size_t piece_bytes = size_t{1} << 20;  // at most kMaxPieceBytes
  std::chrono::milliseconds forget_client_after{60000};
  SocketTimes times;
  CurveServer curve = {};  // empty: no keys, loopback and private folders only
};

class RpcServer {
 public:
  RpcServer(const std::string& endpoint, RpcHandler handler, RpcServerOptions options = {});
  // Waits for handlers that run; what they answer still goes out.
  ~RpcServer();

  const std::string& endpoint() const;  // as bound (port * is then a number)
  // requests, replies, errors, pieces, repeated_requests, repeated_replies, dropped_malformed,
  // dropped_oversized, dropped_checksum, dropped_overloaded, reply_unroutable, thread_errors; with
  // keys keys_accepted and keys_refused.
  std::map<std::string, uint64_t> counters() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

struct RpcClientOptions {
  size_t piece_bytes = size_t{1} << 20;  // at most kMaxPieceBytes
  SocketTimes times;
  CurveClient curve = {};  // empty: no keys, loopback and private folders only
};

class RpcClient {
 public:
  explicit RpcClient(const std::string& endpoint, RpcClientOptions options = {});
  // Calls in progress end with kUnavailable.
  ~RpcClient();

  // The deadline is that of the reply's begin: one that has begun to arrive is waited for as long
  // as more of it comes.
  std::string Call(std::string_view verb, std::string_view payload, Deadline deadline);
  // Without copies.
  Payload CallPayload(std::string_view verb, Payload payload, Deadline deadline);
  // The reply's bytes straight to their place. kCorruption: they are more or fewer; then, as after
  // any error, some of the place may have been written.
  void CallInto(std::string_view verb, Payload payload, std::span<std::byte> into,
                Deadline deadline);

  // Calls in progress and all later ones end at once, with kUnavailable.
  void Close();

  // calls, resent, pieces, deadlines, dropped_malformed, dropped_checksum, dropped_late,
  // thread_errors.
  std::map<std::string, uint64_t> counters() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plumb
