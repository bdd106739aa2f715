// Training without actors: the run's store, the pairs, one objective, the offline loop.
#include <memory>

#include "common/error.h"
#include "learner/offline_loop.h"
#include "learner/preference.h"
#include "learner/reward_model_objective.h"
#include "policy_model/transformer.h"
#include "replay/logprob_cache.h"
#include "run/observer.h"
#include "run/preference_data.h"
#include "run/roles.h"

namespace plumb::run {
namespace {

learner::PreferenceLossOptions LossOptions(const configs::PreferenceConfig& c) {
  using Kind = learner::PreferenceLossKind;
  const Kind kind = c.loss == "hinge"    ? Kind::kHinge
                    : c.loss == "ipo"    ? Kind::kIpo
                    : c.loss == "robust" ? Kind::kRobust
                    : c.loss == "simpo"  ? Kind::kSimpo
                    : c.loss == "orpo"   ? Kind::kOrpo
                                         : Kind::kSigmoid;
  return {.kind = kind, .beta = c.beta, .label_smoothing = c.label_smoothing, .simpo_gamma = c.gamma,
          .length_normalize = c.length_normalize};
}

}  // namespace

RunSummary RunOfflineTraining(const Session& session, const RunOptions& options) {
  const configs::Config& config = session.config();
  std::unique_ptr<replay::Store> store = OpenStore(session);
  Observer observer(session, options);
  const PreferenceData data = LoadPreferences(session, *store);
  for (const std::string& note : data.notes) observer.Note(note);

  const bool reward_model = config.algorithm.name == "reward_model";
  policy_model::Weights weights =
      reward_model ? policy_model::ScalarHeadFrom(MakeWeights(session), config.run.seed) : MakeWeights(session);
  policy_model::Transformer transformer(weights.shape(), session.device(), session.dtype());
  learner::TrainStep train(transformer, config.optimizer.micro_batch_tokens);
  learner::Optimizer optimizer(weights, config.optimizer);
  learner::Checkpoints checkpoints(session.folder().checkpoints(), config.run.keep_checkpoints, session.tokenizer_source());

  // Made before a checkpoint replaces the weights: the reference is the policy of step 0.
  replay::StoreLogprobCache cache(store.get());
  std::unique_ptr<learner::ReferencePolicy> reference;
  std::unique_ptr<learner::RewardModeling> modeling;
  std::unique_ptr<learner::OfflineObjective> objective;
  if (reward_model) {
    modeling = std::make_unique<learner::RewardModeling>(transformer, weights, optimizer, config.optimizer.micro_batch_tokens,
                                                         config.preference.centering);
    objective = std::make_unique<learner::RewardModelObjective>(*modeling, data.train, data.heldout);
  } else {
    const learner::PreferenceLossOptions loss = LossOptions(config.preference);
    if (learner::UsesReference(loss.kind)) reference = std::make_unique<learner::ReferencePolicy>(weights, train);
    objective = std::make_unique<learner::PreferenceObjective>(train, weights, optimizer, reference.get(), &cache, loss,
                                                               data.train, data.heldout);
  }
  RunSummary summary;
  summary.wanted_steps = config.run.steps;
  summary.learner = learner::RunOffline(config, {.batch = config.preference.batch, .shuffle = config.data.shuffle}, *objective,
                                        weights, optimizer, checkpoints, observer.Hooks(), options.resume);
  policy_model::SaveModelDirectory(weights, session.folder().path + "/model", session.tokenizer_source());
  summary.counters = {{"pairs", static_cast<int64_t>(data.train.size())}, {"reference/cache_hits", cache.hits()},
                      {"reference/cache_misses", cache.misses()}};
  observer.Finish(summary);
  return summary;
}

}  // namespace plumb::run
