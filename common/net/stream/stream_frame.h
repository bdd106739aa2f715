// What common/net/stream/transport says around a payload. Private to the transport target.
// Thread safety: pure functions. Errors: kCorruption from DecodeStreamFrame.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/net/wire_fields.h"

namespace plumb {

// how far a producer may run ahead of its oldest unacknowledged message
constexpr uint64_t kMaxSeqSpan = 65536;
constexpr size_t kMaxWireName = 256;

namespace wire {
enum class StreamKind : uint8_t { Beat = 1, Data = 2, State = 3, Acks = 4, Refused = 5 };
}

// A field means something for the kinds named.
struct StreamFrame {
  wire::StreamKind kind = wire::StreamKind::Beat;
  std::string run;                // Beat, Data
  std::string producer;           // all
  uint64_t epoch = 0;             // all
  uint64_t seq = 0;               // Data
  uint32_t attempt = 0;           // Data
  uint32_t message_kind = 0;      // Data: the application's
  int64_t policy_version = -1;    // Data
  uint64_t acked_below = 0;       // Beat, State: everything below is acknowledged
  uint64_t beat = 0;              // Beat; State echoes the one it answers
  uint64_t receiver = 0;          // State: random number of this life of the receiver
  uint32_t credit_messages = 0;   // State
  uint64_t credit_bytes = 0;      // State
  std::vector<uint64_t> acked;    // State: acknowledged above acked_below; Acks: acknowledged
  std::vector<uint64_t> pending;  // State: received, not yet acknowledged
  std::string reason;             // Refused

  template <class Self, class Visit>
  static void Fields(Self& f, Visit visit) {
    visit(f.kind, f.run, f.producer, f.epoch, f.seq, f.attempt, f.message_kind, f.policy_version,
          f.acked_below, f.beat, f.receiver, f.credit_messages, f.credit_bytes, f.acked, f.pending,
          f.reason);
  }
};

inline std::string EncodeStreamFrame(const StreamFrame& frame) { return EncodeFields(frame); }
inline StreamFrame DecodeStreamFrame(std::string_view bytes) {
  StreamFrame frame = DecodeFields<StreamFrame>(bytes, "a frame of a stream");
  if (frame.kind < wire::StreamKind::Beat || frame.kind > wire::StreamKind::Refused ||
      frame.run.size() > kMaxWireName || frame.producer.size() > kMaxWireName) {
    throw Error(ErrorCode::kCorruption, "a frame of unknown kind or with names that are too long");
  }
  return frame;
}

}  // namespace plumb
