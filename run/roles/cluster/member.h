// A process that joins a cluster run as one of its roles, for as long as the run goes on.
//
// Purpose: asks the head for recipe, files and doors, works in a temporary folder of its own, says
// that it is there, and leaves in order on SIGTERM. A head that is away is waited for: its calls
// are tried again, and after its restart the role joins anew, with the recipe that it then has.
// Thread safety: one call a process. Ownership: its folder is gone when it returns. Errors: a
// refusal of the head (another build, another recipe, a newer role of the same name, a key that it
// does not know) is thrown as it was said; kUnavailable for a head that stayed away.
#pragma once

#include <atomic>
#include <chrono>
#include <string>
#include <vector>

#include "common/net/curve_keys.h"
#include "run/roles/cluster/member_kind.h"

namespace plumb::run {

struct MemberOptions {
  MemberKind kind = MemberKind::kActor;
  std::string join;  // tcp://host:port of the head
  std::string name;
  CurveClient keys;
  std::string recipe;  // digest of the only recipe to work for; empty: any
  // Options of this machine, section.key=value: run.threads, run.device, run.memory_gb,
  // rollout.max_batch, rollout.kv_budget_mb.
  std::vector<std::string> overrides;
  std::string work;  // where its folder is made
  // Where an actor listens to hand weights on (run.relay): tcp://address:port; empty: at its
  // address on the way to the head; "none": nowhere.
  std::string hands_on;
  std::chrono::milliseconds patience{300'000};  // for a head that is away
  const std::atomic<bool>* stop = nullptr;
};

// True: the run has finished. False: it was stopped.
bool RunMember(const MemberOptions& options);

// Where a role's folder is made when nobody says: not in /tmp, which reward code cannot see.
std::string DefaultWorkFolder();

}  // namespace plumb::run
