// The frames of common/transport as a plain struct. Private to the transport target.
// Thread safety: pure functions. Errors: kCorruption from DecodeStreamFrame.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "common/error.h"
#include "common/schema/control_generated.h"

namespace plumb {

constexpr uint64_t kMaxSeqSpan = 65536;  // how far a producer may run ahead of its oldest unacknowledged message

// Fields as in common/schema/control.fbs.
struct StreamFrame {
  wire::StreamKind kind = wire::StreamKind::Beat;
  std::string run;
  std::string producer;
  uint64_t epoch = 0;
  uint64_t seq = 0;
  uint32_t attempt = 0;
  uint32_t message_kind = 0;
  int64_t policy_version = -1;
  uint32_t checksum = 0;
  uint64_t acked_below = 0;
  uint64_t beat = 0;
  uint64_t receiver = 0;
  uint32_t credit_messages = 0;
  uint64_t credit_bytes = 0;
  std::vector<uint64_t> acked;
  std::vector<uint64_t> pending;
  std::string reason;
};

std::string EncodeStreamFrame(const StreamFrame& frame);
StreamFrame DecodeStreamFrame(std::string_view bytes);

// The checksum covers a payload together with the fields that say whose it is: a payload that
// arrives under the header of another message does not pass.
uint32_t StreamChecksum(const StreamFrame& frame, std::string_view payload);

// Verifies `bytes` as the FlatBuffer `Table` with `tag`; copies them to an aligned place first. Errors: kCorruption.
template <class Table, class Use>
auto WithVerifiedFrame(std::string_view bytes, const char* tag, Use use) {
  const auto refuse = [&] { throw Error(ErrorCode::kCorruption, "a frame that is not one of " + std::string(tag)); };
  if (bytes.size() < 16) refuse();
  std::vector<uint64_t> aligned(bytes.size() / 8 + 1);
  std::memcpy(aligned.data(), bytes.data(), bytes.size());
  const uint8_t* data = reinterpret_cast<const uint8_t*>(aligned.data());
  flatbuffers::Verifier verifier(data, bytes.size(), /*max_depth=*/4, /*max_tables=*/4);
  if (!verifier.VerifyBuffer<Table>(tag)) refuse();
  return use(flatbuffers::GetRoot<Table>(data));
}

inline std::string TextOf(const flatbuffers::String* s) { return s ? std::string(s->data(), s->size()) : std::string(); }
inline std::vector<uint64_t> NumbersOf(const flatbuffers::Vector<uint64_t>* v) {
  // The verifier holds a vector's length to its alignment, not its numbers: copied as bytes.
  std::vector<uint64_t> out(v ? v->size() : 0);
  if (!out.empty()) std::memcpy(out.data(), v->Data(), out.size() * sizeof(uint64_t));
  return out;
}

}  // namespace plumb
