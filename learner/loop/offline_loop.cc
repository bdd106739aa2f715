#include "learner/loop/offline_loop.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/base/error.h"
#include "learner/update/expert_balance.h"
#include "learner/update/shares/model_share.h"

namespace plumb::learner {
namespace {

class OfflineLoop : public StepLoop {
 public:
  OfflineLoop(const configs::Config& config, const OfflineOptions& options,
              OfflineObjective& objective, policy_model::Weights& weights, Optimizer& optimizer,
              Checkpoints& checkpoints, const LearnerHooks& hooks, Ranks* ranks)
      : StepLoop(config, weights, optimizer, checkpoints, hooks,
                 configs::BatchRampOf(config.optimizer, options.batch), ranks),
        options_(options),
        objective_(objective) {
    if (options.transformer)
      balance_.emplace(config.experts, config.run.seed, *options.transformer,
                       optimizer.share() ? optimizer.share()->weights() : weights, optimizer);
  }

 private:
  bool Prepare(bool, bool) override { return true; }

  std::optional<Step> Train(int64_t step, double learning_rate) override {
    const auto begin = SteadyClock::now();
    const auto rows = options_.curriculum.Batch(objective_.size(), sizes_, step, config_.run.seed,
                                                options_.shuffle);
    if (balance_) balance_->Begin(ExpertBalance::Phase::kTraining, step);
    Step out{.metrics = objective_.Train(rows, learning_rate, step)};
    if (balance_) balance_->End(out.metrics);
    out.metrics["time/train"] = std::chrono::duration<double>(SteadyClock::now() - begin).count();
    out.metrics["data/epoch"] =
        static_cast<double>(sizes_.Before(step + 1)) / static_cast<double>(objective_.size());
    if (!options_.curriculum.phases().empty())
      out.metrics["sft/phase"] = static_cast<double>(options_.curriculum.PhaseOf(step) + 1);
    out.per_second = out.metrics["perf/train_tokens"];
    return out;
  }

  std::optional<EvalResult> Evaluate(int64_t version) override {
    if (!objective_.holds_out()) return std::nullopt;
    Phase("evaluating version " + std::to_string(version));
    const OfflineEval e = objective_.Evaluate();
    if (e.examples == 0) return std::nullopt;
    EvalResult out{.version = version};
    out.accuracy = e.accuracy;
    out.accuracy_se = std::sqrt(e.accuracy * (1 - e.accuracy) / static_cast<double>(e.examples));
    out.reward = e.margin;
    out.reward_chosen = e.chosen;
    out.reward_rejected = e.rejected;
    out.answers = e.examples;
    out.loss = e.loss;
    out.perplexity = e.perplexity;
    if (hooks_.evaluated) hooks_.evaluated(out, {});
    return out;
  }

  std::vector<NamedModel> Models() override { return objective_.Models(); }
  std::string AlgorithmJson() override { return objective_.StateJson(); }
  void RestoreAlgorithm(const std::string& json) override { objective_.RestoreState(json); }

  const OfflineOptions options_;
  OfflineObjective& objective_;
  std::optional<ExpertBalance> balance_;
};

}  // namespace

void CheckOfflineBatch(const configs::Config& config, int64_t batch, int64_t rows) {
  if (batch <= rows) return;
  const std::string section =
      config.algorithm.name == configs::AlgorithmName::kSft ? "sft" : "preference";
  throw Error(ErrorCode::kInvalidArgument,
              section + ".batch = " + std::to_string(batch) +
                  " is more than the rows to train on, of which there are " + std::to_string(rows) +
                  " besides those that " + section + ".heldout holds back: lower " + section +
                  ".batch or " + section + ".heldout, or add rows to data.train");
}

LearnerResult RunOffline(const configs::Config& config, const OfflineOptions& options,
                         OfflineObjective& objective, policy_model::Weights& weights,
                         Optimizer& optimizer, Checkpoints& checkpoints, const LearnerHooks& hooks,
                         bool resume, Ranks* ranks) {
  CheckOfflineBatch(config, options.batch, objective.size());
  return OfflineLoop(config, options, objective, weights, optimizer, checkpoints, hooks, ranks)
      .Run(resume);
}

}  // namespace plumb::learner
