#include "learner/offline/preference_objective.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "common/base/error.h"

namespace plumb::learner {
namespace {

// The share of a pair in the batch's mean over chosen tokens, times the number of pairs.
double BatchShare(std::span<const PreferencePair* const> batch) {
  int64_t tokens = 0;
  for (const PreferencePair* pair : batch) tokens += ScoredTokens(pair->chosen.loss_mask);
  return static_cast<double>(batch.size()) / static_cast<double>(tokens);
}

// WrittenWeight of one answer.
double Written(std::span<const float> logprobs, std::span<const float> squares) {
  const std::vector<double> p(logprobs.begin(), logprobs.end()), s(squares.begin(), squares.end());
  return WrittenWeight<double>(p, s);
}

void CheckPairs(std::span<const PreferencePair> pairs) {
  for (const PreferencePair& pair : pairs) {
    for (const Demonstration* d : {&pair.chosen, &pair.rejected}) {
      if (d->tokens.size() == d->loss_mask.size() && ScoredTokens(d->loss_mask) > 0) continue;
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
                                         std::span<const PreferencePair> heldout,
                                         std::vector<WeightedLoss> losses, double ld_alpha,
                                         bool weighted)
    : train_(train),
      weights_(weights),
      optimizer_(optimizer),
      options_(loss),
      losses_(losses.empty() ? std::vector<WeightedLoss>{{loss.kind, 1.0}} : std::move(losses)),
      ld_alpha_(ld_alpha),
      pairs_(pairs),
      heldout_(heldout) {
  PLUMB_CHECK(reference != nullptr || !UsesReference(losses_),
              "this loss compares with a reference");
  PLUMB_CHECK(!weighted || !ComparesBatch(losses_), "pairs that are ranked have no weights");
  CheckPairs(pairs_);
  CheckPairs(heldout_);
  if (weighted) squares_.emplace(weights.flat().stream());
  if (UsesReference(losses_)) reference_.emplace(*reference, cache);
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
    views.push_back(ViewOf(pair->chosen));
    views.push_back(ViewOf(pair->rejected));
  }
  return views;
}

std::vector<double> PreferenceObjective::Reference(std::span<const SequenceView> views) {
  if (!reference_) return std::vector<double>(views.size(), 0.0);
  std::vector<double> sums = reference_->Of(views);
  if (ld_alpha_ == 1) return sums;
  // What of each answer lies within the other's length is a sequence of its own to the cache.
  std::vector<std::vector<uint8_t>> masks;
  std::vector<SequenceView> shared;
  std::vector<size_t> longer;
  masks.reserve(views.size() / 2);
  for (size_t i = 0; i < views.size(); ++i) {
    const int64_t within = ScoredTokens(views[i ^ 1].mask);
    if (ScoredTokens(views[i].mask) <= within) continue;
    std::vector<uint8_t>& mask = masks.emplace_back(views[i].mask.begin(), views[i].mask.end());
    int64_t seen = 0;
    for (size_t k = 1; k < mask.size(); ++k) {
      if (mask[k] != 0 && ++seen > within) mask[k] = 0;
    }
    shared.push_back({views[i].tokens, mask});
    longer.push_back(i);
  }
  if (shared.empty()) return sums;
  const std::vector<double> first = reference_->Of(shared);
  for (size_t j = 0; j < longer.size(); ++j) {
    double& sum = sums[longer[j]];
    sum = first[j] + ld_alpha_ * (sum - first[j]);
  }
  return sums;
}

double PreferenceObjective::Sum(std::span<const float> tokens, size_t other) const {
  const size_t shorter = std::min(tokens.size(), other);
  double sum = 0;
  for (size_t k = 0; k < tokens.size(); ++k)
    sum += LengthWeight(ld_alpha_, k, shorter) * static_cast<double>(tokens[k]);
  return sum;
}

PairLogprobs<double> PreferenceObjective::Logprobs(const PreferencePair& pair, double chosen,
                                                   double rejected, double ref_chosen,
                                                   double ref_rejected, double batch_share) const {
  return {.chosen = chosen,
          .rejected = rejected,
          .ref_chosen = ref_chosen,
          .ref_rejected = ref_rejected,
          .chosen_tokens = static_cast<double>(ScoredTokens(pair.chosen.loss_mask)),
          .rejected_tokens = static_cast<double>(ScoredTokens(pair.rejected.loss_mask)),
          .margin = pair.has_margin ? pair.margin : 0.0,
          .sft_share = batch_share};
}

PreferenceObjective::Scores PreferenceObjective::Score(std::span<const SequenceView> views) {
  if (!squares_) return {.logprobs = train_.Score(weights_, views, 1.0f), .weights = {}};
  Scores out;
  double chosen = 1;
  for (const std::vector<float>& both : train_.Measure(weights_, views, 1.0f, *squares_)) {
    std::vector<float>& logprobs = out.logprobs.emplace_back();
    std::vector<float> squares;
    for (size_t i = 0; i < both.size(); i += 2) {
      logprobs.push_back(both[i]);
      squares.push_back(both[i + 1]);
    }
    const double written = Written(logprobs, squares);
    if (out.logprobs.size() % 2 == 0) out.weights.push_back(chosen * written);
    chosen = written;
  }
  return out;
}

std::vector<PairLoss<double>> PreferenceObjective::Losses(
    std::span<const PreferencePair* const> batch, const Scores& policy,
    std::span<const double> reference) const {
  std::vector<PairLogprobs<double>> pairs;
  for (size_t i = 0; i < batch.size(); ++i) {
    const std::vector<float>&chosen = policy.logprobs[2 * i],
          &rejected = policy.logprobs[2 * i + 1];
    pairs.push_back(Logprobs(*batch[i], Sum(chosen, rejected.size()), Sum(rejected, chosen.size()),
                             reference[2 * i], reference[2 * i + 1], BatchShare(batch)));
    if (squares_) pairs.back().weight = policy.weights[i];
  }
  return PreferenceLosses<double>(pairs, losses_, options_);
}

std::map<std::string, double> PreferenceObjective::Train(std::span<const uint32_t> rows,
                                                         double learning_rate, int64_t /*step*/) {
  std::vector<const PreferencePair*> batch;
  for (const uint32_t row : rows) batch.push_back(&pairs_[row]);
  const std::vector<SequenceView> views = Views(batch);
  const std::vector<double> reference = Reference(views);
  const double scale = 1.0 / static_cast<double>(batch.size()), share = BatchShare(batch);
  std::vector<PairLoss<double>> ranked;
  std::vector<double> weights;
  if (squares_) weights = Score(views).weights;
  if (ComparesBatch(losses_)) ranked = Losses(batch, Score(views), reference);
  double loss = 0, accuracy = 0, chosen_reward = 0, rejected_reward = 0;
  optimizer_.ZeroGrad();
  train_.AccumulatePairs(
      weights_, views, 1.0f,
      [&](std::span<const ScoredToken> tokens, std::span<TrainStep::Gradient> gradients) {
        const auto pair = static_cast<size_t>(tokens.front().sequence) / 2;
        const auto of_chosen = static_cast<size_t>(std::count_if(
            tokens.begin(), tokens.end(), [](const auto& t) { return t.sequence % 2 == 0; }));
        const size_t shorter = std::min(of_chosen, tokens.size() - of_chosen);
        const auto weight = [&](size_t i) {
          return LengthWeight(ld_alpha_, i < of_chosen ? i : i - of_chosen, shorter);
        };
        double chosen = 0, rejected = 0;
        for (size_t i = 0; i < tokens.size(); ++i)
          (i < of_chosen ? chosen : rejected) += weight(i) * static_cast<double>(tokens[i].logprob);
        PairLoss<double> l;
        if (!ranked.empty()) {
          l = ranked[pair];
        } else {
          PairLogprobs<double> p = Logprobs(*batch[pair], chosen, rejected, reference[2 * pair],
                                            reference[2 * pair + 1], share);
          if (squares_) p.weight = weights[pair];
          l = PreferenceLosses<double>(std::span(&p, 1), losses_, options_)[0];
        }
        for (size_t i = 0; i < tokens.size(); ++i) {
          gradients[i].logprob =
              static_cast<float>(scale * weight(i) * (i < of_chosen ? l.d_chosen : l.d_rejected));
        }
        loss += scale * l.value;
        accuracy += scale * RankedRight(l.reward_chosen, l.reward_rejected);
        chosen_reward += scale * l.reward_chosen;
        rejected_reward += scale * l.reward_rejected;
      },
      optimizer_.gradients());
  const UpdateResult update = optimizer_.Update(learning_rate, loss);
  double tokens = 0;
  for (const SequenceView& view : views) tokens += static_cast<double>(view.tokens.size());
  std::map<std::string, double> metrics = {
      {"dpo/loss", loss},
      {"dpo/accuracy", accuracy},
      {"dpo/margin", chosen_reward - rejected_reward},
      {"dpo/reward_chosen", chosen_reward},
      {"dpo/reward_rejected", rejected_reward},
      {"dpo/reference_forwards", static_cast<double>(reference_forwards())}};
  AddUpdateMetrics(optimizer_, update, learning_rate, tokens, train_.TakeSharedTokens(), metrics);
  if (squares_)
    metrics["dpo/weight"] = scale * std::accumulate(weights.begin(), weights.end(), 0.0);
  return metrics;
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
    for (const PairLoss<double>& l : Losses(batch, Score(views), reference)) {
      out.loss += l.value;
      out.accuracy += RankedRight(l.reward_chosen, l.reward_rejected);
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
