// Request and reply over ZeroMQ: RpcClient (DEALER) -> RpcServer (ROUTER), with deadlines and late answers.
//
//   Client  Request{client, id, verb, timeout, checksum} + payload  ─────►  Server
//           ◄─────  Reply{id, error code, message, checksum} + payload
//           Outstanding{ids}  ─────►
//           ◄─────  Known{ids}
//
// Worker threads run the handler, which replies now or later, from any thread. What is outstanding
// goes out once a second, at reconnect and when a reply came: the server forgets what is not in the
// list and repeats what is done; the client sends again what is not known.
//
// Promise: within one life of the server a request runs once, whatever is lost on the way; a server that restarts may
// run it again: handlers are idempotent. Payloads may be as large as max_message_bytes (2 GiB by default); they are not
// copied on the way out, and once at most on the way in (Call; CallPayload not at all).
// Thread safety: all methods. The client has one thread of its own, the server one and its workers; all are joined in
// the destructors. Errors: those of endpoints (common/endpoint.h); kDeadline names the server and how long; an Error
// thrown by the handler arrives with the same code and message.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "common/error.h"
#include "common/payload.h"
#include "common/ports.h"
#include "common/transport.h"

namespace plumb {

inline constexpr size_t kMaxRpcBytes = (size_t{2} << 30) + (size_t{1} << 20);

// A connection is silent while one large message passes: the pauses allowed are those of gigabytes, not of beats.
inline constexpr SocketTimes kCallTimes{.heartbeat_interval = std::chrono::milliseconds(5000),
                                        .heartbeat_timeout = std::chrono::milliseconds(30000),
                                        .heartbeat_ttl = std::chrono::milliseconds(60000)};

struct RpcRequest {
  std::string verb;
  Payload payload;      // converts to std::string_view
  Deadline deadline{};  // when the caller stops waiting, on this process's clock
};

// The right to answer one request; movable, from any thread, also after the server is gone (then without effect).
// Destroyed without an answer: the caller gets kUnavailable.
class RpcReplier;
class RpcResponder {
 public:
  RpcResponder() = default;
  RpcResponder(RpcResponder&&) noexcept;
  RpcResponder& operator=(RpcResponder&&) noexcept;
  ~RpcResponder();

  void Reply(std::string payload);
  void Reply(Payload payload);  // the same bytes may go to many callers
  void Fail(const Error& error);

 private:
  friend class RpcServer;
  std::weak_ptr<RpcReplier> replier_;
  std::string client_;
  uint64_t id_ = 0;
  bool open_ = false;
};

using RpcHandler = std::function<void(RpcRequest request, RpcResponder responder)>;

struct RpcServerOptions {
  int workers = 4;                // threads that run handlers
  size_t max_waiting = 1024;      // requests not yet taken by a worker; more are left to be sent again
  size_t max_message_bytes = kMaxRpcBytes;
  std::chrono::milliseconds forget_client_after{60000};
  SocketTimes times = kCallTimes;
};

class RpcServer {
 public:
  RpcServer(const std::string& endpoint, RpcHandler handler, RpcServerOptions options = {});
  ~RpcServer();

  const std::string& endpoint() const;  // as bound (port * is then a number)
  // requests, replies, errors, repeated_requests, repeated_replies, dropped_malformed, dropped_oversized,
  // dropped_checksum, dropped_overloaded, reply_unroutable.
  // The destructor waits for handlers that run; what they answer still goes out.
  std::map<std::string, uint64_t> counters() const;

 private:
  class Impl;
  static RpcResponder MakeResponder(const std::shared_ptr<RpcReplier>& replier, const std::string& client, uint64_t id);
  std::unique_ptr<Impl> impl_;
};

struct RpcClientOptions {
  size_t max_message_bytes = kMaxRpcBytes;
  SocketTimes times = kCallTimes;
};

class RpcClient {
 public:
  explicit RpcClient(const std::string& endpoint, RpcClientOptions options = {});
  // Calls in progress end with kUnavailable.
  ~RpcClient();

  std::string Call(std::string_view verb, std::string_view payload, Deadline deadline);
  // Without copies.
  Payload CallPayload(std::string_view verb, Payload payload, Deadline deadline);

  std::map<std::string, uint64_t> counters() const;  // calls, resent, dropped_*, deadlines

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plumb
