#include "common/record/trajectory.h"

#include <cmath>
#include <limits>
#include <string>

#include "common/base/error.h"
#include "common/record/kept_tokens.h"

namespace plumb {
namespace {

[[noreturn]] void Broken(const std::string& what) {
  throw Error(ErrorCode::kCorruption, "trajectory is inconsistent: " + what);
}

// All bits that are set in any of part(values[0, n)). Without an early way out and in the width of
// the values such loops become vector code, as fast as the values can be loaded.
template <class T, class Part>
auto BitsOf(const std::vector<T>& values, size_t begin, size_t n, Part part) {
  const T* const from = values.data() + begin;
  decltype(part(T{})) bits = 0;
  for (size_t i = 0; i < n; ++i) bits = static_cast<decltype(bits)>(bits | part(from[i]));
  return bits;
}

// The rules of one segment's tokens at once; which of them is broken, and where, is looked for only
// if one is. Inlined into a version for every processor and one for wide registers.
__attribute__((always_inline)) inline bool TokensHold(const Trajectory& t, size_t begin, size_t n,
                                                      bool policy) {
  constexpr float kLowest = std::numeric_limits<float>::lowest();
  const float lowest = policy ? kLowest : 0;  // NaN is neither below nor above
  const int64_t version_sign = policy ? 0 : -1;
  return BitsOf(t.tokens, begin, n, [](int32_t v) { return v; }) >= 0 &&
         BitsOf(t.logprobs, begin, n,
                [&](float v) {
                  return static_cast<int32_t>(!(v <= 0.0f)) | static_cast<int32_t>(!(v >= lowest));
                }) == 0 &&
         BitsOf(t.loss_mask, begin, n, [](uint8_t v) { return v; }) <= (policy ? 1 : 0) &&
         BitsOf(t.policy_versions, begin, n, [&](int64_t v) { return v ^ version_sign; }) >= 0;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) bool TokensHoldAvx2(const Trajectory& t, size_t begin, size_t n,
                                                    bool policy) {
  return TokensHold(t, begin, n, policy);
}
#endif

bool RulesHold(const Trajectory& t, size_t begin, size_t n, bool policy) {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (has_avx2) return TokensHoldAvx2(t, begin, n, policy);
#endif
  return TokensHold(t, begin, n, policy);
}

}  // namespace

int32_t Trajectory::prompt_length() const {
  return !segments.empty() && segments.front().origin == Origin::kPrompt ? segments.front().end : 0;
}

int32_t Trajectory::completion_length() const {
  return static_cast<int32_t>(tokens.size()) - prompt_length();
}

int32_t Trajectory::policy_length() const {
  int32_t n = 0;
  for (const Segment& s : segments) n += s.origin == Origin::kPolicy ? s.end - s.begin : 0;
  return n;
}

void CheckKept(std::span<const uint8_t> kept, std::span<const int32_t> tokens,
               std::span<const Segment> segments) {
  KeptTokensReader sets(kept);
  for (const Segment& s : segments) {
    for (int32_t i = s.begin; i < s.end; ++i) {
      if (sets.done()) Broken("the kept tokens end at token " + std::to_string(i));
      const auto set = sets.Next();
      const bool drawn = s.origin == Origin::kPolicy;
      if (!(drawn ? Keeps(set, tokens[static_cast<size_t>(i)]) : KeepsEveryToken(set))) {
        Broken("token " + std::to_string(i) + " is not among those kept for it");
      }
    }
  }
  if (!sets.done()) Broken("there are more sets of kept tokens than tokens");
}

void CheckInvariants(const Trajectory& t) {
  const size_t n = t.tokens.size();
  if (t.loss_mask.size() != n)
    Broken("loss_mask has " + std::to_string(t.loss_mask.size()) + " of " + std::to_string(n));
  if (t.logprobs.size() != n)
    Broken("logprobs has " + std::to_string(t.logprobs.size()) + " of " + std::to_string(n));
  if (t.policy_versions.size() != n) {
    Broken("policy_versions has " + std::to_string(t.policy_versions.size()) + " of " +
           std::to_string(n));
  }
  int32_t at = 0;
  for (const Segment& s : t.segments) {
    if (s.begin != at || s.end < s.begin)
      Broken("segments have a hole or overlap at token " + std::to_string(at));
    if (static_cast<size_t>(s.end) > n)
      Broken("a segment ends at " + std::to_string(s.end) + " of " + std::to_string(n));
    const bool policy = s.origin == Origin::kPolicy;
    at = s.end;
    if (RulesHold(t, static_cast<size_t>(s.begin), static_cast<size_t>(s.end - s.begin), policy))
      continue;
    for (int32_t i = s.begin; i < s.end; ++i) {
      const size_t k = static_cast<size_t>(i);
      if (t.tokens[k] < 0) Broken("token " + std::to_string(i) + " is negative");
      if (!std::isfinite(t.logprobs[k]))
        Broken("log-prob of token " + std::to_string(i) + " is not finite");
      if (t.logprobs[k] > 0 || (!policy && t.logprobs[k] != 0)) {
        Broken("log-prob of token " + std::to_string(i) + " is out of place");
      }
      if (t.loss_mask[k] > 1 || (!policy && t.loss_mask[k] != 0))
        Broken("loss mask at token " + std::to_string(i));
      if (policy != (t.policy_versions[k] >= 0))
        Broken("policy version at token " + std::to_string(i));
    }
    PLUMB_CHECK(false, "a rule of tokens is broken and not found");
  }
  if (static_cast<size_t>(at) != n)
    Broken("segments end at " + std::to_string(at) + " of " + std::to_string(n));
  int32_t turn_before = -1;
  for (const Turn& turn : t.turns) {
    const bool known =
        turn.segment > turn_before && static_cast<size_t>(turn.segment) < t.segments.size();
    if (!known || t.segments[static_cast<size_t>(turn.segment)].origin != Origin::kPolicy)
      Broken("a turn is of segment " + std::to_string(turn.segment));
    if (turn.reward && !std::isfinite(*turn.reward)) Broken("a turn's reward is not finite");
    turn_before = turn.segment;
  }
  if (!t.kept.empty()) CheckKept(t.kept, t.tokens, t.segments);
  if (t.experts.there()) {
    CheckExperts(t.experts.form, t.experts.bytes);
    if (t.experts.tokens() + 1 != n)
      Broken("experts of " + std::to_string(t.experts.tokens()) + " of " + std::to_string(n) +
             " tokens");
  } else if (!t.experts.bytes.empty()) {
    Broken("experts without their form");
  }
  for (const RewardPart& part : t.rewards) {
    if (!std::isfinite(part.value) || !std::isfinite(part.weight))
      Broken("reward part '" + part.name + "' is not finite");
    if (part.index < 0) Broken("reward part '" + part.name + "' has a negative index");
    if (part.scope == RewardScope::kTrajectory) continue;
    const bool segment = part.scope == RewardScope::kSegment;
    const size_t end = segment ? t.segments.size() : n;
    if (static_cast<size_t>(part.index) >= end) {
      Broken("reward part '" + part.name + "' is of " + (segment ? "segment " : "token ") +
             std::to_string(part.index) + " of " + std::to_string(end));
    }
  }
  if (!std::isfinite(t.reward)) Broken("reward is not finite");
}

namespace {

void CheckOneForm(const TrajectoryGroup& g) {
  const ExpertForm* first = nullptr;
  for (const Trajectory& t : g.trajectories) {
    if (!t.experts.there()) continue;
    if (first && *first != t.experts.form)
      Broken("answers of one group have experts of two models");
    first = &t.experts.form;
  }
}

}  // namespace

void CheckInvariants(const TrajectoryGroup& g) {
  if (g.trajectories.size() != static_cast<size_t>(g.lease.num_samples)) {
    Broken("group of lease " + std::to_string(g.lease.lease_id) + " has " +
           std::to_string(g.trajectories.size()) + " answers instead of " +
           std::to_string(g.lease.num_samples));
  }
  for (size_t i = 0; i < g.trajectories.size(); ++i) {
    if (g.trajectories[i].sample != i) Broken("samples are not in order");
    CheckInvariants(g.trajectories[i]);
  }
  CheckOneForm(g);
}

}  // namespace plumb
