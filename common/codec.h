// Records of common/trajectory.h <-> FlatBuffers bytes (common/schema/trajectory.fbs).
//
// Purpose: everything that leaves a process goes through here. Decoding checks, in this order: size, FlatBuffers verifier
// (depth and table limits), logical size <= 2 x wire size (shared offsets cannot unpack a bomb), enums and ranges, equal
// lengths and finite numbers (CheckInvariants). Round trips are exact, bit for bit.
// Thread safety: pure functions. Errors: kCorruption for bytes that are not what they say.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/trajectory.h"

namespace plumb {

inline constexpr size_t kMaxRecordBytes = size_t{1} << 30;

std::string Encode(const Prompt& prompt);
std::string Encode(const PromptLease& lease);
std::string Encode(const TrajectoryGroup& group);
std::string Encode(std::span<const PromptLease> leases);
std::string Encode(std::span<const TrajectoryGroup> groups);

Prompt DecodePrompt(std::span<const std::byte> bytes);
PromptLease DecodeLease(std::span<const std::byte> bytes);
// A group without trajectories is a dropped one and passes.
TrajectoryGroup DecodeGroup(std::span<const std::byte> bytes);
std::vector<PromptLease> DecodeLeases(std::span<const std::byte> bytes);
std::vector<TrajectoryGroup> DecodeGroups(std::span<const std::byte> bytes);

inline std::span<const std::byte> AsBytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace plumb
