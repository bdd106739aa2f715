// The front door of a cluster's head: welcomes roles, hands them their files, hears their beats.
//
// Thread safety: all methods; handlers run on the server's threads. Ownership: owns its server;
// borrows nothing that does not outlive it. Errors: those of the address; a role that is refused
// hears why (another build, another recipe, an older life of its name) and is counted.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "common/base/mutex.h"
#include "common/net/rpc/rpc.h"
#include "configs/config.h"
#include "run/roles/cluster/roster.h"
#include "run/roles/cluster/welcome.h"

namespace plumb::run {

struct ReceptionOptions {
  std::string endpoint;
  CurveServer doors;
  configs::Config config;
  std::string recipe_digest;  // RecipeDigest of the run's recipe, its paths as that says them
  std::string run_id, model_digest;
  HeadPorts ports;
  std::chrono::milliseconds lost_after{10'000};
  // A role has gone, or a newer life has taken its place: what it held is free.
  std::function<void(const Member&)> gone;
  // What an actor hears of handing weights on (run.relay); empty: nothing.
  std::function<std::optional<RelayWord>(const std::string& name, const RelaySaying&)> relay = {};
};

class Reception {
 public:
  explicit Reception(ReceptionOptions options);

  const std::string& endpoint() const { return server_->endpoint(); }
  const std::string& recipe_digest() const { return recipe_digest_; }
  const Roster& roster() const { return roster_; }
  // Roles that were silent for too long are let go of. Some times a second.
  void Sweep();
  // From now on roles hear that the run is finished.
  void SayEnded() { ended_.store(true); }
  // joined, left, lost, fenced, refused, keys_refused.
  std::map<std::string, int64_t> counters() const;

 private:
  std::string Handle(const RpcRequest& request, RpcResponder& responder, bool* answered);
  std::string Join(std::string_view text);
  Payload File(std::string_view text);
  const RoleFiles& FilesFor(MemberKind kind) PLUMB_REQUIRES(mu_);

  const ReceptionOptions options_;
  const std::string recipe_, recipe_digest_, life_;
  Roster roster_;
  std::atomic<bool> ended_{false};
  std::atomic<int64_t> refused_{0};
  Mutex mu_;
  std::map<MemberKind, RoleFiles> files_ PLUMB_GUARDED_BY(mu_);  // once they were asked for
  std::unique_ptr<RpcServer> server_;  // last: its threads use what stands above
};

}  // namespace plumb::run
