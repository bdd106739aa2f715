// A rank of the learner that is not the first (RunLearnerRank).
#include "common/base/log.h"
#include "policy_model/memory/threads.h"
#include "run/roles/observer.h"
#include "run/roles/ranked_ports.h"
#include "run/roles/roles.h"
#include "run/roles/run_memory.h"
#include "run/session/demonstration_data.h"
#include "run/session/interrupt.h"

namespace plumb::run {

void RunLearnerRank(const Session& session, const RunOptions& given) {
  PLUMB_CHECK(given.ranks && !given.first(), "the first rank has a role of its own");
  NowBusy(Busy::kInOrder);
  LogInfo("rank " + std::to_string(given.ranks->rank()) + " of " +
          std::to_string(given.ranks->size()));
  configs::Config config = session.config();
  if (configs::IsOffline(config)) {
    RunOfflineTraining(session, given);
  } else {
    const RunMemory memory = PlanRun(session);
    config.optimizer.recompute = memory.recompute;
    policy_model::UseThreads(ThreadSharesOf(config, given.ranks_here).learner);
    WithPlan(memory, [&] {
      policy_model::Weights weights = MakeWeights(session);
      const DemonstrationData demonstrations = LoadDemonstrations(session);
      learner::Checkpoints checkpoints(session.folder().checkpoints(), config.run.keep_checkpoints,
                                       session.tokenizer_source(), config.model.path);
      RankedBatches batches(*given.ranks, nullptr, nullptr);
      learner::LearnerHooks hooks;
      hooks.stop = [&] { return given.Stopped(); };
      hooks.phase = [](const std::string& line) { LogInfo(line); };
      learner::LearnerLoop loop(config, weights, batches, batches, checkpoints,
                                demonstrations.train, demonstrations.heldout, hooks, given.ranks,
                                given.ranks_here);
      return loop.Run(given.resume);
    });
  }
  LogInfo("stopping");
}

}  // namespace plumb::run
