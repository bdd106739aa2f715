#include "learner/preference.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "common/digest.h"
#include "common/error.h"

namespace plumb::learner {
namespace {

int64_t Scored(const Demonstration& d) {
  int64_t n = 0;
  for (size_t i = 1; i < d.loss_mask.size(); ++i) n += d.loss_mask[i] != 0;
  return n;
}

double Sum(std::span<const float> values) { return std::accumulate(values.begin(), values.end(), 0.0); }

void CheckPairs(std::span<const PreferencePair> pairs) {
  for (const PreferencePair& pair : pairs) {
    for (const Demonstration* d : {&pair.chosen, &pair.rejected}) {
      if (d->tokens.size() == d->loss_mask.size() && Scored(*d) > 0) continue;
      throw Error(ErrorCode::kInvalidArgument, "an answer has no token to compare",
                  pair.dataset + " row " + std::to_string(pair.row));
    }
  }
}

Digest DigestOf(const policy_model::FlatBuffer& flat) {
  if (flat.device() == Device::kCpu) return WeightDigest({static_cast<const std::byte*>(flat.data()), flat.bytes()});
  std::vector<std::byte> host(flat.bytes());
  flat.CopyToHost(host);
  return WeightDigest(host);
}

}  // namespace

PreferenceObjective::PreferenceObjective(TrainStep& train, policy_model::Weights& weights, Optimizer& optimizer,
                                         ReferencePolicy* reference, LogprobCache* cache,
                                         const PreferenceLossOptions& loss, std::span<const PreferencePair> pairs,
                                         std::span<const PreferencePair> heldout)
    : train_(train), weights_(weights), optimizer_(optimizer), reference_(reference), cache_(cache), options_(loss),
      pairs_(pairs), heldout_(heldout) {
  PLUMB_CHECK(reference_ != nullptr || !UsesReference(loss.kind), "this loss compares with a reference");
  CheckPairs(pairs_);
  CheckPairs(heldout_);
  if (UsesReference(loss.kind)) reference_digest_ = DigestOf(reference_->weights().flat());
}

std::string PreferenceObjective::StateJson() const { return nlohmann::json{{"reference", reference_digest_}}.dump(); }

void PreferenceObjective::RestoreState(const std::string& json) {
  const auto then = nlohmann::json::parse(json).value("reference", Digest());
  if (then == reference_digest_) return;
  throw Error(ErrorCode::kConflict, "the run compares with the reference " + then + ", the model it started from is now " +
                                        reference_digest_ + ": bring the old model folder back, or start a new run");
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

std::vector<ReferenceSums> PreferenceObjective::Reference(std::span<const SequenceView> views) {
  std::vector<ReferenceSums> out(views.size() / 2);
  if (!UsesReference(options_.kind)) return out;
  std::vector<std::vector<float>> logprobs(views.size());
  std::vector<Digest> names(views.size());
  std::vector<size_t> missing;
  for (size_t i = 0; i < views.size(); ++i) {
    if (cache_ != nullptr) {
      names[i] = SequenceDigest(views[i].tokens, views[i].mask);
      if (auto found = cache_->Get(reference_digest_, names[i])) {
        logprobs[i] = std::move(*found);
        continue;
      }
    }
    missing.push_back(i);
  }
  if (!missing.empty()) {
    // All of the batch, though some may be known: sums depend in their last bits on what is packed together, and a run
    // that lost some entries has to find the same ones again.
    auto computed = reference_->Score(views, 1.0f);
    reference_forwards_ += static_cast<int64_t>(views.size());
    for (const size_t i : missing) {
      logprobs[i] = std::move(computed[i]);
      if (cache_ != nullptr) cache_->Put(reference_digest_, names[i], logprobs[i]);
    }
  }
  for (size_t i = 0; i < views.size(); ++i) (i % 2 == 0 ? out[i / 2].chosen : out[i / 2].rejected) = Sum(logprobs[i]);
  return out;
}

PairLoss<double> PreferenceObjective::Loss(const PreferencePair& pair, double chosen, double rejected,
                                           const ReferenceSums& reference) const {
  return PreferenceLoss<double>({.chosen = chosen, .rejected = rejected, .ref_chosen = reference.chosen,
                                 .ref_rejected = reference.rejected,
                                 .chosen_tokens = static_cast<double>(Scored(pair.chosen)),
                                 .rejected_tokens = static_cast<double>(Scored(pair.rejected)),
                                 .margin = pair.has_margin ? pair.margin : 0.0},
                                options_);
}

std::map<std::string, double> PreferenceObjective::Train(std::span<const uint32_t> rows, double learning_rate,
                                                         int64_t /*step*/) {
  std::vector<const PreferencePair*> batch;
  for (const uint32_t row : rows) batch.push_back(&pairs_[row]);
  const std::vector<SequenceView> views = Views(batch);
  const std::vector<ReferenceSums> reference = Reference(views);
  const double scale = 1.0 / static_cast<double>(batch.size());
  double loss = 0, accuracy = 0, chosen_reward = 0, rejected_reward = 0;
  optimizer_.ZeroGrad();
  train_.AccumulatePairs(
      weights_, views, 1.0f,
      [&](std::span<const ScoredToken> tokens, std::span<TrainStep::Gradient> gradients) {
        const auto pair = static_cast<size_t>(tokens.front().sequence) / 2;
        double chosen = 0, rejected = 0;
        for (const ScoredToken& t : tokens) (t.sequence % 2 == 0 ? chosen : rejected) += t.logprob;
        const PairLoss<double> l = Loss(*batch[pair], chosen, rejected, reference[pair]);
        for (size_t i = 0; i < tokens.size(); ++i) {
          gradients[i].logprob = static_cast<float>(scale * (tokens[i].sequence % 2 == 0 ? l.d_chosen : l.d_rejected));
        }
        loss += scale * l.value;
        accuracy += l.reward_chosen > l.reward_rejected ? scale : 0;
        chosen_reward += scale * l.reward_chosen;
        rejected_reward += scale * l.reward_rejected;
      },
      optimizer_.grad());
  const UpdateResult update = optimizer_.Update(learning_rate, loss);
  double tokens = 0;
  for (const SequenceView& view : views) tokens += static_cast<double>(view.tokens.size());
  return {{"dpo/loss", loss},
          {"dpo/accuracy", accuracy},
          {"dpo/margin", chosen_reward - rejected_reward},
          {"dpo/reward_chosen", chosen_reward},
          {"dpo/reward_rejected", rejected_reward},
          {"dpo/reference_forwards", static_cast<double>(reference_forwards_)},
          {"optim/grad_norm", update.grad_norm},
          {"optim/lr", learning_rate},
          {"optim/skipped", static_cast<double>(optimizer_.skipped())},
          {"perf/train_tokens", tokens}};
}

OfflineEval PreferenceObjective::Evaluate() {
  OfflineEval out;
  constexpr size_t kAtOnce = 32;  // fixed: what is packed together decides the last bits
  for (size_t begin = 0; begin < heldout_.size(); begin += kAtOnce) {
    std::vector<const PreferencePair*> batch;
    for (size_t i = begin; i < std::min(begin + kAtOnce, heldout_.size()); ++i) batch.push_back(&heldout_[i]);
    const std::vector<SequenceView> views = Views(batch);
    const std::vector<ReferenceSums> reference = Reference(views);
    const auto policy = train_.Score(weights_, views, 1.0f);
    for (size_t i = 0; i < batch.size(); ++i) {
      const PairLoss<double> l = Loss(*batch[i], Sum(policy[2 * i]), Sum(policy[2 * i + 1]), reference[i]);
      out.loss += l.value;
      out.accuracy += l.reward_chosen > l.reward_rejected ? 1 : 0;
      out.margin += l.reward_chosen - l.reward_rejected;
      ++out.examples;
    }
  }
  if (out.examples > 0) {
    const double n = static_cast<double>(out.examples);
    out.loss /= n, out.accuracy /= n, out.margin /= n;
  }
  return out;
}

}  // namespace plumb::learner
