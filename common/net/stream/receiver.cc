#include <random>
#include <set>
#include <unordered_map>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/net/stream/stream_frame.h"
#include "common/net/stream/transport.h"
#include "common/net/wire_loop.h"

namespace plumb {
namespace {

uint64_t RandomNumber() {
  std::random_device random;
  return (uint64_t{random()} << 32 | random()) | 1;
}

}  // namespace

class Receiver::Impl {
 public:
  Impl(ReceiverOptions options, MessageHandler handler)
      : options_(std::move(options)),
        handler_(std::move(handler)),
        life_(RandomNumber()),
        loop_(WireSocket::Kind::kRouter, options_.endpoint,
              {.max_message_bytes = options_.max_message_bytes,
               .times = options_.times,
               .server = options_.curve}),
        settled_(std::make_shared<Mailbox<Settled>>(&loop_.socket)) {
    loop_.Start([this] { return Turn(); }, [this](WireSocket::Incoming& in) { Take(in); },
                [this](const Error& e) { complaints_.Warning(e.what()); });
  }
  ~Impl() {
    loop_.Stop();
    settled_->Close();
  }

  const std::string& endpoint() const { return loop_.socket.endpoint(); }
  std::map<std::string, uint64_t> counters() const { return loop_.counters(); }

 private:
  struct Settled {
    std::string producer;
    uint64_t epoch;
    uint64_t seq;
    bool handled;
  };
  struct Producer {
    uint64_t epoch = 0;
    std::string route;  // where it was last heard
    uint64_t acked_below = 0;
    std::set<uint64_t> acked;            // above acked_below
    std::map<uint64_t, size_t> pending;  // with the handler: number -> bytes
    size_t pending_bytes = 0;
    std::vector<uint64_t> to_say;  // acknowledgements not yet sent
  };

  void Count(const char* name) { loop_.Count(name); }

  WireLoop::Turn Turn() {
    for (const Settled& s : settled_->Take()) TakeSettled(s);
    SayAcks();
    return {.until = After(std::chrono::seconds(1))};
  }

  void Take(WireSocket::Incoming& in) {
    if (in.problem) return Count(in.problem);
    StreamFrame frame;
    try {
      frame = DecodeStreamFrame(in.header);
    } catch (const Error&) {
      return Count("dropped_malformed");
    }
    if (frame.kind != wire::StreamKind::Beat && frame.kind != wire::StreamKind::Data)
      return Count("dropped_malformed");
    if (frame.run != options_.run) {
      Count("dropped_run");
      return Refuse(in.route, frame,
                    "it belongs to run '" + frame.run + "', this is '" + options_.run + "'");
    }
    const auto found = producers_.find(frame.producer);
    if (found != producers_.end() && frame.epoch < found->second.epoch) {
      Count("dropped_fenced");
      return Refuse(in.route, frame,
                    "epoch " + std::to_string(frame.epoch) + " was replaced by epoch " +
                        std::to_string(found->second.epoch));
    }
    if (frame.kind == wire::StreamKind::Beat) return TakeBeat(in.route, frame);
    // Data of somebody we have not met: its next beat says from where on we are responsible.
    if (found == producers_.end() || found->second.epoch != frame.epoch)
      return Count("dropped_no_beat");
    TakeData(in, frame, found->second);
  }

  void TakeBeat(const std::string& route, const StreamFrame& beat) {
    auto found = producers_.find(beat.producer);
    if (found == producers_.end()) {
      if (producers_.size() >= options_.max_producers) return Count("dropped_producers");
      found = producers_.emplace(beat.producer, Producer{}).first;
      found->second.epoch = beat.epoch;
      found->second.acked_below = beat.acked_below;
    } else if (beat.epoch > found->second.epoch) {
      found->second = Producer{.epoch = beat.epoch, .acked_below = beat.acked_below};
    }
    Producer& producer = found->second;
    producer.route = route;
    producer.to_say.clear();  // the state says them all
    StreamFrame state;
    state.kind = wire::StreamKind::State;
    state.producer = beat.producer;
    state.epoch = producer.epoch;
    state.acked_below = producer.acked_below;
    state.beat = beat.beat;
    state.receiver = life_;
    state.credit_messages = options_.credit_messages;
    state.credit_bytes = options_.credit_bytes;
    state.acked.assign(producer.acked.begin(), producer.acked.end());
    for (const auto& [seq, bytes] : producer.pending) state.pending.push_back(seq);
    Say(route, state);
  }

  void TakeData(WireSocket::Incoming& in, const StreamFrame& frame, Producer& producer) {
    producer.route = in.route;
    const uint64_t seq = frame.seq;
    if (seq < producer.acked_below || producer.acked.contains(seq)) {
      producer.to_say.push_back(seq);  // the acknowledgement was lost
      return Count("dropped_duplicate");
    }
    if (producer.pending.contains(seq)) return Count("dropped_duplicate");
    const size_t bytes = in.payload.size();
    if (producer.pending.size() >= options_.credit_messages ||
        seq - producer.acked_below >= kMaxSeqSpan ||
        (!producer.pending.empty() && producer.pending_bytes + bytes > options_.credit_bytes)) {
      return Count("dropped_window");
    }
    producer.pending[seq] = bytes;
    producer.pending_bytes += bytes;
    Count("delivered");
    TransportMessage message{.run = frame.run,
                             .producer = frame.producer,
                             .epoch = frame.epoch,
                             .seq = seq,
                             .attempt = frame.attempt,
                             .kind = frame.message_kind,
                             .policy_version = frame.policy_version,
                             .payload = std::move(in.payload)};
    Ack ack(
        [settled = settled_, producer = frame.producer, epoch = frame.epoch, seq](bool handled) {
          settled->Post({producer, epoch, seq, handled});
        });
    try {
      handler_(std::move(message), std::move(ack));
    } catch (const std::exception& e) {
      Count("handler_errors");
      complaints_.Warning("message " + std::to_string(seq) + " of '" + frame.producer +
                          "' was not handled: " + e.what());
    }
  }

  void TakeSettled(const Settled& s) {
    const auto found = producers_.find(s.producer);
    // of a life that was replaced
    if (found == producers_.end() || found->second.epoch != s.epoch) return;
    Producer& producer = found->second;
    const auto pending = producer.pending.find(s.seq);
    if (pending == producer.pending.end()) return;
    producer.pending_bytes -= pending->second;
    producer.pending.erase(pending);
    if (!s.handled) return Count("abandoned");
    Count("acknowledged");
    producer.acked.insert(s.seq);
    while (producer.acked.erase(producer.acked_below)) ++producer.acked_below;
    producer.to_say.push_back(s.seq);
  }

  void SayAcks() {
    for (auto& [name, producer] : producers_) {
      if (producer.to_say.empty()) continue;
      StreamFrame acks;
      acks.kind = wire::StreamKind::Acks;
      acks.producer = name;
      acks.epoch = producer.epoch;
      acks.acked = std::move(producer.to_say);
      producer.to_say.clear();
      Say(producer.route, acks);  // if that is lost, the answer to the next beat says it again
    }
  }

  void Refuse(const std::string& route, const StreamFrame& frame, std::string reason) {
    StreamFrame refused;
    refused.kind = wire::StreamKind::Refused;
    refused.producer = frame.producer;
    refused.epoch = frame.epoch;
    refused.reason = std::move(reason);
    Say(route, refused);
  }

  void Say(const std::string& route, const StreamFrame& frame) {
    if (loop_.socket.Send(route, EncodeStreamFrame(frame), {}) != WireSocket::Sent::kYes)
      Count("reply_unroutable");
  }

  const ReceiverOptions options_;
  const MessageHandler handler_;
  const uint64_t life_;  // tells a sender that this receiver remembers nothing of an earlier one
  std::unordered_map<std::string, Producer> producers_;  // the thread's
  LogEvery complaints_{std::chrono::seconds(5)};
  WireLoop loop_;
  const std::shared_ptr<Mailbox<Settled>> settled_;
};

Receiver::Receiver(ReceiverOptions options, MessageHandler handler)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(handler))) {}
Receiver::~Receiver() = default;
const std::string& Receiver::endpoint() const { return impl_->endpoint(); }
std::map<std::string, uint64_t> Receiver::counters() const { return impl_->counters(); }

}  // namespace plumb
