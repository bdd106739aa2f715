// What tests of conversations have in common: peers that answer by a script, each after a random
// while, a source of leases, and an actor that works through them.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "actor/rollout.h"
#include "common/base/rng.h"
#include "common/record/group_body.h"
#include "common/record/ports.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {

// What peers say and when: up to 8 ms later where `delays` is not 0, else at once.
template <class Event>
class LateEvents {
 public:
  explicit LateEvents(uint64_t delays) : random_(delays, 3), delays_(delays) {}

  void Say(Event event) {
    const std::chrono::milliseconds wait(delays_ == 0 ? 0 : random_.NextBelow(8));
    due_.emplace_back(After(wait), std::move(event));
  }
  // Those whose time has come; waits for one.
  std::vector<Event> Poll(Deadline deadline) {
    std::vector<Event> out;
    do {
      const auto now = std::chrono::steady_clock::now();
      for (auto at = due_.begin(); at != due_.end();) {
        if (at->first > now) {
          ++at;
          continue;
        }
        out.push_back(std::move(at->second));
        at = due_.erase(at);
      }
    } while (out.empty() && std::chrono::steady_clock::now() < deadline);
    return out;
  }
  void Forget(uint64_t episode) {
    std::erase_if(due_, [&](const auto& d) { return d.second.episode == episode; });
  }

 private:
  RandomStream random_;
  const uint64_t delays_;
  std::vector<std::pair<Deadline, Event>> due_;
};

// Hands out `count` leases of three answers, one at a time.
class Leases : public PromptSource {
 public:
  explicit Leases(int count, Purpose purpose = Purpose::kTrain) {
    for (int i = 0; i < count; ++i) {
      PromptLease lease;
      lease.lease_id = static_cast<uint64_t>(i);
      lease.purpose = purpose;
      lease.num_samples = 3;
      lease.policy_version = 0;
      lease.prompt.text = "prompt number " + std::string(1, static_cast<char>('a' + i % 26));
      queue_.push_back(lease);
    }
  }
  std::vector<PromptLease> Lease(int, Deadline) override {
    if (queue_.empty()) return {};
    PromptLease first = queue_.front();
    queue_.pop_front();
    return {first};
  }
  void Release(std::span<const PromptLease> leases) override { released += leases.size(); }
  bool Finished() override { return queue_.empty(); }
  size_t released = 0;

 private:
  std::deque<PromptLease> queue_;
};

// Works through all of `source` with the tiny model; the groups by their leases. `ended` sees the
// actor behind its last answer.
inline std::map<uint64_t, TrajectoryGroup> WorkThrough(
    PromptSource& source, const RolloutOptions& options, const ChatTemplate* chat,
    Surroundings around, const std::function<void(const Rollout&)>& ended) {
  policy_model::Weights weights = TinyWeights();
  SharedPolicy policy(
      &weights,
      [] {
        return PolicyVersion{0, "zero"};
      },
      [] { return 0; });
  const LetterTokenizer tokenizer;
  std::map<uint64_t, TrajectoryGroup> groups;
  Rollout rollout(
      TinyShape(), Device::kCpu, DType::kFloat32, options, &source, &policy, &tokenizer, chat,
      [&](const TrajectoryGroup& group) {
        CheckInvariants(group);
        groups.emplace(group.lease.lease_id, group);
        // What travels is what was made.
        EXPECT_EQ(GroupBody::Seal(group).Unpack().trajectories, group.trajectories);
      },
      around);
  int pumps = 0;
  while (rollout.Pump(After(std::chrono::milliseconds(200)))) {
    if (++pumps > 2000) {
      ADD_FAILURE() << "it does not end";
      break;
    }
  }
  ended(rollout);
  return groups;
}

}  // namespace plumb::actor
