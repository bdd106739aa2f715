// One ZeroMQ socket with the house's settings, an own context, and a bell other threads can ring. Private to the
// transport target: sender, receiver, rpc_client, rpc_server.
//
// Thread safety: Wake: all; the rest belongs to the one thread that polls (handing over before that thread starts is fine).
// Ownership: payloads go out without a copy and are held until ZeroMQ has sent them; they come in as they arrived.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/log.h"
#include "common/payload.h"
#include "common/transport.h"

namespace plumb {

class WireSocket {
 public:
  enum class Kind { kRouter, kDealer };
  static constexpr size_t kMaxHeaderBytes = size_t{2} << 20;

  // A router binds, a dealer connects. Throws as CheckEndpoint, kConflict for an address in use.
  WireSocket(Kind kind, const std::string& endpoint, size_t max_message_bytes, const SocketTimes& times);
  ~WireSocket();
  WireSocket(const WireSocket&) = delete;

  const std::string& endpoint() const { return endpoint_; }  // as bound

  struct Ready {
    bool readable = false;
    bool writable = false;
  };
  // Waits for a message, for room to write (if asked for), for Wake or for the deadline.
  Ready Poll(std::chrono::steady_clock::time_point until, bool want_write);
  void Wake();

  struct Incoming {
    std::string route;   // of a router: whom to answer
    Payload header;      // verified against its sum; see Pack
    Payload payload;     // empty when there was none
    bool valid = false;  // false: garbage (wrong number of parts, sizes or sum); nothing of it may be used
  };
  // False when there is no message now.
  bool Receive(Incoming& message);

  enum class Sent { kYes, kLater, kUnroutable };
  // Never blocks. kLater (dealer): not connected or no room; kUnroutable (router): that peer is gone.
  Sent Send(const std::string& route, std::string_view header, const Payload& payload);

  // A dealer gives its connection up and makes a new one: after garbage nothing on the old one can be trusted. Where the system
  // refuses one (no descriptors left), Poll tries again; until then nothing comes in, and what is to go out is for later.
  void Reconnect() noexcept;

 private:
  void Open();
  void Reopen() noexcept;

  const Kind kind_;
  const size_t max_message_bytes_;
  const SocketTimes times_;
  std::string endpoint_;
  void* context_ = nullptr;
  void* socket_ = nullptr;
  int bell_ = -1;
  LogEvery refused_{std::chrono::seconds(5)};
};

}  // namespace plumb
