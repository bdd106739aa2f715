#include "learner/offline/sft_objective.h"

#include <cmath>
#include <utility>
#include <vector>

#include "common/base/error.h"

namespace plumb::learner {
namespace {

// Of those that are scored: nothing predicts the first token.
int64_t LearnedBrackets(const std::vector<uint8_t>& brackets, std::span<const uint8_t> mask) {
  int64_t n = 0;
  for (size_t i = 1; i < brackets.size(); ++i) n += brackets[i] != 0 && mask[i] != 0;
  return n;
}

}  // namespace

double DemonstrationLoss(TrainStep& train, const policy_model::Weights& weights,
                         std::span<const Demonstration> data) {
  std::vector<SequenceView> views;
  views.reserve(data.size());
  for (const Demonstration& d : data) views.push_back(ViewOf(d));
  double sum = 0;
  int64_t n = 0;
  for (const auto& sequence : train.Score(weights, views, 1.0f)) {
    for (float lp : sequence) sum -= lp;
    n += static_cast<int64_t>(sequence.size());
  }
  return n ? sum / static_cast<double>(n) : 0.0;
}

OfflineEval EvaluateDemonstrations(TrainStep& train, const policy_model::Weights& weights,
                                   std::span<const Demonstration> heldout) {
  if (heldout.empty()) return {};
  const double loss = DemonstrationLoss(train, weights, heldout);
  return {
      .loss = loss, .perplexity = std::exp(loss), .examples = static_cast<int64_t>(heldout.size())};
}

SftObjective::SftObjective(TrainStep& train, policy_model::Weights& weights, Optimizer& optimizer,
                           std::span<const Demonstration> data,
                           std::span<const Demonstration> heldout,
                           std::optional<double> weight_decay, SyntaxPenalty syntax)
    : train_(train),
      weights_(weights),
      optimizer_(optimizer),
      data_(data),
      heldout_(heldout),
      weight_decay_(weight_decay),
      syntax_(std::move(syntax)) {
  PLUMB_CHECK(syntax_.weight == 0 || syntax_.brackets.size() == data.size());
}

std::map<std::string, double> SftObjective::Train(std::span<const uint32_t> rows,
                                                  double learning_rate, int64_t /*step*/) {
  std::vector<SequenceView> batch;
  std::vector<const std::vector<uint8_t>*> code;  // of each sequence, where there is a penalty
  double tokens = 0, brackets = 0;
  int64_t scored = 0;
  for (const uint32_t row : rows) {
    batch.push_back(ViewOf(data_[row]));
    scored += ScoredTokens(batch.back().mask);
    tokens += static_cast<double>(batch.back().tokens.size());
    if (syntax_.weight == 0) continue;
    code.push_back(&syntax_.brackets[row]);
    brackets += static_cast<double>(LearnedBrackets(*code.back(), data_[row].loss_mask));
  }
  if (scored == 0)
    throw Error(ErrorCode::kInvalidArgument, "a batch of demonstrations has no token to learn");
  double loss = 0, missed = 0;
  const auto scale = static_cast<float>(1.0 / static_cast<double>(scored));
  optimizer_.ZeroGrad();
  train_.Accumulate(
      weights_, batch, 1.0f,
      [&](const ScoredToken& token) {
        loss -= token.logprob;
        TrainStep::Gradient gradient{-scale, 0.0f};
        if (brackets > 0) {
          const std::vector<uint8_t>& is = *code[static_cast<size_t>(token.sequence)];
          if (!is.empty() && is[static_cast<size_t>(token.token)] != 0) {
            const double p = std::exp(static_cast<double>(token.logprob));
            missed += 1 - p;
            gradient.logprob -= static_cast<float>(syntax_.weight * p / brackets);
          }
        }
        return gradient;
      },
      optimizer_.gradients());
  loss /= static_cast<double>(scored);
  const double syntax = brackets > 0 ? missed / brackets : 0;
  const UpdateResult update =
      optimizer_.Update(learning_rate, loss + syntax_.weight * syntax, weight_decay_);
  std::map<std::string, double> metrics = {{"sft/loss", loss},
                                           {"sft/tokens", static_cast<double>(scored)}};
  AddUpdateMetrics(optimizer_, update, learning_rate, tokens, train_.TakeSharedTokens(), metrics);
  if (syntax_.weight > 0) metrics["sft/syntax"] = syntax;
  return metrics;
}

OfflineEval SftObjective::Evaluate() { return EvaluateDemonstrations(train_, weights_, heldout_); }

}  // namespace plumb::learner
