// The bytes in which weights travel from learner to actors: verbs `weights.newest` and `weights.fetch`.
//
//   fetch request   int64 than | int64 wait_ms                      (16 bytes; the server holds it up to wait_ms)
//   newest request  (empty)
//   reply           int64 version | uint32 n | n bytes of digest | the flat buffer (nothing for `newest`)
//
// All numbers little-endian. Version -1 (and nothing after the empty digest): no version yet, or none newer in time.
// Goals: no copy of the buffer while decoding. Non-goals: compression, partial updates.
// Thread safety: pure functions. Errors: kCorruption for bytes that do not say what their header promises.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "common/trajectory.h"

namespace plumb::weight_wire {

inline constexpr char kNewestVerb[] = "weights.newest";
inline constexpr char kFetchVerb[] = "weights.fetch";
inline constexpr uint32_t kMaxDigestBytes = 128;

struct FetchRequest {
  int64_t than = -1;     // a version greater than this is wanted
  int64_t wait_ms = 0;   // how long the server may hold the request
  bool operator==(const FetchRequest&) const = default;
};

struct Reply {
  PolicyVersion version;
  std::span<const std::byte> flat;  // view into the decoded bytes
};

std::string EncodeFetchRequest(const FetchRequest& request);
FetchRequest DecodeFetchRequest(std::string_view bytes);

// Throws kInvalidArgument for a digest longer than kMaxDigestBytes.
std::string EncodeReply(const PolicyVersion& version, std::span<const std::byte> flat);
// The view is valid as long as `bytes`.
Reply DecodeReply(std::string_view bytes);

}  // namespace plumb::weight_wire
