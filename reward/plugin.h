// A reward from a shared object (reward/reward_abi.h), run in host processes of ours.
//
// Purpose: kind = "plugin". The service never loads the object: `plumb reward-host --so PATH` does, behind the walls
// of reward/sandbox.h. Frames on descriptors 3 and 4, layout in reward/plugin_wire.h.
// Thread safety, errors: as RewardFunction. Construction starts one host so that a missing symbol, another ABI
// version or a refused open is an Error before the run begins.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "configs/config.h"
#include "reward/child_process.h"
#include "reward/reward.h"
#include "reward/worker_pool.h"

namespace plumb::reward {

struct HostOptions {
  std::vector<std::string> host_command;  // empty: /proc/self/exe reward-host
  SandboxOptions sandbox;                 // memory_mb and allow_unsandboxed come from the recipe
  PoolOptions pool;                       // name, workers and timeout come from the recipe
};

std::unique_ptr<RewardFunction> MakePlugin(const configs::RewardPartConfig& part, bool allow_unsandboxed,
                                           HostOptions options = {});

}  // namespace plumb::reward
