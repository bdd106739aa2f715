#include "learner/offline/preference_objective.h"

#include <algorithm>
#include <numeric>

#include "common/base/error.h"

namespace plumb::learner {
namespace {

int64_t Scored(const Demonstration& d) {
  int64_t n = 0;
  for (size_t i = 1; i < d.loss_mask.size(); ++i) n += d.loss_mask[i] != 0;
  return n;
}

double Sum(std::span<const float> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// 1 where the chosen answer has the higher reward; equal rewards tell nothing and count as half, as
// those of a reward model do.
double Ranked(const PairLoss<double>& l) {
  return l.reward_chosen > l.reward_rejected ? 1 : l.reward_chosen == l.reward_rejected ? 0.5 : 0;
}

void CheckPairs(std::span<const PreferencePair> pairs) {
  for (const PreferencePair& pair : pairs) {
    for (const Demonstration* d : {&pair.chosen, &pair.rejected}) {
      if (d->tokens.size() == d->loss_mask.size() && Scored(*d) > 0) continue;
      throw Error(ErrorCode::kInvalidArgument, "an answer has no token to compare",
                  pair.dataset + " row " + std::to_string(pair.row));
    }
  }
}

}  // namespace

PreferenceObjective::PreferenceObjective(TrainStep& train, policy_model::Weights& weights,
                                         Optimizer& optimizer, ReferencePolicy* reference,
                                         LogprobCache* cache, const PreferenceLossOptions& loss,
                                         std::span<const PreferencePair> pairs,
                                         std::span<const PreferencePair> heldout)
    : train_(train),
      weights_(weights),
      optimizer_(optimizer),
      options_(loss),
      pairs_(pairs),
      heldout_(heldout) {
  PLUMB_CHECK(reference != nullptr || !UsesReference(loss.kind),
              "this loss compares with a reference");
  CheckPairs(pairs_);
  CheckPairs(heldout_);
  if (UsesReference(loss.kind)) reference_.emplace(*reference, cache);
}

std::string PreferenceObjective::StateJson() const {
  return ReferenceStateJson(reference_ ? reference_->digest() : Digest());
}

void PreferenceObjective::RestoreState(const std::string& json) {
  CheckReferenceState(json, reference_ ? reference_->digest() : Digest());
}

std::vector<SequenceView> PreferenceObjective::Views(std::span<const PreferencePair* const> pairs) {
  std::vector<SequenceView> views;
  views.reserve(2 * pairs.size());
  for (const PreferencePair* pair : pairs) {
    views.push_back({pair->chosen.tokens, pair->chosen.loss_mask});
    views.push_back({pair->rejected.tokens, pair->rejected.loss_mask});
  }
  return views;
}

std::vector<double> PreferenceObjective::Reference(std::span<const SequenceView> views) {
  return reference_ ? reference_->Of(views) : std::vector<double>(views.size(), 0.0);
}

PairLoss<double> PreferenceObjective::Loss(const PreferencePair& pair, double chosen,
                                           double rejected, double ref_chosen,
                                           double ref_rejected) const {
  return PreferenceLoss<double>({.chosen = chosen,
                                 .rejected = rejected,
                                 .ref_chosen = ref_chosen,
                                 .ref_rejected = ref_rejected,
                                 .chosen_tokens = static_cast<double>(Scored(pair.chosen)),
                                 .rejected_tokens = static_cast<double>(Scored(pair.rejected)),
                                 .margin = pair.has_margin ? pair.margin : 0.0},
                                options_);
}

std::map<std::string, double> PreferenceObjective::Train(std::span<const uint32_t> rows,
                                                         double learning_rate, int64_t /*step*/) {
  std::vector<const PreferencePair*> batch;
  for (const uint32_t row : rows) batch.push_back(&pairs_[row]);
  const std::vector<SequenceView> views = Views(batch);
  const std::vector<double> reference = Reference(views);
  const double scale = 1.0 / static_cast<double>(batch.size());
  double loss = 0, accuracy = 0, chosen_reward = 0, rejected_reward = 0;
  optimizer_.ZeroGrad();
  train_.AccumulatePairs(
      weights_, views, 1.0f,
      [&](std::span<const ScoredToken> tokens, std::span<TrainStep::Gradient> gradients) {
        const auto pair = static_cast<size_t>(tokens.front().sequence) / 2;
        double chosen = 0, rejected = 0;
        for (const ScoredToken& t : tokens) (t.sequence % 2 == 0 ? chosen : rejected) += t.logprob;
        const PairLoss<double> l =
            Loss(*batch[pair], chosen, rejected, reference[2 * pair], reference[2 * pair + 1]);
        for (size_t i = 0; i < tokens.size(); ++i) {
          gradients[i].logprob =
              static_cast<float>(scale * (tokens[i].sequence % 2 == 0 ? l.d_chosen : l.d_rejected));
        }
        loss += scale * l.value;
        accuracy += scale * Ranked(l);
        chosen_reward += scale * l.reward_chosen;
        rejected_reward += scale * l.reward_rejected;
      },
      optimizer_.gradients());
  const UpdateResult update = optimizer_.Update(learning_rate, loss);
  double tokens = 0;
  for (const SequenceView& view : views) tokens += static_cast<double>(view.tokens.size());
  return {{"dpo/loss", loss},
          {"dpo/accuracy", accuracy},
          {"dpo/margin", chosen_reward - rejected_reward},
          {"dpo/reward_chosen", chosen_reward},
          {"dpo/reward_rejected", rejected_reward},
          {"dpo/reference_forwards", static_cast<double>(reference_forwards())},
          {"optim/grad_norm", update.grad_norm},
          {"optim/lr", learning_rate},
          {"optim/skipped", static_cast<double>(optimizer_.skipped())},
          {"perf/train_tokens", tokens},
          {"perf/shared_tokens", static_cast<double>(train_.TakeSharedTokens())}};
}

OfflineEval PreferenceObjective::Evaluate() {
  OfflineEval out;
  double chosen = 0, rejected = 0;
  constexpr size_t kAtOnce = 32;  // fixed: what is packed together decides the last bits
  for (size_t begin = 0; begin < heldout_.size(); begin += kAtOnce) {
    std::vector<const PreferencePair*> batch;
    for (size_t i = begin; i < std::min(begin + kAtOnce, heldout_.size()); ++i)
      batch.push_back(&heldout_[i]);
    const std::vector<SequenceView> views = Views(batch);
    const std::vector<double> reference = Reference(views);
    const auto policy = train_.Score(weights_, views, 1.0f);
    for (size_t i = 0; i < batch.size(); ++i) {
      const PairLoss<double> l = Loss(*batch[i], Sum(policy[2 * i]), Sum(policy[2 * i + 1]),
                                      reference[2 * i], reference[2 * i + 1]);
      out.loss += l.value;
      out.accuracy += Ranked(l);
      out.margin += l.reward_chosen - l.reward_rejected;
      chosen += l.reward_chosen;
      rejected += l.reward_rejected;
      ++out.examples;
    }
  }
  if (out.examples > 0) {
    const double n = static_cast<double>(out.examples);
    out.loss /= n, out.accuracy /= n, out.margin /= n;
    out.chosen = chosen / n, out.rejected = rejected / n;
  }
  return out;
}

}  // namespace plumb::learner
