// One loop a role, whatever connects its ports: threads of one process (local_roles.cc) and
// processes (process_roles.cc) run the same.
//
// Purpose: what a reward role, an actor and a learner do from their first group to their last, and
// what they tell the store of it; and what a run begins with whose store and learner share a
// process. Thread safety: an object and a function belong to one thread, RewardLoop's line to all.
// Ownership: borrows everything it is given. Errors: what ends a role is thrown; kUnavailable,
// kDeadline and kNoSpace of the store are waited out.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "actor/rollout.h"
#include "learner/loop/learner_loop.h"
#include "policy_model/memory/weights.h"
#include "replay/store/prompt_cache.h"
#include "replay/store/store.h"
#include "replay/table/store_port.h"
#include "replay/table/table.h"
#include "reward/scorer.h"
#include "run/roles/learner_ports.h"
#include "run/roles/observer.h"
#include "run/roles/roles.h"
#include "run/roles/run_memory.h"
#include "run/roles/scoring_line.h"

namespace plumb::run {

// The options of a run whose memory is planned.
RunOptions PlannedOptions(RunOptions options, const RunMemory& memory);

// What a run begins with whose store and learner share a process, made in this order: a run that
// does not fit into memory is refused before anything of it is read.
struct RunStart {
  RunStart(const Session& session, const RunOptions& given);

  const RunMemory memory;
  const RunOptions options;                    // PlannedOptions of those given
  const std::unique_ptr<replay::Store> store;  // with the run's prompts
  Observer observer;
  replay::ReplayTable table;
  policy_model::Weights weights;
};

// Groups in, scored, and stored as soon as each is scored. The store hears of the work before it
// gets the groups.
class RewardLoop {
 public:
  // `capacity` as in ScoringOptions.
  RewardLoop(const Session& session, std::string name, replay::StorePort& store, size_t capacity);
  // As ScoringLine::Push. A group that came sealed passes through as it stands.
  bool Push(FinishedGroup& group, Deadline deadline, std::function<void()> done = {});
  ScoringLine& line() { return *line_; }
  const reward::GroupScorer& scorer() const { return scorer_; }
  void Report();
  // What was counted and how long the parts took, on one line.
  std::string Summary() const;

 private:
  const std::string name_;
  replay::StorePort& store_;
  reward::GroupScorer scorer_;
  replay::PromptCache prompts_;        // of groups that came without
  std::unique_ptr<ScoringLine> line_;  // last: its threads end first
};

struct ActorEnds {
  replay::StorePort& store;
  const Stream& stream;
  actor::Policy& policy;
  actor::GroupSink sink;
  std::function<bool()> stop;
  class LeadingRank* leading = nullptr;  // of several processes that compute the model together
  std::function<std::map<std::string, int64_t>()> counters = {};  // told to the store besides
};
// Generates until the run has finished (true), or `stop`: then the leases that are not answered are
// given back.
bool RunActorLoop(const Session& session, const std::string& name, const ActorEnds& ends);

// Warm start, steps, checkpoints, evaluations. `weights` are those of version 0 and become those of
// the end; latencies of `scorer`, where it lives in this process, are metrics. Of `around`, stop
// and patience are those of the run.
learner::LearnerResult RunLearnerLoop(const Session& session, const RunOptions& options,
                                      Observer& observer, policy_model::Weights& weights,
                                      RingAround around,
                                      const reward::GroupScorer* scorer = nullptr);

// What was trained, in the run's folder, once its steps are done and the last of them is saved.
void ShareModel(const Session& session, const learner::Checkpoints& checkpoints,
                const learner::LearnerResult& result);

// Writes what is left of a run. `counters`: of the store, with what roles have reported.
RunSummary FinishRun(const Session& session, Observer& observer, learner::LearnerResult result,
                     std::map<std::string, int64_t> counters);

}  // namespace plumb::run
