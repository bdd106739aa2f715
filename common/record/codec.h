// Leases, prompts and preference records <-> bytes (FlatBuffers,
// common/record/schema/trajectory.fbs), for the wire and for the store.
//
// Encoding keeps every field bit for bit. Decoding trusts nothing: size, then the verifier (depth
// 16, tables bounded by the size), then logical size <= 2x wire size (shared offsets could unpack
// to gigabytes), then enums, ranges, equal lengths and finite numbers (CheckInvariants), and only
// then values reach the caller. Thread safety: pure functions. Errors: kCorruption for every byte
// that is wrong; kInvalidArgument for a record too large to encode (kMaxRecordBytes).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/record/preference.h"
#include "common/record/trajectory.h"

namespace plumb {

inline constexpr size_t kMaxRecordBytes = size_t{1} << 30;

std::string Encode(const PromptLease& lease);
std::string Encode(const Prompt& prompt);
std::string Encode(const PreferenceRecord& record);
std::string Encode(std::span<const PromptLease> leases);

// Row after row of a dataset through one buffer, with the row's number written last: what Encode
// returns is equal for rows that say the same, whatever their number. Thread safety: none.
class RowEncoder {
 public:
  RowEncoder();
  ~RowEncoder();
  // The bytes with row number 0, until the next call.
  std::string_view Encode(const Prompt& prompt);
  std::string_view Encode(const PreferenceRecord& record);
  // The same bytes with this number; equal to the free functions' Encode of such a record.
  std::string_view WithRow(uint64_t row);
  // Those bytes behind `sum`, 4 bytes little endian, without a copy. The last call before the next
  // Encode.
  std::string_view Behind(uint32_t sum);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A group as stores before December 2026 hold it, body and scores in one record; today's is
// common/record/group_body.h.
TrajectoryGroup DecodeTrajectoryGroup(std::span<const std::byte> bytes);
PromptLease DecodePromptLease(std::span<const std::byte> bytes);
Prompt DecodePrompt(std::span<const std::byte> bytes);
PreferenceRecord DecodePreferenceRecord(std::span<const std::byte> bytes);
std::vector<PromptLease> DecodePromptLeases(std::span<const std::byte> bytes);

// std::string and std::string_view as the bytes they are.
inline std::span<const std::byte> BytesOf(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace plumb
