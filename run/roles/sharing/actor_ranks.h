// Processes that compute one actor's model together (rollout.tp): the first has the actor's role
// and talks to the others of the run, the rest follow it call by call.
//
// Purpose: all ranks' engines have to be called alike (actor/engine.h, EngineShare). What the first
// rank's engine is asked is told to the others before each step, with the version of the weights; a
// new version goes from the first rank, which fetched and verified it, to a share on each.
// Thread safety: one thread. Ownership: borrows ranks and session. Errors: RankLost; kCorruption
// for a message that is none; kUnsupported for what is not shared.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "actor/engine.h"
#include "learner/ranks/rendezvous.h"
#include "learner/update/shares/rank_tensor_group.h"
#include "run/roles/roles.h"
#include "run/session/session.h"

namespace plumb::run {

class LeadingRank : public actor::EngineFollowers {
 public:
  LeadingRank(learner::Ranks& ranks, const Session& session);

  // Of this rank.
  const policy_model::ModelShape& shape() const { return share_.shape(); }
  actor::EngineShare engine_share();

  void Submitted(const actor::GenerateRequest& request) override;
  void Abandoned() override;
  const policy_model::Weights& Stepping(const policy_model::Weights& whole,
                                        int64_t version) override;
  // Between steps, often: the others hear in time that this one waits for work, and lives.
  void StillHere();
  // There are no more steps; the others end.
  void End();

 private:
  void Tell();

  learner::RankTensorGroup group_;
  const int64_t vocab_;
  policy_model::Weights share_;
  const policy_model::Weights* taken_ = nullptr;  // what the share is of; only compared
  int64_t version_ = -1;
  nlohmann::json calls_ = nlohmann::json::array();
  std::chrono::steady_clock::time_point told_{};
};

// A rank that is not the first, until the first one ends.
void FollowActor(learner::Ranks& ranks, const Session& session);

// The role of one of an actor's ranks, until the run ends; false: it was stopped before all had
// come.
bool RunActorOfRanks(const Session& session, const Endpoints& endpoints, int64_t index,
                     const learner::RankPlace& place, RunOptions options);

// As the ranks tell each other.
nlohmann::json ToJson(const actor::GenerateRequest& request);
actor::GenerateRequest RequestOf(const nlohmann::json& json);

}  // namespace plumb::run
