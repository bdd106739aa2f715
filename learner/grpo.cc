#include "learner/grpo.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/error.h"
#include "common/rng.h"
#include "learner/returns.h"

namespace plumb::learner {
namespace {

constexpr uint64_t kMinibatchStream = 0x6290;

KlEstimator ParseEstimator(const std::string& name) {
  if (name == "k1") return KlEstimator::kK1;
  if (name == "k2") return KlEstimator::kK2;
  if (name == "k3") return KlEstimator::kK3;
  throw Error(ErrorCode::kInvalidArgument, "unknown algorithm.kl_estimator '" + name + "': use k1, k2 or k3");
}

Aggregation ParseAggregation(const std::string& name) {
  if (name == "token") return Aggregation::kToken;
  if (name == "sequence") return Aggregation::kSequence;
  if (name == "constant") return Aggregation::kConstant;
  throw Error(ErrorCode::kInvalidArgument,
              "unknown algorithm.aggregation '" + name + "': use token, sequence or constant");
}

SequenceView View(const Trajectory& t) { return {t.tokens, t.loss_mask}; }

// Values at the scored tokens (token 0 is never scored: nothing precedes it).
std::vector<float> AtScored(const Trajectory& t, const std::vector<float>& values) {
  std::vector<float> out;
  for (size_t i = 1; i < t.tokens.size(); ++i) {
    if (t.loss_mask[i]) out.push_back(values[i]);
  }
  return out;
}

bool Usable(const Trajectory& t) {
  return t.scored && t.finish != FinishReason::kAborted;
}

}  // namespace

double TokenWeight(Aggregation aggregation, int64_t length, int64_t sequences, int64_t tokens, int64_t max_new_tokens) {
  switch (aggregation) {
    case Aggregation::kToken: return 1.0 / static_cast<double>(tokens);
    case Aggregation::kSequence: return 1.0 / (static_cast<double>(sequences) * static_cast<double>(length));
    case Aggregation::kConstant: return 1.0 / (static_cast<double>(sequences) * static_cast<double>(max_new_tokens));
  }
  return 0;
}

struct Grpo::Totals {
  double loss = 0, kl = 0, entropy = 0, ratio = 0, clipped = 0, approx_kl = 0, importance = 0;
  double logprob_diff = 0, logprob_diff_max = 0;
  double grad_norm = 0;
  int64_t tokens = 0, gate_tokens = 0, importance_tokens = 0, updates = 0, skipped = 0, forward_tokens = 0;
};

Grpo::Grpo(const configs::Config& config, TrainStep& train, policy_model::Weights& weights, Optimizer& optimizer,
           ReferencePolicy* reference)
    : options_(config.algorithm),
      temperature_(config.rollout.temperature > 0 ? static_cast<float>(config.rollout.temperature) : 1.0f),
      max_new_tokens_(config.rollout.max_new_tokens),
      seed_(config.run.seed),
      estimator_(ParseEstimator(options_.kl_estimator)),
      aggregation_(ParseAggregation(options_.aggregation)),
      clip_{.low = options_.clip_low, .high = options_.clip_high, .dual = options_.dual_clip},
      train_(train),
      weights_(weights),
      optimizer_(optimizer),
      reference_(reference) {
  if (options_.kl_coef > 0 && !reference_) {
    throw Error(ErrorCode::kInvalidArgument, "algorithm.kl_coef > 0 needs a reference policy");
  }
}

std::vector<Grpo::Sample> Grpo::Prepare(std::span<const TrajectoryGroup> groups,
                                        std::map<std::string, double>& metrics) {
  const bool kl_in_reward = options_.kl_coef > 0 && options_.kl_placement == "reward";
  const bool kl_in_loss = options_.kl_coef > 0 && !kl_in_reward;

  // Reference log-probs are needed for every usable answer (reward) or for those with a gradient (loss).
  double reward_sum = 0, reward_squares = 0, length_sum = 0, kl_sum = 0;
  double length_min = 0, length_max = 0;
  int64_t scored = 0, answers = 0, unscored = 0, clipped = 0, zero_std = 0, kl_sequences = 0, used_groups = 0;
  std::map<std::string, std::pair<double, int64_t>> parts;
  std::vector<Sample> samples;
  for (const auto& group : groups) {
    std::vector<double> rewards;
    std::vector<unsigned char> counts;
    std::vector<std::vector<float>> reference;
    std::vector<SequenceView> views;
    for (const auto& t : group.trajectories) views.push_back(View(t));
    if (kl_in_reward) reference = reference_->Score(views, temperature_);
    for (size_t i = 0; i < group.trajectories.size(); ++i) {
      const Trajectory& t = group.trajectories[i];
      const auto length = static_cast<double>(t.completion_length());
      length_min = answers == 0 ? length : std::min(length_min, length);
      length_max = std::max(length_max, length);
      length_sum += length;
      ++answers;
      clipped += t.finish == FinishReason::kLength;
      double reward = t.reward;
      if (kl_in_reward) {
        const std::vector<float> lp = AtScored(t, t.logprobs);
        double kl = 0;
        for (size_t k = 0; k < lp.size(); ++k) {
          kl += KlEstimate<double>(estimator_, static_cast<double>(lp[k]), static_cast<double>(reference[i][k])).value;
        }
        kl_sum += kl;
        ++kl_sequences;
        reward -= options_.kl_coef * kl;
      }
      rewards.push_back(reward);
      counts.push_back(Usable(t));
      if (!Usable(t)) {
        ++unscored;
        continue;
      }
      ++scored;
      reward_sum += t.reward;
      reward_squares += t.reward * t.reward;
      for (const auto& part : t.rewards) {
        parts[part.name].first += part.value;
        parts[part.name].second += 1;
      }
    }
    const GroupAdvantage advantage =
        GroupAdvantages(rewards, counts, options_.advantage_std, options_.advantage_eps);
    zero_std += advantage.equal;
    if (advantage.equal && options_.skip_equal_groups) continue;
    ++used_groups;
    for (size_t i = 0; i < group.trajectories.size(); ++i) {
      if (!counts[i]) continue;
      Sample sample{.trajectory = &group.trajectories[i], .advantage = advantage.advantage[i]};
      sample.old_logprob = AtScored(*sample.trajectory, sample.trajectory->logprobs);
      sample.tokens = static_cast<int64_t>(sample.old_logprob.size());
      if (sample.tokens > 0) samples.push_back(std::move(sample));
    }
  }
  if (kl_in_loss && !samples.empty()) {
    std::vector<SequenceView> views;
    for (const auto& s : samples) views.push_back(View(*s.trajectory));
    auto reference = reference_->Score(views, temperature_);
    for (size_t i = 0; i < samples.size(); ++i) samples[i].reference = std::move(reference[i]);
  }
  if (options_.recompute_logprobs && !samples.empty()) {
    std::vector<SequenceView> views;
    for (const auto& s : samples) views.push_back(View(*s.trajectory));
    auto own = train_.Score(weights_, views, temperature_);
    for (size_t i = 0; i < samples.size(); ++i) {
      Sample& s = samples[i];
      s.importance.resize(own[i].size());
      for (size_t k = 0; k < own[i].size(); ++k) {
        s.importance[k] = TruncatedImportance(own[i][k], s.old_logprob[k], static_cast<float>(options_.tis_cap));
      }
      s.old_logprob = std::move(own[i]);
    }
  }

  const double mean = scored ? reward_sum / static_cast<double>(scored) : 0;
  metrics["reward/mean"] = mean;
  metrics["reward/std"] = scored ? std::sqrt(std::max(0.0, reward_squares / static_cast<double>(scored) - mean * mean)) : 0;
  metrics["reward/zero_std_groups"] = static_cast<double>(zero_std);
  metrics["reward/unscored"] = static_cast<double>(unscored);
  for (const auto& [name, sum] : parts) metrics["reward/" + name + "/mean"] = sum.first / static_cast<double>(sum.second);
  metrics["response_length/mean"] = answers ? length_sum / static_cast<double>(answers) : 0;
  metrics["response_length/min"] = length_min;
  metrics["response_length/max"] = length_max;
  metrics["response_length/clipped"] = answers ? static_cast<double>(clipped) / static_cast<double>(answers) : 0;
  metrics["policy/groups_used"] = static_cast<double>(used_groups);
  if (kl_sequences) metrics["objective/kl"] = kl_sum / static_cast<double>(kl_sequences);
  return samples;
}

void Grpo::Minibatch(std::span<Sample> samples, double learning_rate, bool check_gate, Totals& totals) {
  int64_t tokens = 0;
  std::vector<SequenceView> views;
  for (const auto& s : samples) {
    tokens += s.tokens;
    views.push_back(View(*s.trajectory));
    totals.forward_tokens += static_cast<int64_t>(s.trajectory->tokens.size());
  }
  const auto sequences = static_cast<int64_t>(samples.size());
  double loss = 0;
  std::vector<size_t> next(samples.size(), 0);  // scored tokens seen of each sequence
  optimizer_.ZeroGrad();
  train_.Accumulate(
      weights_, views, temperature_,
      [&](const ScoredToken& token) {
        const auto s = static_cast<size_t>(token.sequence);
        const Sample& sample = samples[s];
        const size_t k = next[s]++;
        const double weight = TokenWeight(aggregation_, sample.tokens, sequences, tokens, max_new_tokens_);
        const auto lp = static_cast<double>(token.logprob);
        const auto old = static_cast<double>(sample.old_logprob[k]);
        const auto surrogate = ClippedSurrogate<double>(lp, old, sample.advantage, clip_);
        const double importance = sample.importance.empty() ? 1.0 : static_cast<double>(sample.importance[k]);
        double value = importance * surrogate.value;
        double derivative = importance * surrogate.derivative;
        if (!sample.reference.empty()) {
          const auto kl = KlEstimate<double>(estimator_, lp, static_cast<double>(sample.reference[k]));
          value += options_.kl_coef * kl.value;
          derivative += options_.kl_coef * kl.derivative;
          totals.kl += kl.value;
        }
        value -= options_.entropy_coef * static_cast<double>(token.entropy);
        loss += weight * value;
        totals.entropy += static_cast<double>(token.entropy);
        totals.ratio += surrogate.ratio;
        totals.clipped += surrogate.clipped;
        totals.approx_kl += old - lp;
        totals.importance += importance;
        if (check_gate) {
          const double diff = std::abs(lp - old);
          totals.logprob_diff += diff;
          totals.logprob_diff_max = std::max(totals.logprob_diff_max, diff);
          ++totals.gate_tokens;
        }
        ++totals.tokens;
        return TrainStep::Gradient{static_cast<float>(weight * derivative),
                                   static_cast<float>(-weight * options_.entropy_coef)};
      },
      optimizer_.grad());
  if (check_gate && totals.gate_tokens > 0) {
    const double mean = totals.logprob_diff / static_cast<double>(totals.gate_tokens);
    if (options_.logprob_gate > 0 && !(mean <= options_.logprob_gate)) {
      throw Error(ErrorCode::kConflict,
                  "log-probs of actor and learner differ by " + std::to_string(mean) + " nats on average, more than " +
                      "algorithm.logprob_gate = " + std::to_string(options_.logprob_gate) +
                      ": they do not compute the same policy (other weights, dtype or sampling filters)",
                  "grpo");
    }
  }
  const UpdateResult update = optimizer_.Update(learning_rate, loss);
  totals.loss += loss;
  totals.grad_norm += update.applied ? update.grad_norm : 0;
  totals.skipped += !update.applied;
  ++totals.updates;
}

std::map<std::string, double> Grpo::Train(std::span<const TrajectoryGroup> groups, double learning_rate, int64_t step) {
  std::map<std::string, double> metrics;
  std::vector<Sample> samples = Prepare(groups, metrics);
  Totals totals;
  // Log-probs can be compared only where learner and actor hold the same version: the first update of a fresh batch.
  bool fresh = !options_.recompute_logprobs;
  for (const auto& group : groups) fresh = fresh && (group.trajectories.empty() || group.policy.version == step);
  const auto n = samples.size();
  const auto minibatches = static_cast<size_t>(std::max<int64_t>(1, options_.minibatches));
  for (int64_t epoch = 0; epoch < options_.epochs && n > 0; ++epoch) {
    if (minibatches > 1) {
      RandomStream random(seed_, (kMinibatchStream << 32) + static_cast<uint64_t>(step * options_.epochs + epoch));
      for (size_t k = n - 1; k > 0; --k) std::swap(samples[k], samples[random.NextBelow(static_cast<uint32_t>(k + 1))]);
    }
    for (size_t b = 0; b < minibatches; ++b) {
      const size_t begin = n * b / minibatches, end = n * (b + 1) / minibatches;
      if (begin == end) continue;
      Minibatch(std::span(samples).subspan(begin, end - begin), learning_rate, fresh && epoch == 0 && b == 0, totals);
    }
  }

  const double tokens = static_cast<double>(std::max<int64_t>(1, totals.tokens));
  metrics["policy/loss"] = totals.updates ? totals.loss / static_cast<double>(totals.updates) : 0;
  metrics["policy/entropy"] = totals.entropy / tokens;
  metrics["policy/ratio"] = totals.tokens ? totals.ratio / tokens : 1;
  metrics["policy/clip_fraction"] = totals.clipped / tokens;
  metrics["policy/approx_kl"] = totals.approx_kl / tokens;
  if (options_.kl_coef > 0 && options_.kl_placement == "loss") metrics["objective/kl"] = totals.kl / tokens;
  if (options_.recompute_logprobs) metrics["sampling/importance_ratio"] = totals.importance / tokens;
  if (totals.gate_tokens) {
    metrics["sampling/logprob_diff_mean"] = totals.logprob_diff / static_cast<double>(totals.gate_tokens);
    metrics["sampling/logprob_diff_max"] = totals.logprob_diff_max;
  }
  metrics["optim/lr"] = learning_rate;
  metrics["optim/grad_norm"] = totals.updates ? totals.grad_norm / static_cast<double>(totals.updates) : 0;
  metrics["optim/skipped"] = static_cast<double>(optimizer_.skipped());
  metrics["policy/updates"] = static_cast<double>(totals.updates);
  metrics["perf/train_tokens"] = static_cast<double>(totals.forward_tokens);
  return metrics;
}

}  // namespace plumb::learner
