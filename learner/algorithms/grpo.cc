#include "learner/algorithms/grpo.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "learner/algorithms/batch_metrics.h"
#include "learner/algorithms/gae.h"
#include "learner/algorithms/logprob_gate.h"
#include "learner/algorithms/returns.h"

namespace plumb::learner {
namespace {

constexpr uint64_t kMinibatchStream = 0x6290;

// Values at the scored tokens (token 0 is never scored: nothing precedes it).
std::vector<float> AtScored(const Trajectory& t, const std::vector<float>& values) {
  std::vector<float> out;
  for (size_t i = 1; i < t.tokens.size(); ++i) {
    if (t.loss_mask[i]) out.push_back(values[i]);
  }
  return out;
}

}  // namespace

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
  }
  return 0;
}

struct Grpo::Totals {
  double loss = 0, kl = 0, entropy = 0, ratio = 0, clipped = 0, approx_kl = 0, importance = 0;
  int64_t masked = 0;  // tokens of weight 0
  LogprobGate gate;
  double grad_norm = 0;
  int64_t tokens = 0, importance_tokens = 0, updates = 0, skipped = 0, forward_tokens = 0;
};

Grpo::Grpo(const configs::Config& config, TrainStep& train, policy_model::Weights& weights,
           Optimizer& optimizer, ReferencePolicy* reference)
    : options_(config.algorithm),
      temperature_(config.rollout.temperature > 0 ? static_cast<float>(config.rollout.temperature)
                                                  : 1.0f),
      kv_type_(config.rollout.kv_type),
      max_new_tokens_(config.rollout.max_new_tokens),
      seed_(config.run.seed),
      // Generation that runs ahead samples from older policies: the ratio is then taken against the
      // learner's own.
      recompute_(options_.recompute_logprobs || config.run.max_staleness > 0 ||
                 config.replay.groups_per_step > 0),
      batches_(configs::BatchRampOf(config.optimizer, config.rollout.prompts_per_step)),
      replays_(config.replay.groups_per_step > 0),
      estimator_(options_.kl_estimator),
      objective_(options_.objective),
      ratio_(options_.ratio),
      off_policy_(OffPolicyOptionsOf(options_)),
      aggregation_(options_.aggregation),
      clip_{.low = options_.clip_low, .high = options_.clip_high, .dual = options_.dual_clip},
      train_(train),
      weights_(weights),
      optimizer_(optimizer),
      reference_(reference) {
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
  int64_t kl_sequences = 0, used_groups = 0;
  std::vector<Sample> samples;
  const bool over_batch = options_.advantage == Advantage::kBatch;
  // Rewards and lengths are reported of what the step generated; replayed groups come behind it.
  const size_t own_groups =
      replays_ ? std::min(groups.size(), static_cast<size_t>(batches_.Of(step))) : groups.size();
  for (const auto& group : groups) {
    // dropped
    if (std::none_of(group.trajectories.begin(), group.trajectories.end(), Usable)) continue;
    std::vector<double> rewards;
    std::vector<unsigned char> counts;
    std::vector<std::vector<float>> reference;
    std::vector<std::vector<double>> kl_tokens(group.trajectories.size());
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
          kl_tokens[i].push_back(KlEstimate<double>(estimator_, static_cast<double>(lp[k]),
                                                    static_cast<double>(reference[i][k]))
                                     .value);
          kl += kl_tokens[i].back();
        }
        if (Usable(t)) {
          kl_sum += kl;
          ++kl_sequences;
        }
        reward -= options_.kl_coef * kl;
      }
      rewards.push_back(reward);
      counts.push_back(Usable(t));
    }
    const GroupAdvantage advantage =
        options_.advantage == Advantage::kLeaveOneOut
            ? LeaveOneOutAdvantages(rewards, counts)
            : GroupAdvantages(rewards, counts, options_.advantage_std, options_.advantage_eps);
    // Equal rewards give no policy gradient; the KL and the entropy of such answers have one all
    // the same.
    const bool skipped = advantage.equal && options_.skip_equal_groups && !over_batch;
    if (skipped && !kl_in_loss && options_.entropy_coef == 0) continue;
    used_groups += !skipped;
    for (size_t i = 0; i < group.trajectories.size(); ++i) {
      if (!counts[i]) continue;
      Sample sample{.trajectory = &group.trajectories[i], .policy = !skipped};
      sample.old_logprob = AtScored(*sample.trajectory, sample.trajectory->logprobs);
      sample.tokens = static_cast<int64_t>(sample.old_logprob.size());
      if (sample.tokens == 0) continue;
      sample.advantage.assign(sample.old_logprob.size(),
                              over_batch ? group.trajectories[i].reward : advantage.advantage[i]);
      if (over_batch) {  // a token answers for the reward and for the KL that is still to come
        double to_go = 0;
        for (size_t k = kl_tokens[i].size(); k-- > 0;) {
          to_go += kl_tokens[i][k];
          sample.advantage[k] -= options_.kl_coef * to_go;
        }
      }
      samples.push_back(std::move(sample));
    }
  }
  if (over_batch) {
    std::vector<std::vector<double>> rows;
    for (const Sample& s : samples) rows.push_back(s.advantage);
    Whiten<double>(rows);
    for (size_t i = 0; i < samples.size(); ++i) samples[i].advantage = std::move(rows[i]);
  }
  if (kl_in_loss && !samples.empty()) {
    std::vector<SequenceView> views;
    for (const auto& s : samples) views.push_back(ViewOf(*s.trajectory));
    auto reference = reference_->Score(views, temperature_);
    for (size_t i = 0; i < samples.size(); ++i) samples[i].reference = std::move(reference[i]);
  }
  if (recompute_ && !samples.empty()) {
    std::vector<SequenceView> views;
    for (const auto& s : samples) views.push_back(ViewOf(*s.trajectory));
    auto own = train_.Score(weights_, views, temperature_);
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

  AddBatchMetrics(groups.first(own_groups), metrics);
  metrics["policy/groups_used"] = static_cast<double>(used_groups);
  if (replays_) metrics["replay/groups"] = static_cast<double>(groups.size() - own_groups);
  if (kl_sequences) metrics["objective/kl"] = kl_sum / static_cast<double>(kl_sequences);
  return samples;
}

void Grpo::Minibatch(std::span<Sample> samples, double learning_rate, bool check_gate,
                     Totals& totals) {
  // The policy term is a mean over the answers that have one, KL and entropy over all of them.
  int64_t tokens = 0, policy_tokens = 0, policy_sequences = 0;
  std::vector<SequenceView> views;
  for (const auto& s : samples) {
    tokens += s.tokens;
    policy_tokens += s.policy ? s.tokens : 0;
    policy_sequences += s.policy;
    views.push_back(ViewOf(*s.trajectory));
    totals.forward_tokens += static_cast<int64_t>(s.trajectory->tokens.size());
  }
  const auto sequences = static_cast<int64_t>(samples.size());
  double loss = 0;
  for (const auto& s : samples) {
    if (!RecordedLogprobsAreFinite(*s.trajectory)) loss = std::numeric_limits<double>::quiet_NaN();
  }
  std::vector<double> logprob, old, weight, derivative;  // of one answer
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
        const auto importance = [&](size_t k) {
          return sample.importance.empty() ? 1.0 : static_cast<double>(sample.importance[k]);
        };
        logprob.resize(n);
        weight.resize(n);
        derivative.resize(n);
        old.assign(sample.old_logprob.begin(), sample.old_logprob.end());
        for (size_t k = 0; k < n; ++k) {
          logprob[k] = static_cast<double>(scored[k].logprob);
          weight[k] = policy_share * importance(k);
        }
        const auto policy = AnswerLoss<double>(objective_, ratio_, clip_, sample.advantage, logprob,
                                               old, weight, derivative);
        loss += policy.value;
        totals.ratio += policy.ratio_sum;
        totals.clipped += static_cast<double>(policy.clipped);
        for (size_t k = 0; k < n; ++k) {
          if (!sample.reference.empty()) {
            const auto kl = KlEstimate<double>(estimator_, logprob[k],
                                               static_cast<double>(sample.reference[k]));
            loss += share * options_.kl_coef * kl.value;
            derivative[k] += share * options_.kl_coef * kl.derivative;
            totals.kl += kl.value;
          }
          const auto entropy = static_cast<double>(scored[k].entropy);
          loss -= share * options_.entropy_coef * entropy;
          totals.entropy += entropy;
          totals.approx_kl += old[k] - logprob[k];
          totals.importance += importance(k);
          totals.masked += importance(k) == 0;
          if (check_gate) totals.gate.Add(old[k], logprob[k]);
          gradients[k] = {.logprob = static_cast<float>(derivative[k]),
                          .entropy = static_cast<float>(-share * options_.entropy_coef)};
        }
        totals.tokens += static_cast<int64_t>(n);
      },
      optimizer_.gradients());
  if (check_gate) totals.gate.Check(options_.logprob_gate, "grpo", kv_type_);
  const UpdateResult update = optimizer_.Update(learning_rate, loss);
  totals.loss += loss;
  totals.grad_norm += update.applied ? update.grad_norm : 0;
  totals.skipped += !update.applied;
  ++totals.updates;
}

std::map<std::string, double> Grpo::Train(std::span<const TrajectoryGroup> groups,
                                          double learning_rate, int64_t step) {
  std::map<std::string, double> metrics;
  std::vector<Sample> samples = Prepare(groups, step, metrics);
  Totals totals;
  // Log-probs can be compared only where learner and actor hold the same version: the first update
  // of a fresh batch; and where the learner's pass drops nothing, for the actor's did not.
  bool fresh = !recompute_ && !weights_.Drops();
  for (const auto& group : groups)
    fresh = fresh && (group.trajectories.empty() || group.policy.version == step);
  const auto n = samples.size();
  const auto minibatches = static_cast<size_t>(std::max<int64_t>(1, options_.minibatches));
  for (int64_t epoch = 0; epoch < options_.epochs && n > 0; ++epoch) {
    if (minibatches > 1) {
      RandomStream random(
          seed_, (kMinibatchStream << 32) + static_cast<uint64_t>(step * options_.epochs + epoch));
      for (size_t k = n - 1; k > 0; --k)
        std::swap(samples[k], samples[random.NextBelow(static_cast<uint32_t>(k + 1))]);
    }
    for (size_t b = 0; b < minibatches; ++b) {
      const size_t begin = n * b / minibatches, end = n * (b + 1) / minibatches;
      if (begin == end) continue;
      Minibatch(std::span(samples).subspan(begin, end - begin), learning_rate,
                fresh && epoch == 0 && b == 0, totals);
    }
  }

  const double tokens = static_cast<double>(std::max<int64_t>(1, totals.tokens));
  metrics["policy/loss"] = totals.updates ? totals.loss / static_cast<double>(totals.updates) : 0;
  // no group with a gradient: nothing was measured, and a 0 would read as a measurement
  if (totals.tokens > 0) {
    metrics["policy/entropy"] = totals.entropy / tokens;
    metrics["policy/ratio"] = totals.ratio / tokens;
    metrics["policy/clip_fraction"] = totals.clipped / tokens;
    metrics["policy/approx_kl"] = totals.approx_kl / tokens;
    if (options_.kl_coef > 0 && options_.kl_placement == KlPlacement::kLoss)
      metrics["objective/kl"] = totals.kl / tokens;
  }
  if (recompute_ && totals.tokens > 0) {
    metrics["sampling/importance_ratio"] = totals.importance / tokens;
    metrics["sampling/importance_masked"] = static_cast<double>(totals.masked) / tokens;
  }
  if (totals.gate.tokens()) {
    metrics["sampling/logprob_diff_mean"] = totals.gate.mean();
    metrics["sampling/logprob_diff_max"] = totals.gate.max();
  }
  metrics["optim/lr"] = learning_rate;
  metrics["optim/grad_norm"] =
      totals.updates ? totals.grad_norm / static_cast<double>(totals.updates) : 0;
  metrics["optim/skipped"] = static_cast<double>(optimizer_.skipped());
  metrics["policy/updates"] = static_cast<double>(totals.updates);
  metrics["perf/train_tokens"] = static_cast<double>(totals.forward_tokens);
  metrics["perf/shared_tokens"] = static_cast<double>(train_.TakeSharedTokens());
  return metrics;
}

}  // namespace plumb::learner
