#include "common/record/body_turns.h"

#include <cmath>
#include <string>
#include <vector>

namespace plumb {
namespace {

constexpr int kRewarded = 1, kCalled = 2, kFailedCall = 4;  // BodyTurn.flags: stored

}  // namespace

flatbuffers::Offset<flatbuffers::Vector<const wire::BodyTurn*>> AddTurns(
    flatbuffers::FlatBufferBuilder& builder, const Trajectory& t) {
  if (t.turns.empty()) return {};
  std::vector<wire::BodyTurn> turns;
  for (const Turn& turn : t.turns) {
    const int flags = (turn.reward ? kRewarded : 0) | (turn.called ? kCalled : 0) |
                      (turn.failed_call ? kFailedCall : 0);
    turns.emplace_back(turn.reward.value_or(0), static_cast<uint32_t>(turn.segment),
                       static_cast<uint8_t>(flags));
  }
  return builder.CreateVectorOfStructs(turns);
}

Problem TurnsProblem(const wire::BodyAnswer& a, std::span<const Segment> segments,
                     uint32_t before) {
  int64_t last = -1;
  for (const wire::BodyTurn* turn : *a.turns()) {
    const int64_t segment = int64_t{turn->segment()} - before;
    if (segment <= last || segment >= std::ssize(segments) ||
        segments[static_cast<size_t>(segment)].origin != Origin::kPolicy)
      return "a turn is of segment " + std::to_string(turn->segment());
    if (!std::isfinite(turn->reward())) return "a turn's reward is not finite";
    last = segment;
  }
  return std::nullopt;
}

void ReadTurns(const wire::BodyAnswer& a, Trajectory& t) {
  if (a.turns() == nullptr) return;
  for (const wire::BodyTurn* turn : *a.turns()) {
    const bool rewarded = (turn->flags() & kRewarded) != 0;
    t.turns.push_back({.segment = static_cast<int32_t>(turn->segment()),
                       .reward = rewarded ? std::optional<double>(turn->reward()) : std::nullopt,
                       .called = (turn->flags() & kCalled) != 0,
                       .failed_call = (turn->flags() & kFailedCall) != 0});
  }
}

}  // namespace plumb
