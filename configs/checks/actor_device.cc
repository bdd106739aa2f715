#include "configs/checks/actor_device.h"

#include "common/base/error.h"
#include "configs/parallel.h"

namespace plumb::configs {
namespace {

constexpr char kEach[] = "cuda";  // a GPU for each

Device LearnerDevice(const Config& config) {
  const auto device = ParseDevice(config.run.device);
  PLUMB_CHECK(device.has_value(), "recipes are checked when they are read");
  return *device;
}

int64_t LearnersOf(const Config& config) { return ReadParallel(config.run.parallel).ranks(); }

}  // namespace

Device ActorDevice(const Config& config, int64_t learners, int64_t actor, int64_t rank) {
  const Device own = LearnerDevice(config);
  if (config.rollout.device.empty()) return own;
  if (config.rollout.device != kEach) {
    const auto named = ParseDevice(config.rollout.device);
    PLUMB_CHECK(named.has_value(), "recipes are checked when they are read");
    return named->is_cpu() ? *named : Device::Cuda(named->ordinal + static_cast<int>(rank));
  }
  // Several ranks have the GPUs of their numbers, whatever number run.device says.
  const int64_t behind = own.is_cpu() ? 0 : learners > 1 ? learners : own.ordinal + 1;
  return Device::Cuda(static_cast<int>(behind + actor * config.rollout.tp + rank));
}

Device ActorDevice(const Config& config) { return ActorDevice(config, LearnersOf(config)); }

bool ActorsApart(const Config& config, int64_t learners) {
  const Device own = LearnerDevice(config), actors = ActorDevice(config, learners);
  if (config.rollout.device.empty()) return false;
  // The learner's rank that publishes is the first, on the first GPU where there are several.
  return actors != (own.is_cuda() && learners > 1 ? Device::Cuda(0) : own);
}

bool ActorsApart(const Config& config) { return ActorsApart(config, LearnersOf(config)); }

int64_t ActorsADevice(const Config& config) {
  if (config.run.roles != Roles::kProcesses || config.rollout.device == kEach) {
    return 1;
  }
  return config.run.actors;
}

}  // namespace plumb::configs
