// Training without actors: the run's store, the pairs, one objective, the offline loop.
#include <algorithm>
#include <memory>

#include "common/base/error.h"
#include "learner/loop/offline_loop.h"
#include "learner/offline/kto.h"
#include "learner/offline/preference_objective.h"
#include "learner/offline/reward_model_objective.h"
#include "policy_model/transformer.h"
#include "replay/store/logprob_cache.h"
#include "run/roles/observer.h"
#include "run/roles/role_loops.h"
#include "run/roles/roles.h"
#include "run/session/preference_data.h"

namespace plumb::run {
namespace {

learner::PreferenceLossOptions LossOptions(const configs::PreferenceConfig& c) {
  return {.kind = c.loss,
          .beta = c.beta,
          .label_smoothing = c.label_smoothing,
          .simpo_gamma = c.gamma,
          .length_normalize = c.length_normalize};
}

}  // namespace

RunSummary RunOfflineTraining(const Session& session, const RunOptions& options) {
  const configs::Config& config = session.config();
  std::unique_ptr<replay::Store> store = OpenStore(session);
  Observer observer(session, options);
  const PreferenceData data = LoadPreferences(session, *store);
  for (const std::string& note : data.notes) observer.Note(note);
  observer.CountRows(data.rows);

  const bool reward_model = config.algorithm.name == configs::AlgorithmName::kRewardModel;
  policy_model::Weights weights =
      reward_model ? policy_model::ScalarHeadFrom(MakeWeights(session), config.run.seed)
                   : MakeWeights(session);
  policy_model::Transformer transformer(weights.shape(), session.stream(), session.dtype());
  learner::TrainStep train(transformer, config.optimizer.micro_batch_tokens);
  learner::Optimizer optimizer(weights, config.optimizer);
  learner::Checkpoints checkpoints(session.folder().checkpoints(), config.run.keep_checkpoints,
                                   session.tokenizer_source(), config.model.path);

  // Made before a checkpoint replaces the weights: the reference is the policy of step 0.
  std::unique_ptr<replay::Store> shared;
  if (!config.preference.reference_cache.empty()) {
    shared = replay::Store::Open(config.preference.reference_cache);
    observer.Note("reference log-probs: kept in " + config.preference.reference_cache);
  }
  replay::StoreLogprobCache cache(shared ? shared.get() : store.get());
  std::unique_ptr<learner::ReferencePolicy> reference;
  std::unique_ptr<learner::RewardModeling> modeling;
  std::unique_ptr<learner::OfflineObjective> objective;
  learner::OfflineOptions how{.batch = config.preference.batch, .shuffle = config.data.shuffle};
  if (reward_model) {
    modeling = std::make_unique<learner::RewardModeling>(transformer, weights, optimizer,
                                                         config.optimizer.micro_batch_tokens,
                                                         config.preference.centering);
    objective =
        std::make_unique<learner::RewardModelObjective>(*modeling, data.train, data.heldout);
  } else if (config.preference.loss == configs::PreferenceLossKind::kKto) {
    reference = std::make_unique<learner::ReferencePolicy>(weights, train);
    const configs::PreferenceConfig& c = config.preference;
    auto kto = std::make_unique<learner::KtoObjective>(
        train, weights, optimizer, *reference, &cache,
        learner::KtoOptions{.beta = c.beta,
                            .desirable_weight = c.desirable_weight,
                            .undesirable_weight = c.undesirable_weight,
                            .batch = c.batch,
                            .max_tokens = std::min(c.max_tokens, session.shape().max_positions),
                            .seed = config.run.seed,
                            .shuffle = config.data.shuffle},
        data.completions, data.completions_heldout);
    how.shuffle = false;  // its batches are fixed
    if (kto->left_out() > 0)
      observer.Note("completions: " + std::to_string(kto->left_out()) +
                    " fill no batch and are left out");
    objective = std::move(kto);
  } else {
    const learner::PreferenceLossOptions loss = LossOptions(config.preference);
    if (learner::UsesReference(loss.kind))
      reference = std::make_unique<learner::ReferencePolicy>(weights, train);
    objective = std::make_unique<learner::PreferenceObjective>(
        train, weights, optimizer, reference.get(), &cache, loss, data.train, data.heldout);
  }
  learner::LearnerHooks hooks = observer.Hooks();
  hooks.store_state = [identity = data.identity] { return identity; };
  hooks.resumed = [&](int64_t step, const std::string& then) {
    if (then == data.identity) return;
    throw Error(ErrorCode::kConflict,
                "the checkpoint of step " + std::to_string(step) +
                    " was trained on other rows (rows and hash " + then + "; the store has " +
                    data.identity + "): bring the run's store back, or start a new run",
                store->path());
  };
  learner::LearnerResult result = learner::RunOffline(config, how, *objective, weights, optimizer,
                                                      checkpoints, hooks, options.resume);
  ShareModel(session, checkpoints, result);
  return FinishRun(session, observer, std::move(result),
                   {{"pairs", static_cast<int64_t>(data.train.size())},
                    {"completions", static_cast<int64_t>(data.completions.size())},
                    {"reference/cache_hits", cache.hits()},
                    {"reference/cache_misses", cache.misses()}});
}

}  // namespace plumb::run
