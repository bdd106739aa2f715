#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <set>

#include "common/base/error.h"
#include "common/net/stream/stream_frame.h"
#include "common/net/stream/transport.h"
#include "common/net/wire_loop.h"

namespace plumb {
namespace {

using TimePoint = std::chrono::steady_clock::time_point;

std::string MsSince(TimePoint then) {
  return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(
                            std::chrono::steady_clock::now() - then)
                            .count()) +
         " ms";
}

}  // namespace

class Sender::Impl {
 public:
  explicit Impl(SenderOptions options)
      : options_(std::move(options)),
        loop_(WireSocket::Kind::kDealer, options_.endpoint,
              {.max_message_bytes = options_.max_message_bytes,
               .times = options_.times,
               .client = options_.curve}) {
    loop_.Start([this] { return Turn(); }, [this](WireSocket::Incoming& in) { Take(in); },
                [this](const Error& e) { Refuse(e); });
  }
  ~Impl() {
    {
      std::lock_guard lock(mu_);
      stopping_ = true;
    }
    changed_.notify_all();
    loop_.Stop();
  }

  uint64_t Send(std::string payload, Deadline deadline, uint32_t kind, int64_t policy_version) {
    if (payload.size() > options_.max_message_bytes) {
      throw Error(ErrorCode::kInvalidArgument,
                  "a message of " + std::to_string(payload.size()) + " bytes; at most " +
                      std::to_string(options_.max_message_bytes) + " can be sent",
                  options_.endpoint);
    }
    const TimePoint begin = std::chrono::steady_clock::now();
    const size_t size = payload.size();
    StreamFrame frame;
    frame.kind = wire::StreamKind::Data;
    frame.run = options_.run;
    frame.producer = options_.producer;
    frame.epoch = options_.epoch;
    frame.message_kind = kind;
    frame.policy_version = policy_version;
    std::unique_lock lock(mu_);
    const bool room = changed_.wait_until(lock, deadline,
                                          [&] { return stopping_ || refused_ || HasCredit(size); });
    if (refused_) throw *refused_;
    if (!room || stopping_) {
      throw Error(stopping_ ? ErrorCode::kUnavailable : ErrorCode::kDeadline,
                  "no credit for a message of " + std::to_string(size) + " bytes after " +
                      MsSince(begin) + ": " + State(),
                  options_.endpoint);
    }
    const uint64_t seq = frame.seq = next_seq_++;
    Entry& entry = outbox_[seq];
    entry.frame = std::move(frame);
    entry.payload = Payload(std::move(payload));
    entry.since = begin;
    outbox_bytes_ += size;
    queue_.push_back(seq);
    lock.unlock();
    loop_.socket.Wake();
    return seq;
  }

  void WaitAcked(uint64_t seq, Deadline deadline) {
    Wait(deadline, "message " + std::to_string(seq),
         [&] { return seq < next_seq_ && !outbox_.contains(seq); });
  }
  void Flush(Deadline deadline) {
    Wait(deadline, "all messages", [&] { return outbox_.empty(); });
  }
  uint64_t unacknowledged() const {
    std::lock_guard lock(mu_);
    return outbox_.size();
  }
  SenderCounters counters() const {
    std::lock_guard lock(mu_);
    return counters_;
  }

 private:
  struct Entry {
    StreamFrame frame;
    Payload payload;
    TimePoint since;
    bool sent = false;
    uint64_t sent_beat = 0;  // the last beat before it was sent
  };

  // REQUIRES: mu_.
  uint64_t AckedBelow() const { return outbox_.empty() ? next_seq_ : outbox_.begin()->first; }
  bool HasCredit(size_t size) const {
    return outbox_.size() < credit_messages_ &&
           (outbox_.empty() || outbox_bytes_ + size <= credit_bytes_) &&
           next_seq_ - AckedBelow() < kMaxSeqSpan;
  }
  std::string State() const {
    std::string text = std::to_string(outbox_.size()) + " of " + std::to_string(credit_messages_) +
                       " messages and " + std::to_string(outbox_bytes_) + " of " +
                       std::to_string(credit_bytes_) + " bytes are unacknowledged";
    if (!outbox_.empty()) {
      text += ", the oldest (" + std::to_string(outbox_.begin()->first) + ") for " +
              MsSince(outbox_.begin()->second.since);
    }
    return text +
           (heard_ == TimePoint{}
                ? "; the receiver was never heard of"
                : "; the receiver was last heard of " + MsSince(heard_) + " ago") +
           "; the connection: " + loop_.socket.state();
  }
  template <class Condition>
  void Wait(Deadline deadline, const std::string& what, Condition condition) {
    const TimePoint begin = std::chrono::steady_clock::now();
    std::unique_lock lock(mu_);
    const bool done =
        changed_.wait_until(lock, deadline, [&] { return stopping_ || refused_ || condition(); });
    if (done && condition()) return;
    if (refused_) throw *refused_;
    throw Error(stopping_ ? ErrorCode::kUnavailable : ErrorCode::kDeadline,
                what + " of '" + options_.producer + "' not acknowledged after " + MsSince(begin) +
                    ": " + State(),
                options_.endpoint);
  }

  // For good.
  void Refuse(const Error& error) {
    std::lock_guard lock(mu_);
    refused_ = error;
    changed_.notify_all();
  }

  WireLoop::Turn Turn() {
    const TimePoint now = std::chrono::steady_clock::now();
    // libzmq has been seen to keep a connection whose byte stream was damaged; silence is what
    // tells.
    if (now - quiet_since_ > options_.times.heartbeat_timeout + options_.times.beat) Reconnect();
    if (now >= next_beat_) {
      next_beat_ = now + options_.times.beat;
      beat_due_ = true;
    }
    // The beat goes first: a receiver that does not know us yet would drop data.
    bool blocked = beat_due_ && !Beat();
    blocked |= SendQueued();
    return {.until = next_beat_, .write = blocked};
  }

  void Reconnect() {
    loop_.socket.Reconnect();
    quiet_since_ = std::chrono::steady_clock::now();
    beat_due_ = true;
    std::lock_guard lock(mu_);
    ++counters_.reconnects;
  }

  bool Beat() {
    StreamFrame frame;
    frame.kind = wire::StreamKind::Beat;
    frame.run = options_.run;
    frame.producer = options_.producer;
    frame.epoch = options_.epoch;
    frame.beat = beat_ + 1;
    {
      std::lock_guard lock(mu_);
      frame.acked_below = AckedBelow();
    }
    beat_due_ = loop_.socket.Send("", EncodeStreamFrame(frame), {}) != WireSocket::Sent::kYes;
    if (beat_due_) return false;
    ++beat_;
    return true;
  }

  // True when the socket took not all of them.
  bool SendQueued() {
    for (;;) {
      StreamFrame frame;
      Payload payload;
      {
        std::lock_guard lock(mu_);
        while (!queue_.empty() && !outbox_.contains(queue_.front())) queue_.pop_front();
        if (queue_.empty()) return false;
        const Entry& entry = outbox_.at(queue_.front());
        frame = entry.frame;
        payload = entry.payload;
      }
      if (loop_.socket.Send("", EncodeStreamFrame(frame), payload) != WireSocket::Sent::kYes)
        return true;
      std::lock_guard lock(mu_);
      queue_.pop_front();
      const auto found = outbox_.find(frame.seq);
      if (found == outbox_.end()) continue;
      Entry& entry = found->second;
      entry.sent = true;
      entry.sent_beat = beat_;
      ++entry.frame.attempt;
      ++counters_.sent;
    }
  }

  void Take(WireSocket::Incoming& in) {
    StreamFrame frame;
    try {
      if (in.problem) throw Error(ErrorCode::kCorruption, in.problem);
      frame = DecodeStreamFrame(in.header);
      if (frame.producer != options_.producer || frame.epoch != options_.epoch) {
        throw Error(ErrorCode::kCorruption, "somebody else's");
      }
    } catch (const Error&) {
      {
        std::lock_guard lock(mu_);
        ++counters_.corrupt;
      }
      Reconnect();
      return;
    }
    std::vector<uint64_t> acked;
    quiet_since_ = std::chrono::steady_clock::now();
    {
      std::lock_guard lock(mu_);
      heard_ = std::chrono::steady_clock::now();
      switch (frame.kind) {
        case wire::StreamKind::Acks:
          for (const uint64_t seq : frame.acked) Acknowledge(seq, acked);
          break;
        case wire::StreamKind::State: TakeState(frame, acked); break;
        case wire::StreamKind::Refused:
          refused_ = Error(ErrorCode::kConflict,
                           "the receiver refuses '" + options_.producer + "': " + frame.reason,
                           options_.endpoint);
          break;
        case wire::StreamKind::Beat:
        case wire::StreamKind::Data: ++counters_.corrupt; break;
      }
    }
    changed_.notify_all();
    if (options_.on_ack) {
      for (const uint64_t seq : acked) options_.on_ack(seq);
    }
  }

  // REQUIRES: mu_.
  void Acknowledge(uint64_t seq, std::vector<uint64_t>& acked) {
    const auto found = outbox_.find(seq);
    if (found == outbox_.end()) return;
    outbox_bytes_ -= found->second.payload.size();
    outbox_.erase(found);
    ++counters_.acknowledged;
    acked.push_back(seq);
  }

  // REQUIRES: mu_.
  void TakeState(const StreamFrame& frame, std::vector<uint64_t>& acked) {
    ++counters_.states;
    if (frame.receiver != receiver_) {
      receiver_ = frame.receiver;
      ++counters_.receivers;
    }
    credit_messages_ = frame.credit_messages;
    credit_bytes_ = frame.credit_bytes;
    // What was sent before the beat that this answers, and is neither acknowledged nor held there,
    // is lost.
    const std::set<uint64_t> done(frame.acked.begin(), frame.acked.end());
    const std::set<uint64_t> held(frame.pending.begin(), frame.pending.end());
    std::vector<uint64_t> arrived;
    for (auto& [seq, entry] : outbox_) {
      if (!entry.sent) continue;
      if (seq < frame.acked_below || done.contains(seq)) {
        arrived.push_back(seq);
      } else if (entry.sent_beat < frame.beat && !held.contains(seq)) {
        entry.sent = false;
        queue_.push_back(seq);
        ++counters_.resent;
      }
    }
    for (const uint64_t seq : arrived) Acknowledge(seq, acked);
  }

  const SenderOptions options_;
  mutable std::mutex mu_;
  std::condition_variable changed_;
  std::map<uint64_t, Entry> outbox_;  // guarded by mu_, as all below: what is not acknowledged
  // what is to be sent now; may hold numbers that were acknowledged meanwhile
  std::deque<uint64_t> queue_;
  size_t outbox_bytes_ = 0;
  uint64_t next_seq_ = 0;
  uint32_t credit_messages_ = 0;  // none before the receiver's first word
  uint64_t credit_bytes_ = 0;
  uint64_t receiver_ = 0;
  std::optional<Error> refused_;
  TimePoint heard_{};
  SenderCounters counters_;
  bool stopping_ = false;

  // the thread's: since the last word or new connection
  TimePoint quiet_since_ = std::chrono::steady_clock::now();
  uint64_t beat_ = 0;      // the thread's
  bool beat_due_ = true;   // the thread's: the last one could not be sent
  TimePoint next_beat_{};  // the thread's
  WireLoop loop_;
};

Sender::Sender(SenderOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Sender::~Sender() = default;
uint64_t Sender::Send(std::string payload, Deadline deadline, uint32_t kind,
                      int64_t policy_version) {
  return impl_->Send(std::move(payload), deadline, kind, policy_version);
}
void Sender::WaitAcked(uint64_t seq, Deadline deadline) { impl_->WaitAcked(seq, deadline); }
void Sender::Flush(Deadline deadline) { impl_->Flush(deadline); }
uint64_t Sender::unacknowledged() const { return impl_->unacknowledged(); }
SenderCounters Sender::counters() const { return impl_->counters(); }

}  // namespace plumb
