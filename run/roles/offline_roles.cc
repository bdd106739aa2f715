// Training without actors: pairs, judged completions or demonstrations, one objective, the offline
// loop.
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "common/base/error.h"
#include "configs/checks/distill_check.h"
#include "configs/parallel.h"
#include "learner/loop/offline_loop.h"
#include "learner/offline/distill_objective.h"
#include "learner/offline/kto.h"
#include "learner/offline/preference_objective.h"
#include "learner/offline/reward_model_objective.h"
#include "learner/offline/sft_objective.h"
#include "learner/ranks/rank_grid.h"
#include "learner/update/shares/experts/expert_share.h"
#include "learner/update/stages/model_stage.h"
#include "policy_model/memory/scalar_head.h"
#include "policy_model/memory/threads.h"
#include "policy_model/transformer.h"
#include "replay/store/logprob_cache.h"
#include "run/roles/observer.h"
#include "run/roles/ranked_ports.h"
#include "run/roles/role_loops.h"
#include "run/roles/roles.h"
#include "run/roles/run_memory.h"
#include "run/session/demonstration_data.h"
#include "run/session/lessons/lesson_plan.h"
#include "run/session/lessons/pair_labels.h"
#include "run/session/preference_data.h"

namespace plumb::run {
namespace {

using configs::AlgorithmName;

learner::PreferenceLossOptions LossOptions(const configs::PreferenceConfig& c) {
  return {.kind = c.loss,
          .beta = c.beta,
          .label_smoothing = c.label_smoothing,
          .simpo_gamma = c.gamma,
          .length_normalize = c.length_normalize,
          .divergence = c.divergence,
          .divergence_alpha = c.divergence_alpha,
          .discopop_tau = c.discopop_tau};
}

// What the loop trains, and what its checkpoints and the summary say of the data.
struct Offline {
  std::unique_ptr<learner::OfflineObjective> objective = nullptr;
  learner::OfflineOptions how = {};
  std::string identity = {};  // of the rows
  // of this life of the run, asked at its end
  std::function<std::map<std::string, int64_t>()> counters = nullptr;
};

// The model and what updates it; shared by all objectives, in the order in which they are made.
struct Policy {
  Policy(const Session& session, configs::Recompute recompute, const RunOptions& options)
      : config(session.config()),
        grid(options.ranks, static_cast<int>(configs::ReadParallel(config.run.parallel).tp),
             options.ranks_here, static_cast<int>(configs::ReadParallel(config.run.parallel).pp)),
        experts(options.ranks, static_cast<int>(configs::ReadParallel(config.run.parallel).ep),
                options.ranks_here),
        whole(config.algorithm.name == AlgorithmName::kRewardModel
                  ? policy_model::ScalarHeadFrom(MakeWeights(session), config.run.seed)
                  : MakeWeights(session)),
        share(experts.there() ? learner::MakeExpertShare(experts, whole,
                                                         learner::ModelShare::Whole::kComesAndGoes)
                              : learner::MakeShareOf(whole, grid.tensor(), grid.stages(),
                                                     learner::ModelShare::Whole::kComesAndGoes)),
        weights(share ? share->weights() : whole),
        transformer(weights.shape(), session.stream(), session.dtype()),
        train(transformer, config.optimizer.micro_batch_tokens, grid.data()),
        optimizer(weights, config.optimizer, learner::TrainingRulesOf(config),
                  learner::SharingOf(config, grid.data(), share.get(), experts)) {
    const bool again = recompute == configs::Recompute::kLayer;
    transformer.SetGroup(share ? share->group() : nullptr, whole.shape().vocab);
    transformer.SetExpertGroup(experts.exchange());
    transformer.RecomputeLayers(again);
    transformer.UseProducts(config.model.products);
    train.UsePartsOf(weights, optimizer);
    train.UsePipeline(learner::PipelineOf(share.get()), again);
  }

  // Of a model that ranks compute together, which no rank alone can tell later.
  Digest WholeDigest() const { return share ? whole.ComputeDigest() : Digest(); }

  const configs::Config& config;
  learner::RankGrid grid;
  learner::ExpertRanks experts;
  policy_model::Weights whole;                 // what checkpoints and comparisons see
  std::unique_ptr<learner::ModelShare> share;  // of it, where ranks compute it together
  policy_model::Weights& weights;              // what is trained here
  policy_model::Transformer transformer;
  learner::TrainStep train;
  learner::Optimizer optimizer;
};

// What is shown of a run, by the rank that shows it; the others' is nullptr.
void Note(Observer* observer, const std::string& line) {
  if (observer) observer->Note(line);
}

// Demonstrations: read again in each life of the run, and compared by what they are.
class SftTraining {
 public:
  SftTraining(const Session& session, Observer* observer, learner::Ranks* ranks)
      : data_(LoadSftData(session)),
        lessons_(PlanLessons(session.config(), session.tokenizer(), data_)) {
    for (const std::string& note : lessons_.notes) Note(observer, note);
    for (const std::string& note : data_.notes) Note(observer, note);
    if (observer) observer->CountRows(data_.rows);
    if (ranks) ranks->CheckSame("the demonstrations", data_.identity);
  }
  Offline Make(Policy& p) {
    return {.objective = MakeObjective(p),
            .how = {.batch = p.config.sft.batch,
                    .shuffle = p.config.data.shuffle,
                    .curriculum = lessons_.curriculum,
                    .transformer = &p.transformer},
            .identity = data_.identity,
            .counters = [this] {
              return std::map<std::string, int64_t>{
                  {"demonstrations", static_cast<int64_t>(data_.train.size())}};
            }};
  }

 private:
  std::unique_ptr<learner::OfflineObjective> MakeObjective(Policy& p) {
    if (!configs::Distills(p.config)) {
      return std::make_unique<learner::SftObjective>(p.train, p.weights, p.optimizer, data_.train,
                                                     data_.heldout, /*weight_decay=*/std::nullopt,
                                                     lessons_.syntax);
    }
    distiller_ = std::make_unique<learner::Distiller>(p.config, p.weights, p.train.ranks(),
                                                      /*self=*/nullptr);
    return std::make_unique<learner::DistillObjective>(p.train, p.weights, p.optimizer, *distiller_,
                                                       data_.train, data_.sources, data_.heldout);
  }

  const DemonstrationData data_;
  const LessonPlan lessons_;
  std::unique_ptr<learner::Distiller> distiller_;
};

// Pairs and judged completions, which lie in the run's store.
class PreferenceTraining {
 public:
  PreferenceTraining(const Session& session, Observer* observer, learner::Ranks* ranks)
      : session_(session),
        observer_(observer),
        store_(!ranks || ranks->first() ? OpenStore(session) : nullptr),
        data_(ranks ? SharedPreferences(*ranks, [&] { return Load(); }) : Load()) {
    for (const std::string& note : data_.notes) Note(observer, note);
    if (observer) observer->CountRows(data_.rows);
    const std::string& shared = session.config().preference.reference_cache;
    if (store_ && !shared.empty()) {
      shared_ = replay::Store::Open(shared);
      Note(observer, "reference log-probs: kept in " + shared);
    }
    if (store_)
      stored_ = std::make_unique<replay::StoreLogprobCache>(shared_ ? shared_.get() : store_.get());
    if (ranks) ranked_ = std::make_unique<RankedLogprobs>(*ranks, stored_.get());
  }

  // Before a checkpoint replaces the weights: the reference is the policy of step 0.
  Offline Make(Policy& p) {
    const configs::PreferenceConfig& c = p.config.preference;
    Offline out{
        .how = {.batch = c.batch, .shuffle = p.config.data.shuffle, .transformer = &p.transformer},
        .identity = data_.identity,
        .counters = [this] { return Counters(); }};
    if (p.config.algorithm.name == AlgorithmName::kRewardModel) {
      modeling_ = std::make_unique<learner::RewardModeling>(p.transformer, p.weights, p.optimizer,
                                                            p.config.optimizer.micro_batch_tokens,
                                                            c.centering);
      out.objective =
          std::make_unique<learner::RewardModelObjective>(*modeling_, data_.train, data_.heldout);
    } else if (c.loss == configs::PreferenceLossKind::kKto) {
      out.objective = MakeKto(p);
      out.how.shuffle = false;  // its batches are fixed
    } else {
      if (learner::UsesReference(learner::LossesOf(c)))
        reference_ =
            std::make_unique<learner::ReferencePolicy>(p.weights, p.train, false, p.WholeDigest());
      out.objective = std::make_unique<learner::PreferenceObjective>(
          p.train, p.weights, p.optimizer, reference_.get(), cache(), LossOptions(c), data_.train,
          data_.heldout, learner::LossesOf(c), c.ld_alpha, c.weighted);
    }
    return out;
  }

 private:
  PreferenceData Load() const {
    PreferenceData data = LoadPreferences(session_, *store_);
    LabelByParts(session_, data);
    return data;
  }
  std::unique_ptr<learner::OfflineObjective> MakeKto(Policy& p) {
    const configs::PreferenceConfig& c = p.config.preference;
    reference_ =
        std::make_unique<learner::ReferencePolicy>(p.weights, p.train, false, p.WholeDigest());
    auto kto = std::make_unique<learner::KtoObjective>(
        p.train, p.weights, p.optimizer, *reference_, cache(),
        learner::KtoOptions{.beta = c.beta,
                            .desirable_weight = c.desirable_weight,
                            .undesirable_weight = c.undesirable_weight,
                            .batch = c.batch,
                            .max_tokens = std::min(c.max_tokens, session_.shape().max_positions),
                            .seed = p.config.run.seed,
                            .shuffle = p.config.data.shuffle},
        data_.completions, data_.completions_heldout);
    if (kto->left_out() > 0)
      Note(observer_,
           "completions: " + std::to_string(kto->left_out()) + " fill no batch and are left out");
    return kto;
  }
  std::map<std::string, int64_t> Counters() const {
    return {{"pairs", static_cast<int64_t>(data_.train.size())},
            {"completions", static_cast<int64_t>(data_.completions.size())},
            {"reference/cache_hits", stored_ ? stored_->hits() : 0},
            {"reference/cache_misses", stored_ ? stored_->misses() : 0}};
  }
  LogprobCache* cache() const {
    if (ranked_) return ranked_.get();
    return stored_.get();
  }

  const Session& session_;
  Observer* const observer_;
  const std::unique_ptr<replay::Store> store_;  // of the first rank
  const PreferenceData data_;
  std::unique_ptr<replay::Store> shared_;
  std::unique_ptr<replay::StoreLogprobCache> stored_;
  std::unique_ptr<RankedLogprobs> ranked_;
  std::unique_ptr<learner::ReferencePolicy> reference_;
  std::unique_ptr<learner::RewardModeling> modeling_;
};

RunSummary Run(const Session& session, const RunOptions& options, Observer* observer,
               Policy& policy, const Offline& offline) {
  configs::Config config = session.config();
  config.checkpoint.background &= !options.waits_for_checkpoints;
  learner::Checkpoints checkpoints(session.folder().checkpoints(), config.run.keep_checkpoints,
                                   session.tokenizer_source(), config.model.path);
  if (options.newest) checkpoints.PreferNewest();
  learner::LearnerHooks hooks;
  if (observer) hooks = observer->Hooks();
  else hooks.stop = [&] { return options.Stopped(); };
  hooks.store_state = [&] { return offline.identity; };
  hooks.resumed = [&](int64_t step, const std::string& then) {
    if (then == offline.identity) return;
    throw Error(ErrorCode::kConflict,
                "the checkpoint of step " + std::to_string(step) +
                    " was trained on other rows (rows and hash " + then + "; now there are " +
                    offline.identity + "): bring " +
                    (config.algorithm.name == AlgorithmName::kSft ? config.data.train
                                                                  : session.folder().store()) +
                    " back as it was, or start a new run",
                session.folder().path);
  };
  learner::LearnerResult result =
      learner::RunOffline(config, offline.how, *offline.objective, policy.whole, policy.optimizer,
                          checkpoints, hooks, options.resume, options.ranks);
  if (!observer) return {};
  ShareModel(session, checkpoints, result);
  return FinishRun(session, *observer, std::move(result), offline.counters());
}

}  // namespace

RunSummary RunOfflineTraining(const Session& session, const RunOptions& given) {
  const RunMemory memory = PlanRun(session);
  if (given.first()) memory.Check();
  const RunOptions options = PlannedOptions(given, memory);
  if (options.ranks)
    policy_model::UseThreads(ThreadSharesOf(session.config(), options.ranks_here).learner);
  std::optional<Observer> shown;
  if (options.first()) shown.emplace(session, options);
  Observer* const observer = shown ? &*shown : nullptr;
  Note(observer, memory.Line());
  const auto run = [&](auto&& data) {
    return WithPlan(memory, [&] {
      Policy policy(session, memory.recompute, options);
      return Run(session, options, observer, policy, data.Make(policy));
    });
  };
  if (session.config().algorithm.name == AlgorithmName::kSft)
    return run(SftTraining(session, observer, options.ranks));
  return run(PreferenceTraining(session, observer, options.ranks));
}

}  // namespace plumb::run
