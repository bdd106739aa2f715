// The roles of a run and the one place that decides how their ports are connected.
//
//   local      one process: ports are direct calls; the actor and the reward role are threads, and
//   under sync the actor
//              reads the learner's weights in place
//   processes  one process per role on this machine, ZeroMQ over ipc in a private folder
//
// The roles' loops (role_loops.h) are the same, over a replay::StorePort: the store's table itself,
// or its client. Thread safety: each function is called once a process. Errors: what ends a role is
// thrown; the first failure of a thread of a local run ends the run with that error.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "actor/rollout.h"
#include "common/net/curve_keys.h"
#include "learner/loop/learner_loop.h"
#include "learner/ranks/ranks.h"
#include "replay/table/step_planner.h"
#include "replay/table/table.h"
#include "run/session/session.h"

namespace plumb::run {

// What a finished run leaves behind (also summary.json).
struct RunSummary {
  learner::LearnerResult learner;
  int64_t wanted_steps = 0;
  std::map<std::string, int64_t> counters;  // of store, table, reward and actor
};

struct RunOptions {
  bool resume = false;
  bool quiet = false;                       // no progress
  const std::atomic<bool>* stop = nullptr;  // set by a signal: finish the step, checkpoint, end
  // Of the learner, as its memory was planned (run/roles/run_memory.h); not kAuto.
  configs::Recompute recompute = configs::Recompute::kNone;
  bool waits_for_checkpoints = false;
  bool newest = false;  // a resume goes on from the newest checkpoint, without its optimizer too
  // Of a learner of several ranks, or of an actor of several (rollout.tp), borrowed, and how many
  // of the learner's are on this machine.
  learner::Ranks* ranks = nullptr;
  int ranks_here = 1;
  bool first() const { return !ranks || ranks->first(); }
  bool Stopped() const { return stop != nullptr && stop->load(); }
};

// All roles in this process.
RunSummary RunLocal(const Session& session, const RunOptions& options);

// Training without rollouts, in this process (configs::IsOffline): DPO and its family, reward
// models, supervised fine-tuning. The summary of a rank that is not the first is empty.
RunSummary RunOfflineTraining(const Session& session, const RunOptions& options);

// Endpoints of a run in processes, all in one private folder.
struct Endpoints {
  std::string folder;
  std::string replay() const {
    return "ipc://" + folder + "/replay";
  }  // requests: leases, batches, counters
  std::string reward(int64_t i) const { return "ipc://" + folder + "/reward" + std::to_string(i); }
  std::string weights() const { return "ipc://" + folder + "/weights"; }  // served by the learner
};

// An actor's ends of the ring, wherever they are.
struct ActorAt {
  std::string name;
  std::string replay, weights;       // endpoints
  WeightSource* source = nullptr;    // of weights, instead of that endpoint
  std::vector<std::string> rewards;  // those of the reward workers; groups are shared out by lease
  CurveClient curve = {};            // of all of them
  uint64_t epoch = 0;                // 0: the time
  std::function<bool()> stop;
  // Processes that compute its model together, of which this is the first; nullptr: it is alone.
  learner::Ranks* ranks = nullptr;
  // After a stop: how long groups that are sent may take to be acknowledged.
  std::chrono::milliseconds flush_when_stopped{0};
  // What is counted besides, for the store.
  std::function<std::map<std::string, int64_t>()> counters = {};
};
// Generates until the run has finished (true) or `stop`; the process's threads and memory are the
// actor's.
bool RunActorAt(const Session& session, const ActorAt& at);

// One role of a run in processes; returns when the run has ended or `options.stop` is set.
void RunReplayRole(const Session& session, const Endpoints& endpoints, const RunOptions& options);
void RunRewardRole(const Session& session, const Endpoints& endpoints, int64_t index,
                   const RunOptions& options);
void RunActorRole(const Session& session, const Endpoints& endpoints, int64_t index,
                  const RunOptions& options);
RunSummary RunLearnerRole(const Session& session, const Endpoints& endpoints,
                          const RunOptions& options);
// A rank of the learner that is not the first: it has no other role to talk to, writes nothing and
// shows nothing. Of any training, until that has ended.
void RunLearnerRank(const Session& session, const RunOptions& options);

// Shared by both ways (roles.cc).
replay::PlannerOptions PlannerOptionsOf(const configs::Config& config);
replay::TableOptions TableOptionsOf(const configs::Config& config);
actor::EngineOptions EngineOptionsOf(const configs::Config& config,
                                     const policy_model::ModelShape& shape);
actor::RolloutOptions RolloutOptionsOf(const Session& session, const std::string& actor);
// Threads of products and kernels for the roles that compute side by side on this machine. The
// learner and the actors take turns under sync; under async they share what there is. run.threads >
// 0 says what each process has.
struct ThreadShares {
  int learner = 1;
  int actor = 1;  // each
};
ThreadShares ThreadSharesOf(const configs::Config& config, int ranks_here = 1);
std::chrono::milliseconds StallTime(const configs::Config& config);
// Before a run begins: the devices of its actors (rollout.device) are there, compute such a model
// and have room for it. `ranks_here`: of the learner. kUnsupported, kInvalidArgument.
void CheckActors(const Session& session, int ranks_here = 1);
// First step whose rollouts the store has to keep, when `oldest_step` is that of the oldest
// checkpoint (replay.keep_steps).
int64_t KeepFromStep(const configs::Config& config, int64_t oldest_step);
std::unique_ptr<replay::Store> OpenStore(const Session& session);
// Imports the run's prompts and puts them into its store; `note` hears the row ledgers in words,
// `rows` counts along. Returns what became of the rows (run/session/row_counts.h).
std::map<std::string, int64_t> ImportPrompts(const Session& session, replay::Store& store,
                                             const std::function<void(const std::string&)>& note,
                                             std::atomic<int64_t>* rows = nullptr);

}  // namespace plumb::run
