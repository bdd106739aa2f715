#include "learner/algorithms/ppo.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>

#include "common/base/error.h"
#include "learner/algorithms/batch_metrics.h"
#include "learner/algorithms/grpo.h"
#include "learner/algorithms/passes/minibatches.h"
#include "learner/algorithms/passes/step_totals.h"
#include "learner/algorithms/teaching/taught_answers.h"
#include "learner/algorithms/teaching/taught_token.h"
#include "learner/algorithms/value_loss.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMinibatchStream = 0x6291;

// Positions of the scored tokens (token 0 is never scored: nothing precedes it).
std::vector<int32_t> ScoredPositions(const Trajectory& t) {
  std::vector<int32_t> out;
  for (size_t i = 1; i < t.tokens.size(); ++i) {
    if (t.loss_mask[i]) out.push_back(static_cast<int32_t>(i));
  }
  return out;
}

// Index of the last scored token at or before `position`; the first one when there is none.
size_t ScoredAtOrBefore(const std::vector<int32_t>& positions, int32_t position) {
  const auto after = std::upper_bound(positions.begin(), positions.end(), position);
  return after == positions.begin() ? 0 : static_cast<size_t>(after - positions.begin()) - 1;
}

std::vector<double> Doubles(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

}  // namespace

struct Ppo::Totals : StepTotals {
  double policy_loss = 0, value_loss = 0, value_clipped = 0, grad_norm = 0, critic_grad_norm = 0;
  int64_t value_tokens = 0, applied = 0, minibatches = 0, critic_applied = 0;
};

Ppo::Ppo(const AlgorithmContext& c)
    : options_(c.config.algorithm),
      critic_options_(c.config.critic),
      peak_learning_rate_(c.config.optimizer.learning_rate),
      temperature_(c.config.rollout.temperature > 0
                       ? static_cast<float>(c.config.rollout.temperature)
                       : 1.0f),
      kv_type_(c.config.rollout.kv_type),
      products_(c.config.model.products),
      max_new_tokens_(c.config.rollout.max_new_tokens),
      seed_(c.config.run.seed),
      // Generation that runs ahead samples from older policies: the ratio is then taken against the
      // learner's own.
      recompute_(options_.recompute_logprobs || c.config.run.max_staleness > 0),
      off_policy_(OffPolicyOptionsOf(options_)),
      estimator_(options_.kl_estimator),
      clip_{.low = options_.clip_low, .high = options_.clip_high, .dual = options_.dual_clip},
      kl_in_reward_(options_.kl_coef > 0 && options_.kl_placement == KlPlacement::kReward),
      kl_in_loss_(options_.kl_coef > 0 && options_.kl_placement == KlPlacement::kLoss),
      train_(c.train),
      weights_(c.weights),
      optimizer_(c.optimizer),
      reference_(c.reference),
      distiller_(c.distiller),
      critic_(c.config, c.weights, c.train),
      controller_(
          options_.kl_coef,
          options_.kl_controller == configs::KlController::kAdaptive ? options_.kl_target : 0,
          options_.kl_horizon),
      scaling_(options_.reward_normalize, options_.reward_clip) {
  if (options_.kl_coef > 0 && !reference_) {
    throw Error(ErrorCode::kInvalidArgument, "algorithm.kl_coef > 0 needs a reference policy");
  }
}

std::string Ppo::StateJson() const {
  const auto& s = scaling_.state();
  return Json{{"kl_coef", controller_.coefficient()},
              {"reward_scaling", {{"count", s.count}, {"mean", s.mean}, {"squares", s.squares}}},
              {"non_finite_scores", non_finite_scores_}}
      .dump();
}

void Ppo::RestoreState(const std::string& text) {
  try {
    const Json j = Json::parse(text);
    const double moved = j.at("kl_coef").get<double>();
    if (options_.kl_controller == configs::KlController::kAdaptive)
      controller_.Restore(moved);  // a fixed one is the recipe's, which may have changed
    const Json& s = j.at("reward_scaling");
    scaling_.Restore({.count = s.at("count").get<int64_t>(),
                      .mean = s.at("mean").get<double>(),
                      .squares = s.at("squares").get<double>()});
    non_finite_scores_ = j.at("non_finite_scores").get<int64_t>();
  } catch (const Json::exception& e) {
    throw Error(ErrorCode::kCorruption,
                std::string("the checkpoint's state of PPO cannot be read: ") + e.what());
  }
}

std::vector<Ppo::Sample> Ppo::Prepare(std::span<const TrajectoryGroup> groups, int64_t step,
                                      std::map<std::string, double>& metrics) {
  AddBatchMetrics(groups, metrics);
  std::vector<Sample> samples;
  std::vector<std::string> datasets, kept_datasets;
  std::vector<double> scores;
  for (const auto& group : groups) {
    for (const auto& t : group.trajectories) {
      if (!Usable(t)) continue;
      if (!std::isfinite(t.reward)) {
        ++non_finite_scores_;
        continue;
      }
      scores.push_back(t.reward);
      samples.push_back({.trajectory = &t});
      datasets.push_back(group.lease.prompt.dataset);
    }
  }
  scaling_.Observe(scores);

  std::vector<SequenceView> views;
  std::vector<Sample> kept;
  for (size_t i = 0; i < samples.size(); ++i) {
    Sample& sample = samples[i];
    const Trajectory& t = *sample.trajectory;
    const std::vector<int32_t> positions = ScoredPositions(t);
    if (positions.empty()) continue;
    PpoAnswer<double>& answer = sample.answer;
    for (const int32_t at : positions)
      answer.old_logprob.push_back(static_cast<double>(t.logprobs[static_cast<size_t>(at)]));
    answer.rewards.assign(positions.size(), 0);
    double of_places = 0;  // what the reward has of turns and tokens: it counts where they stand
    for (const RewardPart& part : t.rewards) {
      if (part.scope != RewardScope::kTrajectory) of_places += part.weight * part.value;
    }
    answer.rewards.back() = scaling_.Apply(t.reward - of_places);
    for (const RewardPart& part : t.rewards) {
      if (part.scope == RewardScope::kTrajectory) continue;
      const int32_t at = part.scope == RewardScope::kToken
                             ? part.index
                             : t.segments.at(static_cast<size_t>(part.index)).end - 1;
      answer.rewards[ScoredAtOrBefore(positions, at)] += part.weight * part.value;
    }
    views.push_back(ViewOf(t));
    kept.push_back(std::move(sample));
    kept_datasets.push_back(std::move(datasets[i]));
  }
  metrics["reward/non_finite"] = static_cast<double>(non_finite_scores_);
  if (kept.empty()) return kept;

  if (recompute_) {
    const auto own = train_.Score(weights_, views, temperature_);
    for (size_t i = 0; i < kept.size(); ++i) {
      PpoAnswer<double>& answer = kept[i].answer;
      std::vector<double> now = Doubles(own[i]);
      kept[i].importance.resize(now.size());
      OffPolicyWeights<double>(off_policy_, now, answer.old_logprob, kept[i].importance);
      answer.old_logprob = std::move(now);
    }
  }
  if (reference_ && (kl_in_reward_ || kl_in_loss_)) {
    const auto reference = reference_->Score(views, temperature_);
    for (size_t i = 0; i < kept.size(); ++i) {
      (kl_in_reward_ ? kept[i].answer.reference : kept[i].reference) = Doubles(reference[i]);
    }
  }
  const auto values = critic_.Values(weights_, views);
  std::vector<PpoAnswer<double>> answers;
  for (size_t i = 0; i < kept.size(); ++i) {
    kept[i].answer.values = Doubles(values[i]);
    answers.push_back(std::move(kept[i].answer));
  }
  PpoTargets<double>(answers, {.gamma = options_.gamma,
                               .lam = options_.lam,
                               .kl_coef = controller_.coefficient(),
                               .estimator = estimator_,
                               .whiten = options_.whiten_advantages});

  std::vector<std::vector<double>> all_returns, all_values;
  double kl = 0, kl_token = 0;
  for (size_t i = 0; i < kept.size(); ++i) {
    double answer_kl = answers[i].kl;
    // In the loss: the same measure, of the policy that sampled.
    for (size_t k = 0; k < kept[i].reference.size(); ++k) {
      answer_kl +=
          KlEstimate<double>(estimator_, answers[i].old_logprob[k], kept[i].reference[k]).value;
    }
    kl += answer_kl;
    kl_token += answer_kl / static_cast<double>(answers[i].rewards.size());
    all_returns.push_back(answers[i].returns);
    all_values.push_back(answers[i].values);
    kept[i].answer = std::move(answers[i]);
  }
  if (distiller_) {
    AskTeachers(*distiller_, std::span(kept), kept_datasets, temperature_, step,
                [](Sample& s) { return std::tie(s.answer.advantages, s.answer.old_logprob); });
  }
  const auto n = static_cast<int64_t>(kept.size());
  metrics["value/explained_variance"] = ExplainedVariance<double>(all_returns, all_values);
  metrics["value/mean"] = MomentsOf<double>(all_values).mean;
  metrics["value/return_mean"] = MomentsOf<double>(all_returns).mean;
  if (options_.reward_normalize != RewardNormalization::kOff)
    metrics["reward/running_std"] = scaling_.std();
  if (kl_in_reward_) metrics["objective/kl"] = kl / static_cast<double>(n);
  if (kl_in_reward_ || kl_in_loss_) {
    metrics["objective/kl_token"] = kl_token / static_cast<double>(n);
    // of this batch; the next one's follows from it
    metrics["objective/kl_coef"] = controller_.coefficient();
  }
  return kept;
}

void Ppo::Minibatch(std::span<Sample> samples, double learning_rate, double critic_rate,
                    bool train_policy, bool check_gate, bool first, Totals& totals) {
  int64_t tokens = 0;
  for (const auto& s : samples) {
    tokens += static_cast<int64_t>(s.tokens());
    totals.forward_tokens += std::ssize(s.trajectory->tokens);
  }
  const std::vector<SequenceView> views = ViewsOf(samples);
  const auto sequences = static_cast<int64_t>(samples.size());
  const Aggregation aggregation = options_.aggregation;
  const bool shared = critic_.shared();
  double policy_loss = 0, value_loss = 0;
  for (const auto& s : samples) {
    if (!RecordedLogprobsAreFinite(*s.trajectory))
      policy_loss = std::numeric_limits<double>::quiet_NaN();
  }
  std::vector<size_t> next(samples.size(), 0);  // scored tokens seen of each sequence

  const auto value_term = [&](const ScoredToken& token, const Sample& sample, size_t k) {
    const auto out =
        ClippedValueLoss<double>(static_cast<double>(token.value), sample.answer.values[k],
                                 sample.answer.returns[k], critic_options_.value_clip);
    value_loss += out.value / static_cast<double>(tokens);
    totals.value_clipped += out.clipped;
    ++totals.value_tokens;
    return out.derivative / static_cast<double>(tokens);
  };
  const auto policy_term = [&](const ScoredToken& token) {
    const auto s = static_cast<size_t>(token.sequence);
    const Sample& sample = samples[s];
    const size_t k = next[s]++;
    const double weight = TokenWeight(aggregation, static_cast<int64_t>(sample.tokens()), sequences,
                                      tokens, max_new_tokens_);
    const auto lp = static_cast<double>(token.logprob);
    const double old = sample.answer.old_logprob[k];
    const auto surrogate = ClippedSurrogate<double>(lp, old, sample.answer.advantages[k], clip_);
    const double importance = sample.importance.empty() ? 1.0 : sample.importance[k];
    double value = importance * surrogate.value;
    double derivative = importance * surrogate.derivative;
    if (!sample.reference.empty()) {
      const auto kl =
          KlEstimate<double>(estimator_, options_.kl_straight_through, lp, sample.reference[k]);
      const double ratio = options_.kl_bias_correction ? surrogate.ratio : 1;
      value += controller_.coefficient() * ratio * kl.value;
      derivative += controller_.coefficient() * ratio *
                    (kl.derivative + (options_.kl_bias_correction ? kl.value : 0));
      totals.kl += kl.value;
    }
    Taught taught;
    if (sample.teacher.there()) {
      taught = TaughtBy(*distiller_, sample.teacher.logprob[k], old, token);
      value += taught.value;
      derivative += taught.derivative;
      if (first) distiller_->Count(sample.teacher.logprob[k], taught.shown, token.measured);
    }
    value -= options_.entropy_coef * static_cast<double>(token.entropy);
    policy_loss += weight * value;
    totals.entropy += static_cast<double>(token.entropy);
    totals.ratio += surrogate.ratio;
    totals.clipped += surrogate.clipped;
    totals.approx_kl += old - lp;
    totals.importance += importance;
    ++totals.tokens;
    if (check_gate) totals.gate.Add(old, lp);
    TrainStep::Gradient g{static_cast<float>(weight * derivative),
                          static_cast<float>(-weight * options_.entropy_coef)};
    g.measured = static_cast<float>(weight * taught.measured);
    if (shared) {
      const double slope = value_term(token, sample, k);
      g.value = static_cast<float>(critic_options_.vf_coef * slope);
      if (!train_policy) g.logprob = g.entropy = g.measured = 0;
    }
    return g;
  };

  Optimizer& critic_optimizer = critic_.optimizer();
  // Of the policy's passes, before its update changes it.
  const double loss_scale = optimizer_.loss_scale();
  critic_optimizer.ZeroGrad();
  if (train_policy || shared) {
    optimizer_.ZeroGrad();
    const TrainStep::SharedHead head = critic_.SharedHead();
    train_.Accumulate(weights_, views, temperature_, policy_term, optimizer_.gradients(),
                      shared ? &head : nullptr, MeasureOf(distiller_, samples));
    if (check_gate) totals.gate.Check(options_.logprob_gate, "ppo", kv_type_, products_);
  }
  if (!shared) {
    next.assign(samples.size(), 0);
    critic_.Accumulate(views, [&](const ScoredToken& token) {
      const auto s = static_cast<size_t>(token.sequence);
      const size_t k = next[s]++;
      return TrainStep::Gradient{.value = static_cast<float>(value_term(token, samples[s], k))};
    });
  }
  // With a shared trunk a loss that is not finite spoils both updates; else each model has a guard
  // of its own.
  const double policy_guard =
      shared ? policy_loss + critic_options_.vf_coef * value_loss : policy_loss;
  if (train_policy) {
    const UpdateResult update = optimizer_.Update(learning_rate, policy_guard);
    totals.policy_loss += policy_loss;
    totals.grad_norm += update.applied ? update.grad_norm : 0;
    totals.applied += update.applied;
    ++totals.updates;
  }
  const UpdateResult update =
      shared ? critic_optimizer.Update(critic_rate, policy_guard, std::nullopt, loss_scale)
             : critic_optimizer.Update(critic_rate, value_loss);
  totals.value_loss += value_loss;
  totals.critic_grad_norm += update.applied ? update.grad_norm : 0;
  totals.critic_applied += update.applied;
  ++totals.minibatches;
}

std::map<std::string, double> Ppo::Train(std::span<const TrajectoryGroup> groups,
                                         double learning_rate, int64_t step) {
  std::map<std::string, double> metrics;
  std::vector<Sample> samples = Prepare(groups, step, metrics);
  Totals totals;
  const bool train_policy = step >= critic_options_.warmup_steps;
  const double critic_rate = critic_options_.learning_rate * learning_rate / peak_learning_rate_;
  // Log-probs can be compared only where learner and actor hold the same version: the first update
  // of a fresh batch; and where the learner's pass drops nothing, for the actor's did not.
  const bool fresh = !recompute_ && !weights_.Drops() && AllOfVersion(groups, step);
  const auto n = samples.size();
  ForEachMinibatch(std::span(samples),
                   {.epochs = options_.epochs,
                    .minibatches = options_.minibatches,
                    .seed = seed_,
                    .address = kMinibatchStream},
                   step, [&](std::span<Sample> some, const PassPlace& place) {
                     Minibatch(some, learning_rate, critic_rate, train_policy,
                               fresh && place.first_update, place.first_pass, totals);
                   });

  if (distiller_ && n > 0) distiller_->AddMetrics(metrics);
  if (const auto measured = metrics.find("objective/kl_token"); measured != metrics.end()) {
    controller_.Update(measured->second, static_cast<int64_t>(n));
  }
  const auto share = [](double sum, int64_t count) {
    return sum / static_cast<double>(std::max<int64_t>(1, count));
  };
  totals.AddMetrics(optimizer_, train_, learning_rate, recompute_, metrics);
  // None while the critic warms up alone.
  if (totals.tokens > 0 && kl_in_loss_) metrics["objective/kl"] = share(totals.kl, totals.tokens);
  if (totals.updates > 0) metrics["policy/loss"] = share(totals.policy_loss, totals.updates);
  metrics["value/loss"] = share(totals.value_loss, totals.minibatches);
  metrics["value/clip_fraction"] = share(totals.value_clipped, totals.value_tokens);
  metrics["optim/grad_norm"] = share(totals.grad_norm, totals.applied);
  metrics["optim/critic_lr"] = critic_rate;
  metrics["optim/critic_grad_norm"] = share(totals.critic_grad_norm, totals.critic_applied);
  metrics["optim/critic_skipped"] = static_cast<double>(critic_.optimizer().skipped());
  return metrics;
}

}  // namespace plumb::learner
