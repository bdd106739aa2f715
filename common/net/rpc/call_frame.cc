#include "common/net/rpc/call_frame.h"

#include <algorithm>
#include <new>

#include "common/net/rpc/rpc.h"

namespace plumb {
namespace {
constexpr uint64_t kAhead = 8;  // pieces on their way at once
}  // namespace

void Pieces::Begin(uint64_t bytes, Payload first, std::optional<std::span<std::byte>> into) {
  if (into) {
    if (bytes != into->size()) {
      throw Error(ErrorCode::kCorruption, "has " + std::to_string(bytes) +
                                              " bytes, there is room for exactly " +
                                              std::to_string(into->size()));
    }
    to_ = into->data();
  } else if (first.size() == bytes) {
    payload_ = first;
  } else {
    try {
      if (bytes > PTRDIFF_MAX) throw std::bad_alloc();
      const std::shared_ptr<std::byte[]> memory(
          new std::byte[bytes]);  // the pages come with the pieces
      to_ = memory.get();
      payload_ = Payload(memory, {reinterpret_cast<const char*>(to_), bytes});
    } catch (const std::bad_alloc&) {
      throw Error(ErrorCode::kUnavailable,
                  "no memory for a message of " + std::to_string(bytes) + " bytes");
    }
  }
  begun_ = true;
  bytes_ = bytes;
  if (to_) Take(0, first);
  else got_ = asked_ = bytes;
}

bool Pieces::Take(uint64_t offset, std::string_view piece) {
  if (!begun_ || offset != got_ || piece.size() > bytes_ - got_) return false;
  if (!piece.empty()) std::memcpy(to_ + got_, piece.data(), piece.size());
  got_ += piece.size();
  asked_ = std::max(asked_, got_);
  return true;
}

std::optional<CallFrame> Pieces::Ask(const std::string& client, uint64_t id, size_t piece,
                                     uint64_t beat) {
  if (!begun_ || asked_ == bytes_ || asked_ - got_ >= kAhead * piece) return std::nullopt;
  CallFrame pull{.kind = wire::CallKind::Pull, .client = client, .id = id};
  pull.offset = asked_;
  pull.bytes = std::min<uint64_t>(piece, bytes_ - asked_);
  asked_ += pull.bytes;
  asked_beat_ = beat;
  return pull;
}

std::optional<Payload> PieceOf(const Payload& payload, const CallFrame& pull) {
  if (pull.bytes > kMaxPieceBytes || pull.offset > payload.size() ||
      pull.bytes > payload.size() - pull.offset)
    return std::nullopt;
  return payload.Part(pull.offset, pull.bytes);
}

}  // namespace plumb
