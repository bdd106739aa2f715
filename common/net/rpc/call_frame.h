// What common/net/rpc/rpc says around a payload, and the payload on its way in pieces. Private to
// the transport target.
// Thread safety: none. Errors: kCorruption from DecodeCallFrame; kUnavailable from Pieces where
// there is no memory.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/net/stream/stream_frame.h"
#include "common/record/payload.h"

namespace plumb {

namespace wire {
enum class CallKind : uint8_t {
  Request = 1,
  Reply = 2,
  Outstanding = 3,
  Known = 4,
  Pull = 5,
  Piece = 6
};
}

// A field means something for the kinds named.
struct CallFrame {
  wire::CallKind kind = wire::CallKind::Request;
  std::string client;      // random name of this life of the client
  uint64_t id = 0;         // all but Outstanding and Known
  std::string verb;        // Request
  int64_t timeout_ms = 0;  // Request: what is left of the caller's patience
  uint8_t error = 0;       // Reply: 0 or an ErrorCode
  std::string message;     // Reply with an error
  std::string where;       // Reply with an error
  uint64_t offset = 0;     // Pull, Piece: of the bytes within the payload
  uint64_t bytes = 0;      // Request, Reply: of the whole payload, which begins here; Pull: wanted
  uint64_t beat = 0;       // Outstanding; Known echoes the one it answers
  uint64_t heard = 0;      // Outstanding: the newest Known that has arrived
  std::vector<uint64_t> ids;  // Outstanding: waited for; Known: those of them that the server has

  template <class Self, class Visit>
  static void Fields(Self& f, Visit visit) {
    visit(f.kind, f.client, f.id, f.verb, f.timeout_ms, f.error, f.message, f.where, f.offset,
          f.bytes, f.beat, f.heard, f.ids);
  }
};

inline std::string EncodeCallFrame(const CallFrame& frame) { return EncodeFields(frame); }
inline CallFrame DecodeCallFrame(std::string_view bytes) {
  CallFrame frame = DecodeFields<CallFrame>(bytes, "a frame of a call");
  if (frame.kind < wire::CallKind::Request || frame.kind > wire::CallKind::Piece ||
      frame.client.size() > kMaxWireName) {
    throw Error(ErrorCode::kCorruption, "a frame of unknown kind or with a name that is too long");
  }
  return frame;
}

// A payload that arrives piece by piece: who needs it asks for the pieces, a few ahead, so that no
// more than these are on their way.
class Pieces {
 public:
  // `into`: where the bytes are to lie, exactly as many; without it one piece is kept as it
  // arrived, several are joined.
  void Begin(uint64_t bytes, Payload first, std::optional<std::span<std::byte>> into = {});
  // False, and nothing happens: not the piece that comes next.
  bool Take(uint64_t offset, std::string_view piece);

  bool begun() const { return begun_; }
  bool whole() const { return begun_ && got_ == bytes_; }
  uint64_t got() const { return got_; }
  uint64_t bytes() const { return bytes_; }

  // The Pull of the next piece, of `piece` bytes at most; nullopt: enough are on their way. `beat`:
  // see LostBy.
  std::optional<CallFrame> Ask(const std::string& client, uint64_t id, size_t piece, uint64_t beat);
  // Whether what was asked for with a beat below this one, and is not here, will not come any more.
  bool LostBy(uint64_t beat) const { return begun_ && !whole() && asked_beat_ < beat; }
  void AskAgain() { asked_ = got_; }
  Payload Release() { return std::move(payload_); }

 private:
  bool begun_ = false;
  uint64_t bytes_ = 0, got_ = 0, asked_ = 0, asked_beat_ = 0;
  std::byte* to_ = nullptr;
  Payload payload_;
};

// What answers a Pull, of `payload`; nullopt: it asks for what is not there.
std::optional<Payload> PieceOf(const Payload& payload, const CallFrame& pull);

}  // namespace plumb
