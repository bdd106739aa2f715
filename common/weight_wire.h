// The bytes in which weights travel from learner to actors: verbs `weights.newest`, `weights.fetch` and `weights.part`.
//
//   newest request  (empty) -> offer
//   fetch request   i64 held version | u32 n | n bytes of held digest | i64 wait_ms
//                   -> offer of something else than what is held, which the server awaits for up to
//                   wait_ms
//   offer           i64 version | u32 n | n bytes of digest | u64 bytes of the flat buffer
//   part request    i64 version | u32 n | n bytes of digest | u64 offset | u64 bytes
//                   -> these bytes of the flat buffer, raw; kNotFound: no longer at hand, fetch
//                   again
//
// All numbers little-endian. Version -1 (with no digest and 0 bytes): no version yet, or nothing else in time.
// Goals: messages of a bounded size whatever the model's. Non-goals: compression, partial updates.
// Thread safety: pure functions. Errors: kCorruption for bytes that do not say what their header promises.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/trajectory.h"

namespace plumb::weight_wire {

inline constexpr char kNewestVerb[] = "weights.newest";
inline constexpr char kFetchVerb[] = "weights.fetch";
inline constexpr char kPartVerb[] = "weights.part";
inline constexpr uint32_t kMaxDigestBytes = 128;
inline constexpr uint64_t kPartBytes = uint64_t{64} << 20;  // asked for at once; a server gives no more

struct FetchRequest {
  PolicyVersion held;    // something else is wanted
  int64_t wait_ms = 0;   // how long the server may hold the request
  bool operator==(const FetchRequest&) const = default;
};

struct Offer {
  PolicyVersion version;
  uint64_t bytes = 0;
  bool operator==(const Offer&) const = default;
};

struct PartRequest {
  PolicyVersion version;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  bool operator==(const PartRequest&) const = default;
};

// Encoding throws kInvalidArgument for a digest longer than kMaxDigestBytes.
std::string EncodeFetchRequest(const FetchRequest& request);
FetchRequest DecodeFetchRequest(std::string_view bytes);
std::string EncodeOffer(const Offer& offer);
Offer DecodeOffer(std::string_view bytes);
std::string EncodePartRequest(const PartRequest& request);
PartRequest DecodePartRequest(std::string_view bytes);

}  // namespace plumb::weight_wire
