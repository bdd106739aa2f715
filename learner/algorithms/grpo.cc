#include "learner/algorithms/grpo.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "configs/number_list.h"
#include "learner/algorithms/advantages.h"
#include "learner/algorithms/batch_metrics.h"
#include "learner/algorithms/covariance.h"
#include "learner/algorithms/gae.h"
#include "learner/algorithms/passes/minibatches.h"
#include "learner/algorithms/passes/step_totals.h"
#include "learner/algorithms/teaching/taught_answers.h"
#include "learner/algorithms/teaching/taught_token.h"
#include "learner/algorithms/training_mask.h"

namespace plumb::learner {
namespace {

constexpr uint64_t kMinibatchStream = 0x6290, kCovarianceStream = 0xc0f1;

// Values at the scored tokens (token 0 is never scored: nothing precedes it).
std::vector<float> AtScored(const Trajectory& t, const std::vector<float>& values) {
  std::vector<float> out;
  for (size_t i = 1; i < t.tokens.size(); ++i) {
    if (t.loss_mask[i]) out.push_back(values[i]);
  }
  return out;
}

// The trajectory's own reward parts, of a group of `members`; NaN where another was not scored by
// it.
void AddParts(const Trajectory& t, size_t i, size_t members, GroupRewards& group) {
  for (const RewardPart& part : t.rewards) {
    if (part.scope != RewardScope::kTrajectory) continue;
    GroupRewards::Part& of = group.parts[part.name];
    of.weight = part.weight;
    of.values.resize(members, std::nan(""));
    of.values[i] = part.value;
  }
}

int64_t ScoredTokens(const Trajectory& t) {
  int64_t n = 0;
  for (size_t i = 1; i < t.tokens.size(); ++i) n += t.loss_mask[i] != 0;
  return n;
}

}  // namespace

AnswerLossOptions AnswerLossOptionsOf(const configs::AlgorithmConfig& options) {
  const std::vector<double> vespo = configs::ReadNumbers(options.vespo, 4, "algorithm.vespo");
  return {.objective = options.objective,
          .level = options.ratio,
          .clip = {.low = options.clip_low, .high = options.clip_high, .dual = options.dual_clip},
          .sapo_positive = options.sapo_tau_positive,
          .sapo_negative = options.sapo_tau_negative,
          .vespo_positive = {.k = vespo[0], .lambda = vespo[1]},
          .vespo_negative = {.k = vespo[2], .lambda = vespo[3]},
          .dro_beta = options.dro_beta,
          .cov_kl_coef = options.cov_kl_coef};
}

AnswerKlOptions AnswerKlOptionsOf(const configs::AlgorithmConfig& options) {
  return {.estimator = options.kl_estimator,
          .straight_through = options.kl_straight_through,
          .bias_correction = options.kl_bias_correction};
}

OffPolicyOptions<double> OffPolicyOptionsOf(const configs::AlgorithmConfig& options) {
  return {.mode = options.tis_cap > 0 ? options.off_policy : OffPolicy::kOff,
          .floor = options.tis_floor,
          .cap = options.tis_cap};
}

double TokenWeight(Aggregation aggregation, int64_t length, int64_t sequences, int64_t tokens,
                   int64_t max_new_tokens) {
  switch (aggregation) {
    case Aggregation::kToken: return 1.0 / static_cast<double>(tokens);
    case Aggregation::kSequence:
      return 1.0 / (static_cast<double>(sequences) * static_cast<double>(length));
    case Aggregation::kConstant:
      return 1.0 / (static_cast<double>(sequences) * static_cast<double>(max_new_tokens));
    case Aggregation::kSequenceSum: return 1.0 / static_cast<double>(sequences);
  }
  return 0;
}

struct Grpo::Totals : StepTotals {
  double loss = 0, grad_norm = 0;
  int64_t masked = 0;    // tokens of importance 0
  int64_t left_out = 0;  // tokens that a mask left out
};

Grpo::Grpo(const configs::Config& config, TrainStep& train, policy_model::Weights& weights,
           Optimizer& optimizer, ReferencePolicy* reference, Distiller* distiller)
    : options_(config.algorithm),
      temperature_(config.rollout.temperature > 0 ? static_cast<float>(config.rollout.temperature)
                                                  : 1.0f),
      kv_type_(config.rollout.kv_type),
      products_(config.model.products),
      max_new_tokens_(config.rollout.max_new_tokens),
      seed_(config.run.seed),
      // Generation that runs ahead samples from older policies: the ratio is then taken against the
      // learner's own.
      recompute_(options_.recompute_logprobs || config.run.max_staleness > 0 ||
                 config.replay.groups_per_step > 0),
      batches_(configs::BatchRampOf(config.optimizer, config.rollout.prompts_per_step)),
      replays_(config.replay.groups_per_step > 0),
      loss_(AnswerLossOptionsOf(options_)),
      kl_(AnswerKlOptionsOf(options_)),
      off_policy_(OffPolicyOptionsOf(options_)),
      aggregation_(options_.aggregation),
      entropy_(options_.entropy_coef, options_.entropy_target),
      train_(train),
      weights_(weights),
      optimizer_(optimizer),
      reference_(reference),
      distiller_(distiller) {
  if (options_.kl_coef > 0 && !reference_) {
    throw Error(ErrorCode::kInvalidArgument, "algorithm.kl_coef > 0 needs a reference policy");
  }
}

std::vector<Grpo::Sample> Grpo::Prepare(std::span<const TrajectoryGroup> groups, int64_t step,
                                        std::map<std::string, double>& metrics) {
  const bool kl_in_reward = options_.kl_coef > 0 && options_.kl_placement == KlPlacement::kReward;
  const bool kl_in_loss = options_.kl_coef > 0 && !kl_in_reward;

  // Reference log-probs are needed for every usable answer (reward) or for those with a gradient
  // (loss).
  double kl_sum = 0;
  int64_t kl_sequences = 0, used_groups = 0, cut = 0;
  std::vector<Sample> samples;
  std::vector<std::string> datasets;  // of each
  const bool over_batch = WhitenedOverTokens(options_.advantage);
  const bool of_batch = options_.advantage == Advantage::kBatch;
  const bool greedy = options_.advantage == Advantage::kGreedy;
  const bool by_part = options_.reward_aggregation == configs::RewardAggregation::kNormalizeThenSum;
  // Rewards and lengths are reported of what the step generated; replayed groups come behind it.
  const size_t own_groups =
      replays_ ? std::min(groups.size(), static_cast<size_t>(batches_.Of(step))) : groups.size();
  std::vector<const TrajectoryGroup*> scored;
  std::vector<GroupRewards> rewards;
  std::vector<std::vector<std::vector<double>>> kl_tokens;  // of the groups' answers
  for (const auto& group : groups) {
    // dropped
    if (std::none_of(group.trajectories.begin(), group.trajectories.end(), Usable)) continue;
    scored.push_back(&group);
    GroupRewards& of = rewards.emplace_back();
    auto& kl_of = kl_tokens.emplace_back(group.trajectories.size());
    std::vector<std::vector<float>> reference;
    std::vector<SequenceView> views;
    for (const auto& t : group.trajectories) views.push_back(ViewOf(t));
    if (kl_in_reward) reference = reference_->Score(views, temperature_);
    for (size_t i = 0; i < group.trajectories.size(); ++i) {
      const Trajectory& t = group.trajectories[i];
      double reward = t.reward;
      if (kl_in_reward) {
        const std::vector<float> lp = AtScored(t, t.logprobs);
        double kl = 0;
        for (size_t k = 0; k < lp.size(); ++k) {
          kl_of[i].push_back(KlEstimate<double>(kl_.estimator, static_cast<double>(lp[k]),
                                                static_cast<double>(reference[i][k]))
                                 .value);
          kl += kl_of[i].back();
        }
        if (Usable(t)) {
          kl_sum += kl;
          ++kl_sequences;
        }
        // The baseline is a reward alone, and its log-probs are not of the policy that samples.
        if (!greedy || i + 1 < group.trajectories.size()) reward -= options_.kl_coef * kl;
      }
      of.rewards.push_back(reward);
      of.counts.push_back(Usable(t));
      of.lengths.push_back(ScoredTokens(t));
      if (by_part && Usable(t)) AddParts(t, i, group.trajectories.size(), of);
    }
  }
  const std::vector<GroupAdvantage> advantages = AdvantagesOf(options_, rewards);
  for (size_t g = 0; g < scored.size(); ++g) {
    const TrajectoryGroup& group = *scored[g];
    const GroupAdvantage& advantage = advantages[g];
    // Equal rewards give no policy gradient; the KL and the entropy of such answers have one all
    // the same.
    // A teacher has something to say of every answer.
    const bool skipped =
        advantage.equal && options_.skip_equal_groups && !over_batch && !distiller_;
    if (skipped && !kl_in_loss && options_.entropy_coef == 0 && !entropy_.adaptive()) continue;
    used_groups += !skipped;
    for (size_t i = 0; i < group.trajectories.size(); ++i) {
      if (!rewards[g].counts[i]) continue;
      if (greedy && i + 1 == group.trajectories.size()) continue;  // the baseline
      const Trajectory& t = group.trajectories[i];
      if (options_.mask_truncated && t.finish == FinishReason::kLength) {
        ++cut;
        continue;
      }
      Sample sample{.trajectory = &t, .policy = !skipped};
      sample.old_logprob = AtScored(t, t.logprobs);
      sample.tokens = static_cast<int64_t>(sample.old_logprob.size());
      if (sample.tokens == 0) continue;
      if (options_.off_policy_sequence_mask > 0) sample.sampled = sample.old_logprob;
      sample.advantage.assign(sample.old_logprob.size(),
                              of_batch ? t.reward : advantage.advantage[i]);
      if (of_batch) {  // a token answers for the reward and for the KL that is still to come
        double to_go = 0;
        for (size_t k = kl_tokens[g][i].size(); k-- > 0;) {
          to_go += kl_tokens[g][i][k];
          sample.advantage[k] -= options_.kl_coef * to_go;
        }
      }
      samples.push_back(std::move(sample));
      datasets.push_back(group.lease.prompt.dataset);
    }
  }
  if (over_batch) {
    std::vector<std::vector<double>> rows;
    for (const Sample& s : samples) rows.push_back(s.advantage);
    Whiten<double>(rows);
    for (size_t i = 0; i < samples.size(); ++i) samples[i].advantage = std::move(rows[i]);
  }
  if (kl_in_loss && !samples.empty()) {
    auto reference = reference_->Score(ViewsOf(samples), temperature_);
    for (size_t i = 0; i < samples.size(); ++i) samples[i].reference = std::move(reference[i]);
  }
  if (recompute_ && !samples.empty()) {
    auto own = train_.Score(weights_, ViewsOf(samples), temperature_);
    for (size_t i = 0; i < samples.size(); ++i) {
      Sample& s = samples[i];
      const std::vector<double> proximal(own[i].begin(), own[i].end()),
          behaviour(s.old_logprob.begin(), s.old_logprob.end());
      std::vector<double> weight(proximal.size());
      OffPolicyWeights<double>(off_policy_, proximal, behaviour, weight);
      s.importance.assign(weight.begin(), weight.end());
      s.old_logprob = std::move(own[i]);
    }
  }
  if (distiller_) {
    AskTeachers(*distiller_, std::span(samples), datasets, temperature_, step,
                [](Sample& s) { return std::tie(s.advantage, s.old_logprob); });
  }

  AddBatchMetrics(groups.first(own_groups), metrics);
  metrics["policy/groups_used"] = static_cast<double>(used_groups);
  if (options_.mask_truncated) metrics["policy/truncated_masked"] = static_cast<double>(cut);
  if (replays_) metrics["replay/groups"] = static_cast<double>(groups.size() - own_groups);
  if (kl_sequences) metrics["objective/kl"] = kl_sum / static_cast<double>(kl_sequences);
  return samples;
}

void Grpo::LookAhead(std::span<Sample> samples, std::span<const SequenceView> views,
                     uint64_t update) {
  const bool clip_cov = loss_.objective == Objective::kClipCov,
             kl_cov = loss_.objective == Objective::kKlCov,
             by_entropy = options_.entropy_quantile < 1;
  if (!clip_cov && !kl_cov && !by_entropy) return;
  const TrainStep::Scores now = train_.ScoreEntropies(weights_, views, temperature_);
  std::vector<double> advantage, logprob, old, entropy;  // of all tokens with a policy gradient
  for (size_t i = 0; i < samples.size(); ++i) {
    const Sample& s = samples[i];
    if (!s.policy) continue;
    advantage.insert(advantage.end(), s.advantage.begin(), s.advantage.end());
    logprob.insert(logprob.end(), now.logprobs[i].begin(), now.logprobs[i].end());
    old.insert(old.end(), s.old_logprob.begin(), s.old_logprob.end());
    entropy.insert(entropy.end(), now.entropies[i].begin(), now.entropies[i].end());
  }
  if (advantage.empty()) return;
  std::vector<uint8_t> picked(advantage.size(), 0);
  if (clip_cov) {
    picked = ClipCovTokens<double>(advantage, logprob, old, loss_.clip, options_.cov_share,
                                   options_.cov_low, options_.cov_high,
                                   RandomStream(seed_, (kCovarianceStream << 32) + update));
  } else if (kl_cov) {
    picked = KlCovTokens<double>(advantage, logprob, options_.cov_share);
  }
  const double bound = by_entropy ? EntropyBound(entropy, options_.entropy_quantile) : 0;
  size_t at = 0;
  for (Sample& s : samples) {
    if (!s.policy) continue;
    const auto n = s.advantage.size();
    if (clip_cov || kl_cov)
      s.picked.assign(picked.begin() + static_cast<std::ptrdiff_t>(at),
                      picked.begin() + static_cast<std::ptrdiff_t>(at + n));
    if (by_entropy) {
      s.trains.resize(n);
      for (size_t k = 0; k < n; ++k) s.trains[k] = entropy[at + k] >= bound;
    }
    at += n;
  }
}

void Grpo::Minibatch(std::span<Sample> samples, double learning_rate, bool check_gate,
                     uint64_t update_number, bool first, Totals& totals) {
  // The policy term is a mean over the answers that have one, KL and entropy over all of them.
  int64_t tokens = 0, policy_tokens = 0, policy_sequences = 0;
  for (const auto& s : samples) {
    tokens += s.tokens;
    policy_tokens += s.policy ? s.tokens : 0;
    policy_sequences += s.policy;
    totals.forward_tokens += std::ssize(s.trajectory->tokens);
  }
  const std::vector<SequenceView> views = ViewsOf(samples);
  LookAhead(samples, views, update_number);
  const auto sequences = static_cast<int64_t>(samples.size());
  const double entropy_coef = entropy_.applied();
  double loss = 0, entropy_sum = 0;
  for (const auto& s : samples) {
    if (!RecordedLogprobsAreFinite(*s.trajectory)) loss = std::numeric_limits<double>::quiet_NaN();
  }
  // of one answer
  std::vector<double> logprob, old, weight, importance, derivative, reference, kl_weight, sampled;
  RowMeasure* const measure = MeasureOf(distiller_, samples);
  optimizer_.ZeroGrad();
  train_.AccumulateSequences(
      weights_, views, temperature_,
      [&](std::span<const ScoredToken> scored, std::span<TrainStep::Gradient> gradients) {
        const Sample& sample = samples[static_cast<size_t>(scored[0].sequence)];
        const size_t n = scored.size();
        const double share =
            TokenWeight(aggregation_, sample.tokens, sequences, tokens, max_new_tokens_);
        const double policy_share = sample.policy
                                        ? TokenWeight(aggregation_, sample.tokens, policy_sequences,
                                                      policy_tokens, max_new_tokens_)
                                        : 0;
        logprob.resize(n);
        derivative.resize(n);
        weight.assign(n, policy_share);
        old.assign(sample.old_logprob.begin(), sample.old_logprob.end());
        importance.assign(sample.importance.begin(), sample.importance.end());
        for (size_t k = 0; k < n; ++k) {
          logprob[k] = static_cast<double>(scored[k].logprob);
          if (!sample.trains.empty() && !sample.trains[k]) weight[k] = 0;
        }
        if (!sample.sampled.empty()) {
          sampled.assign(sample.sampled.begin(), sample.sampled.end());
          SequenceMask<double>(options_.off_policy_sequence_mask, sample.advantage, logprob,
                               sampled, weight);
        }
        const auto policy = AnswerLoss<double>(loss_,
                                               {.advantage = sample.advantage,
                                                .logprob = logprob,
                                                .old_logprob = old,
                                                .weight = weight,
                                                .importance = importance,
                                                .picked = sample.picked},
                                               derivative);
        loss += policy.value;
        totals.ratio += policy.ratio_sum;
        totals.clipped += static_cast<double>(policy.clipped);
        if (!sample.reference.empty()) {
          reference.assign(sample.reference.begin(), sample.reference.end());
          kl_weight.assign(n, share * options_.kl_coef);
          const auto kl =
              AnswerKl<double>(kl_, loss_.level, logprob, old, reference, kl_weight, derivative);
          loss += kl.value;
          totals.kl += kl.kl_sum;
        }
        for (size_t k = 0; k < n && sample.teacher.there(); ++k) {
          const Taught taught = TaughtBy(*distiller_, sample.teacher.logprob[k], old[k], scored[k]);
          loss += share * taught.value;
          derivative[k] += share * taught.derivative;
          gradients[k].measured = static_cast<float>(share * taught.measured);
          if (first) distiller_->Count(sample.teacher.logprob[k], taught.shown, scored[k].measured);
        }
        for (size_t k = 0; k < n; ++k) {
          const auto entropy = static_cast<double>(scored[k].entropy);
          loss -= share * entropy_coef * entropy;
          entropy_sum += entropy;
          totals.approx_kl += old[k] - logprob[k];
          totals.importance += importance.empty() ? 1 : importance[k];
          totals.masked += !importance.empty() && importance[k] == 0;
          totals.left_out += sample.policy && weight[k] == 0;
          if (check_gate) totals.gate.Add(old[k], logprob[k]);
          gradients[k].logprob = static_cast<float>(derivative[k]);
          gradients[k].entropy = static_cast<float>(-share * entropy_coef);
        }
        totals.tokens += static_cast<int64_t>(n);
      },
      optimizer_.gradients(), /*shared=*/nullptr, measure);
  totals.entropy += entropy_sum;
  if (check_gate) totals.gate.Check(options_.logprob_gate, "grpo", kv_type_, products_);
  const UpdateResult update = optimizer_.Update(learning_rate, loss);
  totals.loss += loss;
  totals.grad_norm += update.applied ? update.grad_norm : 0;
  ++totals.updates;
  if (tokens > 0) entropy_.Update(entropy_sum / static_cast<double>(tokens));
}

std::string Grpo::StateJson() const {
  if (!entropy_.adaptive()) return "{}";
  nlohmann::json state = {{"entropy_coef", entropy_.coefficient()}};
  if (std::isfinite(entropy_.last())) state["last_entropy"] = entropy_.last();
  return state.dump();
}

void Grpo::RestoreState(const std::string& json) {
  if (!entropy_.adaptive()) return;
  const nlohmann::json state = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!state.is_object() || !state.contains("entropy_coef")) return;  // it was fixed until now
  entropy_.Restore(state["entropy_coef"].get<double>(),
                   state.value("last_entropy", std::numeric_limits<double>::infinity()));
}

std::map<std::string, double> Grpo::Train(std::span<const TrajectoryGroup> groups,
                                          double learning_rate, int64_t step) {
  std::map<std::string, double> metrics;
  std::vector<Sample> samples = Prepare(groups, step, metrics);
  Totals totals;
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
                     Minibatch(some, learning_rate, fresh && place.first_update, place.update,
                               place.first_pass, totals);
                   });

  totals.AddMetrics(optimizer_, train_, learning_rate, recompute_, metrics);
  const auto updates = static_cast<double>(std::max<int64_t>(1, totals.updates));
  metrics["policy/loss"] = totals.loss / updates;
  metrics["optim/grad_norm"] = totals.grad_norm / updates;
  if (totals.tokens > 0) {
    const auto tokens = static_cast<double>(totals.tokens);
    if (options_.entropy_quantile < 1 || options_.off_policy_sequence_mask > 0)
      metrics["policy/masked"] = static_cast<double>(totals.left_out) / tokens;
    if (options_.kl_coef > 0 && options_.kl_placement == KlPlacement::kLoss)
      metrics["objective/kl"] = totals.kl / tokens;
    if (recompute_)
      metrics["sampling/importance_masked"] = static_cast<double>(totals.masked) / tokens;
  }
  if (distiller_ && n > 0) distiller_->AddMetrics(metrics);
  if (entropy_.adaptive()) metrics["policy/entropy_coef"] = entropy_.coefficient();
  return metrics;
}

}  // namespace plumb::learner
