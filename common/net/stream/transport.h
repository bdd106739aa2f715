// A reliable one-way stream of messages: Sender (DEALER) -> Receiver (ROUTER) over ZeroMQ.
//
//   Sender   Beat{acked_below, next}  ─────────►  Receiver      once a second, and after every
//            reconnect
//            ◄─────────  State{credit, acked, pending}          what it grants and what it holds
//            Data{seq, attempt} + payload  ─────────►           verified, deduplicated, handed to
//                                          the handler
//            ◄─────────  Acks{seqs}                             once the handler's Ack is completed
//
// Promise: a message is forgotten by the sender only when it was acknowledged, and acknowledged
// only when whoever handled it said so (durable). Lost messages, acknowledgements and connections
// are made good by the next State; a receiver that restarts remembers nothing and gets everything
// unacknowledged again: at least once, exactly once with the key of the payload. Within one life of
// the receiver (producer, epoch, seq) is delivered once.
// Epochs fence: once a higher epoch of a producer was seen, lower ones are refused.
// Memory: at most credit_messages and credit_bytes unacknowledged a producer (one message may
// exceed the bytes).
// Thread safety: all methods. Each object has one thread of its own, joined in the destructor.
// Errors: kInvalidArgument and kUnsupported for endpoints (common/net/endpoint.h), kConflict for an
// address in use, kDeadline for waits, with whom it waited for and for how long.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "common/net/curve_keys.h"
#include "common/record/payload.h"
#include "common/record/ports.h"

namespace plumb {

struct SocketTimes {
  std::chrono::milliseconds beat{1000};                // application beats
  std::chrono::milliseconds heartbeat_interval{1000};  // of the connection
  std::chrono::milliseconds heartbeat_timeout{3000};
  std::chrono::milliseconds heartbeat_ttl{5000};
  std::chrono::milliseconds handshake{3000};
  std::chrono::milliseconds reconnect{20};  // first try; doubles up to a second
};

struct SenderOptions {
  std::string endpoint;
  std::string run;       // receivers of another run refuse us
  std::string producer;  // name, unique within the run
  uint64_t epoch = 0;    // larger with every start of this producer, e.g. nanoseconds since 1970
  size_t max_message_bytes = size_t{256} << 20;
  SocketTimes times;
  CurveClient curve = {};  // empty: no keys, loopback and private folders only
  // From the sender's thread, once a message, after it was acknowledged. Must be quick. What it
  // throws, as anything that goes wrong on that thread, is thrown by the next call.
  std::function<void(uint64_t seq)> on_ack;
};

struct SenderCounters {
  uint64_t sent = 0, acknowledged = 0, resent = 0, states = 0, receivers = 0, corrupt = 0,
           reconnects = 0;
};

class Sender {
 public:
  explicit Sender(SenderOptions options);
  // Ends at once; what was not acknowledged stays so (Flush before).
  ~Sender();

  // Waits for credit up to the deadline and hands the message to the sender's thread; returns its
  // number (from 0). kInvalidArgument: too large; kDeadline: no credit; kConflict: refused for good
  // (fenced, another run).
  uint64_t Send(std::string payload, Deadline deadline, uint32_t kind = 0,
                int64_t policy_version = -1);
  // Until message `seq` is acknowledged.
  void WaitAcked(uint64_t seq, Deadline deadline);
  // Until all are acknowledged.
  void Flush(Deadline deadline);

  uint64_t unacknowledged() const;
  SenderCounters counters() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

struct TransportMessage {
  std::string run;
  std::string producer;
  uint64_t epoch = 0;
  uint64_t seq = 0;
  uint32_t attempt = 0;  // 0: the first time this sender sent it
  uint32_t kind = 0;
  int64_t policy_version = -1;
  Payload payload;
};

// The right to acknowledge one message; from any thread, also after the Receiver is gone (then
// without effect). Gone without Complete: the message counts as not handled and will be delivered
// again.
class Ack {
 public:
  Ack() = default;
  explicit Ack(std::function<void(bool handled)> settle)
      : right_(std::make_shared<Right>(std::move(settle))) {}
  void Complete() {
    if (right_) std::exchange(right_->settle, [](bool) {})(true);
  }

 private:
  struct Right {
    explicit Right(std::function<void(bool)> s) : settle(std::move(s)) {}
    ~Right() { settle(false); }
    std::function<void(bool)> settle;
  };
  std::shared_ptr<Right> right_;
};
using MessageHandler = std::function<void(TransportMessage message, Ack ack)>;

struct ReceiverOptions {
  std::string endpoint;  // bound; port * takes a free one
  std::string run;
  uint32_t credit_messages = 64;                // a producer
  uint64_t credit_bytes = uint64_t{256} << 20;  // a producer
  size_t max_message_bytes = size_t{256} << 20;
  size_t max_producers = 1024;
  SocketTimes times;
  CurveServer curve = {};  // empty: no keys, loopback and private folders only
};

class Receiver {
 public:
  // The handler is called from the receiver's thread and should hand the message on; an exception
  // counts as not handled.
  Receiver(ReceiverOptions options, MessageHandler handler);
  ~Receiver();

  const std::string& endpoint() const;  // as bound
  // delivered, acknowledged, abandoned, handler_errors, thread_errors, with keys keys_accepted and
  // keys_refused, and drops by reason: dropped_malformed, dropped_oversized, dropped_checksum,
  // dropped_run, dropped_fenced, dropped_no_beat, dropped_duplicate, dropped_window,
  // dropped_producers, reply_unroutable.
  std::map<std::string, uint64_t> counters() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plumb
