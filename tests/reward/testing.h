// What the tests of this folder share: groups, parts, host options.
#pragma once

#include <string>
#include <vector>

#include "reward/part/notice.h"
#include "reward/scorer.h"
#include "tests/testing/paths.h"

namespace plumb::reward {

inline TrajectoryGroup TestGroup(const std::vector<std::string>& completions,
                                 const std::string& truth = "", const std::string& extra = "",
                                 uint64_t lease = 1841) {
  TrajectoryGroup group;
  group.lease.lease_id = lease;
  group.lease.prompt.text = "What is it?";
  group.lease.prompt.ground_truth = truth;
  group.lease.prompt.extra_json = extra;
  for (const std::string& completion : completions) {
    Trajectory t;
    t.sample = static_cast<uint32_t>(group.trajectories.size());
    t.completion = completion;
    t.tokens = {1, 2, 3};
    t.segments = {{Origin::kPrompt, 0, 1}, {Origin::kPolicy, 1, 3}};
    group.trajectories.push_back(t);
  }
  return group;
}

inline configs::RewardPartConfig TestPart(const std::string& kind, const std::string& path = "",
                                          std::vector<std::string> args = {}) {
  configs::RewardPartConfig part;
  part.name = "code";
  part.kind = kind;
  part.path = path;
  part.args = std::move(args);
  // a busy machine is no failure; tests that wait for the deadline set their own
  part.timeout_s = 10;
  part.memory_mb = 512;
  return part;
}

// A sanitizer's own memory does not live under RLIMIT_AS: tests of that limit are left out there.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kMemoryLimited = false;
#else
inline constexpr bool kMemoryLimited = true;
#endif

inline HostOptions TestHost() {
  HostOptions options;
  options.host_command = {plumb::testing::BinaryPath("reward/plumb_reward_host")};
  return options;
}

inline std::string PluginPath(const std::string& name) {
  return plumb::testing::BinaryPath("tests/reward/plugins/" + name + ".so");
}

// Collects warnings while it lives.
class Notices {
 public:
  Notices() {
    former_ = SetNoticeSink([this](const std::string& line) {
      std::lock_guard lock(mu_);
      text_ += line + "\n";
    });
  }
  ~Notices() { SetNoticeSink(former_); }
  std::string text() const {
    std::lock_guard lock(mu_);
    return text_;
  }

 private:
  mutable std::mutex mu_;
  std::string text_;
  std::function<void(const std::string&)> former_;
};

}  // namespace plumb::reward
