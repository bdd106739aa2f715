// Whole messages between Plumb and programs of others over ZeroMQ: one frame out, one frame back.
//
// Purpose: what a REP socket in any language can serve. A message is an empty delimiter and one
// payload; the payload's meaning belongs to whoever uses this (reward/doors/zmq_worker.h). Between
// Plumb's own processes use common/net/stream/transport and common/net/rpc/rpc, which promise more.
// Thread safety: FrameClient: one thread. FrameServer: construction and destruction by one thread;
// the handler runs on `workers` threads. Ownership: both own context, socket and threads.
// Errors: constructors throw as CheckEndpoint, kConflict for an address in use, kInvalidArgument
// for keys that are none.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "common/net/curve_keys.h"
#include "common/record/ports.h"

namespace plumb {

struct FrameClientOptions {
  size_t max_message_bytes = size_t{64} << 20;
  CurveClient curve;  // empty: no keys, loopback and private folders only
};

class WireSocket;

class FrameClient {
 public:
  explicit FrameClient(const std::string& endpoint, FrameClientOptions options = {});
  ~FrameClient();
  FrameClient(const FrameClient&) = delete;

  enum class Got { kMessage, kGarbage, kDeadline };
  // False: nobody took it before the deadline; State() says why.
  bool Send(std::string_view payload, Deadline deadline);
  Got Receive(std::string* payload, Deadline deadline);
  // A new connection: what was asked on the old one is never answered on this.
  void Reset();
  // What the connection is doing, as a clause: "nobody listens there", "it does not accept our
  // key", "connected".
  std::string State() const;

 private:
  std::unique_ptr<WireSocket> socket_;
};

struct FrameServerOptions {
  int workers = 1;
  size_t max_message_bytes = size_t{64} << 20;
  // requests not yet taken; beyond, nothing is read and ZeroMQ pushes back
  size_t max_waiting = 256;
  CurveServer curve;  // empty: no keys, loopback and private folders only
};

class FrameServer {
 public:
  // The handler's return value is the reply; empty: none is sent. What it throws is counted and not
  // answered. `waited`: how long the request lay here before a worker took it.
  using Handler =
      std::function<std::string(std::string_view request, std::chrono::milliseconds waited)>;
  FrameServer(const std::string& endpoint, Handler handler, FrameServerOptions options = {});
  // Waits for handlers that run; what they answer still goes out.
  ~FrameServer();
  FrameServer(const FrameServer&) = delete;

  const std::string& endpoint() const;  // as bound (port * is then a number)
  // requests, replies, malformed, failed, gone (the peer left before its reply), thread_errors;
  // with keys keys_accepted and keys_refused.
  std::map<std::string, uint64_t> counters() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plumb
