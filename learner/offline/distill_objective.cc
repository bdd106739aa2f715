#include "learner/offline/distill_objective.h"

#include <utility>

#include "common/base/error.h"
#include "learner/offline/sft_objective.h"

namespace plumb::learner {

DistillObjective::DistillObjective(TrainStep& train, policy_model::Weights& weights,
                                   Optimizer& optimizer, Distiller& distiller,
                                   std::span<const Demonstration> data,
                                   std::span<const std::string> datasets,
                                   std::span<const Demonstration> heldout)
    : train_(train),
      weights_(weights),
      optimizer_(optimizer),
      distiller_(distiller),
      data_(data),
      heldout_(heldout),
      datasets_(datasets) {
  PLUMB_CHECK(datasets.size() == data.size());
}

std::map<std::string, double> DistillObjective::Train(std::span<const uint32_t> rows,
                                                      double learning_rate, int64_t step) {
  const configs::DistillConfig& options = distiller_.options();
  const bool features = step < options.feature_steps;
  std::vector<SequenceView> asked;
  std::vector<std::string> datasets;
  for (const uint32_t row : rows) {
    asked.push_back(ViewOf(data_[row]));
    datasets.push_back(datasets_[row]);
  }
  const std::vector<TeacherRows> said =
      distiller_.Ask(asked, datasets, 1.0f, static_cast<uint64_t>(step), features);
  std::vector<SequenceView> batch;
  std::vector<const TeacherRows*> shown;
  double tokens = 0;
  size_t scored = 0;
  for (size_t i = 0; i < asked.size(); ++i) {
    if (!said[i].there()) continue;
    batch.push_back(asked[i]);
    shown.push_back(&said[i]);
    scored += said[i].logprob.size();
    tokens += static_cast<double>(asked[i].tokens.size());
  }
  if (scored == 0)
    throw Error(ErrorCode::kInvalidArgument, "a batch of demonstrations has no token to learn");
  const double share = 1 / static_cast<double>(scored), of_token = options.only ? 0 : share,
               of_teacher = options.coef * share;
  const bool moved = options.perturb > 0 && !features;
  StudentMeasure* const measure = distiller_.Compare(shown, features);
  if (moved) measure->Remember();
  double loss = 0, apart = 0;
  std::vector<size_t> next(batch.size(), 0);  // scored tokens seen of each sequence
  optimizer_.ZeroGrad();
  train_.Accumulate(
      weights_, batch, 1.0f,
      [&](const ScoredToken& token) {
        const auto s = static_cast<size_t>(token.sequence);
        const auto distance = static_cast<double>(token.measured[0]);
        loss -= share * static_cast<double>(token.logprob);
        apart += share * distance;
        distiller_.Count(shown[s]->logprob[next[s]++], distance, token.measured);
        return TrainStep::Gradient{.logprob = static_cast<float>(-of_token),
                                   .measured = static_cast<float>(of_teacher)};
      },
      optimizer_.gradients(), /*shared=*/nullptr, measure);
  double perturbed = 0;
  if (moved) {
    measure->Perturb(options.perturb);
    train_.Accumulate(
        weights_, batch, 1.0f,
        [&](const ScoredToken& token) {
          perturbed += share * static_cast<double>(token.measured[0]);
          return TrainStep::Gradient{.measured = static_cast<float>(of_teacher)};
        },
        optimizer_.gradients(), /*shared=*/nullptr, measure);
    tokens *= 2;
  }
  const double total = (options.only ? 0 : loss) + options.coef * (apart + perturbed);
  const UpdateResult update = optimizer_.Update(learning_rate, total);
  std::map<std::string, double> metrics = {{"sft/loss", loss},
                                           {"sft/tokens", static_cast<double>(scored)}};
  AddUpdateMetrics(optimizer_, update, learning_rate, tokens, train_.TakeSharedTokens(), metrics);
  distiller_.AddMetrics(metrics);
  if (features) {
    metrics.erase("distill/kl");
    metrics["distill/features"] = apart;
  }
  if (moved) metrics["distill/perturbed"] = perturbed;
  return metrics;
}

OfflineEval DistillObjective::Evaluate() {
  return EvaluateDemonstrations(train_, weights_, heldout_);
}

}  // namespace plumb::learner
