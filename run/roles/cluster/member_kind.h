// What a process that joins a cluster run can be, and the name of one.
//
// Thread safety: pure functions. Errors: kInvalidArgument for what is none.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/error.h"

namespace plumb::run {

enum class MemberKind : uint8_t { kActor, kReward };
inline constexpr std::array<MemberKind, 2> kMemberKinds = {MemberKind::kActor, MemberKind::kReward};

inline std::string NameOf(MemberKind kind) {
  return kind == MemberKind::kActor ? "actor" : "reward";
}

inline std::optional<MemberKind> FindMemberKind(std::string_view name) {
  for (const MemberKind kind : kMemberKinds) {
    if (name == NameOf(kind)) return kind;
  }
  return std::nullopt;
}

// Names stand in logs, file names and keys of the store.
inline void CheckMemberName(const std::string& name) {
  constexpr size_t kLongest = 128;
  bool fine = !name.empty() && name.size() <= kLongest && name[0] != '.';
  for (const char c : name) {
    fine = fine && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '-' || c == '_' || c == '.');
  }
  if (fine) return;
  throw Error(ErrorCode::kInvalidArgument,
              "a role's name has 1 to 128 letters, digits, '-', '_' and '.', not '" +
                  name.substr(0, kLongest) + "'",
              "--name");
}

}  // namespace plumb::run
