// The one ZeroMQ socket of the house: options, keys, a bell that other threads can ring,
// reconnects. Streams (transport.h), calls (rpc.h) and frames (frame_socket.h) are built on it.
// Private to the transport target.
//
// A sealed message is a header and, where there is one, a payload, both under their sum; a plain
// one is an empty delimiter and a payload, as REP sockets of other programs expect it.
// Keys (curve_keys.h): a router with a list lets in only clients that prove a key of it, and asks
// the list again for every message; a dealer with keys talks to nobody but the holder of the
// server's key.
// Thread safety: Wake, state, AddCounters: all; the rest belongs to the one thread that polls
// (handing over before that thread starts is fine). Ownership: payloads go out without a copy and
// are held until ZeroMQ has sent them; they come in as they arrived.
// Errors: the constructor throws as CheckEndpoint, kConflict for an address in use,
// kInvalidArgument for keys that are none.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "common/base/log.h"
#include "common/net/curve_keys.h"
#include "common/net/stream/transport.h"
#include "common/record/payload.h"

namespace plumb {

struct WireOptions {
  size_t max_message_bytes = 0;  // of a payload
  SocketTimes times;
  CurveClient client = {};  // of a dealer
  CurveServer server = {};  // of a router
  bool sealed = true;
  int receive_high_water = 1000;  // messages; beyond, the peer's writes block
};

class WireSocket {
 public:
  enum class Kind { kRouter, kDealer };
  static constexpr size_t kMaxHeaderBytes = size_t{2} << 20;
  static constexpr size_t kPrefixBytes = 12;  // of a sealed header; see Seal

  // A router binds, a dealer connects.
  WireSocket(Kind kind, const std::string& endpoint, WireOptions options);
  ~WireSocket();
  WireSocket(const WireSocket&) = delete;

  const std::string& endpoint() const { return endpoint_; }  // as bound
  // What a dealer's connection is doing, as a clause: "nobody listens there", "it does not accept
  // our key", "connected".
  std::string state() const;
  // keys_accepted and keys_refused, of a router with keys.
  void AddCounters(std::map<std::string, uint64_t>& counters) const;

  struct Ready {
    bool readable = false;
    bool writable = false;
  };
  // Waits for a message (unless told not to), for room to write (if asked for), for Wake or for the
  // deadline.
  Ready Poll(std::chrono::steady_clock::time_point until, bool want_write, bool want_read = true);
  void Wake();

  struct Incoming {
    std::string route;  // of a router: whom to answer
    Payload header;     // of a sealed message
    Payload payload;    // empty when there was none
    // Null: all is well. Else the counter's name of what is wrong, dropped_malformed,
    // dropped_oversized or dropped_checksum, and nothing of the message may be used.
    const char* problem = nullptr;
  };
  // False when there is no message now.
  bool Receive(Incoming& message);

  enum class Sent { kYes, kLater, kUnroutable };
  // Never blocks. kLater (dealer): not connected or no room; kUnroutable (router): that peer is
  // gone.
  Sent Send(const std::string& route, std::string_view header, const Payload& payload);

  // A dealer gives its connection up and makes a new one: after garbage nothing on the old one can
  // be trusted. Where the system refuses one (no descriptors left), Poll tries again; until then
  // nothing comes in, what is to go out is for later, and state says why.
  void Reconnect() noexcept;

  // What stands in front of a sealed message's header: what it is, and the sums of both.
  static std::string Seal(std::string_view header, std::string_view payload);

 private:
  void Open();
  void Close() noexcept;
  void Reopen() noexcept;
  void Say(std::string state) noexcept;
  void Listen();
  void AnswerKeys();
  bool Allows(const std::string& key);
  const char* ProblemOf(std::string_view header, std::string_view payload);

  const Kind kind_;
  const WireOptions options_;
  std::string endpoint_;
  std::unique_ptr<AllowedKeys> allowed_, also_allowed_;
  void* context_ = nullptr;
  void* socket_ = nullptr;
  // A dealer's: what happens to its connection. A keyed router's: who wants to connect.
  void* side_ = nullptr;
  int bell_ = -1;
  uint64_t opened_ = 0;
  LogEvery complaints_{std::chrono::seconds(5)};
  std::atomic<uint64_t> accepted_{0}, refused_{0};
  mutable std::mutex mu_;
  std::string state_ = "connecting";  // guarded by mu_
  std::string
      other_version_;  // guarded by mu_; what the peer speaks, until it says something right
};

}  // namespace plumb
