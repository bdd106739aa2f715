// The head of a cluster run: learner, store, and the doors that roles of other machines come in by.
//
//   listen port      Reception: welcome, files, beats            actors and reward workers
//   + 1  leases      ReplayServer: lease, renew, release, ...    actors
//   + 2  weights     WeightPublisher                             actors
//   + 3  groups      Receiver, acknowledged when durable         actors
//   + 4  scores      ReplayServer: prompts, insert; ScoringHub   reward workers
//
// Only the head listens: roles may be behind anything that lets them out. With run.relay actors
// that can be reached listen, too, and hand weights on (relay_desk.h). The loops of the roles
// are those of every run (run/roles/role_loops.h). While no reward worker is there, the head
// scores. Thread safety: called once a process. Errors: what ends the run is thrown; kDeadline
// where no actor comes within run.stall_seconds.
#pragma once

#include "run/roles/roles.h"

namespace plumb::run {

// What stands in the run's folder while its head lives: {"listen": "tcp://...", "recipe": DIGEST}.
inline constexpr char kClusterFile[] = "cluster.json";

// `insecure`: a person wants no keys beyond the loopback.
RunSummary RunClusterHead(const Session& session, const RunOptions& options, bool insecure);

}  // namespace plumb::run
