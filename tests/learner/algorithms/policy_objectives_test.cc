// Objectives, KL terms, advantages and masks against TRL 1.16's and verl 0.9.1's own functions in
// float64 (tests/golden/policy_objectives.py), loss and gradient to 1e-9; and what they have to do
// where no peer says it.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "learner/algorithms/advantages.h"
#include "learner/algorithms/answer_loss.h"
#include "learner/algorithms/covariance.h"
#include "learner/algorithms/entropy_control.h"
#include "learner/algorithms/gae.h"
#include "learner/algorithms/grpo.h"
#include "learner/algorithms/off_policy.h"
#include "learner/algorithms/returns.h"
#include "learner/algorithms/training_mask.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;
using Rows = std::vector<std::vector<double>>;

const Json& Golden() {
  static const Json* const golden = [] {
    std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/policy_objectives.json");
    return new Json(Json::parse(file));
  }();
  return *golden;
}

void ExpectClose(double got, double want, const std::string& what) {
  EXPECT_NEAR(got, want, 1e-9 * std::max(1.0, std::abs(want))) << what;
}

template <class E>
E Named(const Json& name) {
  const auto value = configs::FromName<E>(name.get<std::string>());
  EXPECT_TRUE(value.has_value()) << name;
  return value.value_or(E{});
}

std::vector<double> Joined(const Rows& rows) {
  std::vector<double> out;
  for (const auto& row : rows) out.insert(out.end(), row.begin(), row.end());
  return out;
}

AnswerLossOptions OptionsOf(const Json& c) {
  const bool trl_cispo = c["source"] == "TRL" && c["objective"] == "cispo";
  AnswerLossOptions out{.objective = Named<Objective>(c["objective"]),
                        .level = Named<RatioLevel>(c["level"]),
                        .clip = {.low = c["low"],
                                 .high = c["high"].get<double>() - (trl_cispo ? 1 : 0),
                                 .dual = c.value("dual", 0.0)}};
  out.dro_beta = c.value("dro_beta", out.dro_beta);
  out.cov_kl_coef = c.value("ppo_kl_coef", out.cov_kl_coef);
  return out;
}

// By covariance or by entropy, over all tokens of the case.
std::vector<uint8_t> Picked(const Json& c, const AnswerLossOptions& options) {
  const std::vector<double> advantage = Joined(c["advantages"]), logprob = Joined(c["logps"]),
                            old = Joined(c["old"]);
  if (options.objective == Objective::kClipCov)
    return ClipCovTokens<double>(advantage, logprob, old, options.clip, c["clip_cov_ratio"],
                                 c["clip_cov_lb"], c["clip_cov_ub"], RandomStream(1, 2));
  if (options.objective == Objective::kKlCov)
    return KlCovTokens<double>(advantage, logprob, c["kl_cov_ratio"]);
  return {};
}

TEST(PolicyObjectivesTest, EqualTheirPeersLossAndGradient) {
  std::set<std::string> seen;
  for (const Json& c : Golden()["objectives"]) {
    const std::string name = c["name"];
    const AnswerLossOptions options = OptionsOf(c);
    const auto aggregation = Named<Aggregation>(c["aggregation"]);
    const Rows logps = c["logps"], old = c["old"], advantages = c["advantages"],
               gradient = c["gradient"];
    const std::vector<uint8_t> picked = Picked(c, options);
    const double entropy_bound =
        c.contains("quantile") ? EntropyBound(Joined(c["entropies"]), c["quantile"]) : 0;
    const auto tokens = static_cast<int64_t>(Joined(logps).size());
    double loss = 0;
    int64_t clipped = 0;
    size_t at = 0;
    for (size_t i = 0; i < logps.size(); ++i) {
      const size_t n = logps[i].size();
      const double share =
          TokenWeight(aggregation, static_cast<int64_t>(n), static_cast<int64_t>(logps.size()),
                      tokens, Golden()["max_tokens"]);
      std::vector<double> weight(n, share), derivative(n, std::nan("")), importance;
      if (c.contains("importance")) importance = c["importance"][i].get<std::vector<double>>();
      for (size_t k = 0; c.contains("quantile") && k < n; ++k) {
        if (c["entropies"][i][k] < entropy_bound) weight[k] = 0;
      }
      if (c.contains("threshold")) {
        const std::vector<double> sampled = c["sampled"][i];
        SequenceMask<double>(c["threshold"], advantages[i], logps[i], sampled, weight);
      }
      const std::vector<uint8_t> mine =
          picked.empty()
              ? picked
              : std::vector<uint8_t>(picked.begin() + static_cast<std::ptrdiff_t>(at),
                                     picked.begin() + static_cast<std::ptrdiff_t>(at + n));
      at += n;
      const auto out = AnswerLoss<double>(options,
                                          {.advantage = advantages[i],
                                           .logprob = logps[i],
                                           .old_logprob = old[i],
                                           .weight = weight,
                                           .importance = importance,
                                           .picked = mine},
                                          derivative);
      loss += out.value;
      clipped += out.clipped;
      if (c.contains("beta")) {
        const std::vector<double> reference = c["reference"][i],
                                  kl_weight(n, share * c["beta"].get<double>());
        loss += AnswerKl<double>({.bias_correction = c["bias_correction"]}, options.level, logps[i],
                                 old[i], reference, kl_weight, derivative)
                    .value;
      }
      for (size_t k = 0; k < n; ++k)
        ExpectClose(derivative[k], gradient[i][k],
                    name + " gradient " + std::to_string(i) + "," + std::to_string(k));
    }
    ExpectClose(loss, c["loss"], name);
    seen.insert(c["objective"]);
    const bool cuts = c["objective"] == "cispo" || name.starts_with("dppo") ||
                      name.starts_with("geo_mean") || name == "clip_cov" || name == "vanilla";
    if (cuts) {
      EXPECT_GT(clipped, 0) << name << " cuts nothing: a weak case";
    }
  }
  EXPECT_EQ(seen.size(), configs::kNames<Objective>.size()) << "an objective without a peer";
}

TEST(PolicyObjectivesTest, DerivativesMatchFiniteDifferences) {
  // Where the weight has a gradient of its own; the others are held by their peers.
  const std::vector<double> old = {-1.0, -0.4, -2.2, -0.9}, weight = {0.1, 0.2, 0.3, 0.15},
                            importance = {0.9, 1.2, 1.1, 0.8};
  for (const double a : {0.7, -1.3}) {
    const std::vector<double> advantage(4, a);
    for (const auto& [objective, level] : {std::pair(Objective::kSapo, RatioLevel::kToken),
                                           {Objective::kSapo, RatioLevel::kSequence},
                                           {Objective::kGeometric, RatioLevel::kToken},
                                           {Objective::kDro, RatioLevel::kToken},
                                           {Objective::kKlCov, RatioLevel::kToken}}) {
      std::vector<double> lp = {-0.97, -0.45, -2.15, -0.91}, derivative(4), unused(4);
      const std::vector<uint8_t> picked = {0, 1, 0, 1};
      const AnswerLossOptions options{.objective = objective, .level = level};
      const AnswerTokens<double> tokens{.advantage = advantage,
                                        .logprob = lp,
                                        .old_logprob = old,
                                        .weight = weight,
                                        .importance = importance,
                                        .picked = picked};
      AnswerLoss<double>(options, tokens, derivative);
      for (size_t k = 0; k < 4; ++k) {
        const double h = 1e-6, here = lp[k];
        lp[k] = here + h;
        const double up = AnswerLoss<double>(options, tokens, unused).value;
        lp[k] = here - h;
        const double down = AnswerLoss<double>(options, tokens, unused).value;
        lp[k] = here;
        EXPECT_NEAR(derivative[k], (up - down) / (2 * h), 1e-8) << NameOf(objective) << " " << k;
      }
    }
  }
}

TEST(PolicyObjectivesTest, ExtremeRatiosStayFinite) {
  const std::vector<double> lp = {-1e-3, -700}, old = {-900, -1e-3}, weight = {0.5, 0.5},
                            advantage = {-3, -3};
  for (size_t o = 0; o < configs::kNames<Objective>.size(); ++o) {
    std::vector<double> derivative(2);
    const auto out = AnswerLoss<double>(
        {.objective = static_cast<Objective>(o)},
        {.advantage = advantage, .logprob = lp, .old_logprob = old, .weight = weight}, derivative);
    EXPECT_TRUE(std::isfinite(out.value)) << configs::kNames<Objective>[o];
    for (const double d : derivative)
      EXPECT_TRUE(std::isfinite(d)) << configs::kNames<Objective>[o];
  }
}

TEST(KlTermTest, EstimatesEqualVerl) {
  ASSERT_EQ(Golden()["kl"].size(), 7u);
  for (const Json& c : Golden()["kl"]) {
    const auto estimator = Named<KlEstimator>(c["estimator"]);
    for (size_t k = 0; k < c["logprob"].size(); ++k) {
      const auto kl = KlEstimate<double>(estimator, c["straight_through"].get<bool>(),
                                         c["logprob"][k].get<double>(), c["reference"][k]);
      ExpectClose(kl.value, c["value"][k], c["estimator"]);
      ExpectClose(kl.derivative, c["derivative"][k], c["estimator"]);
    }
  }
}

// The groups of the peers' case.
std::vector<GroupRewards> VerlGroups() {
  std::vector<GroupRewards> out;
  const Json& c = Golden()["verl_advantages"];
  for (size_t g = 0; g < c["rewards"].size(); ++g)
    out.push_back({.rewards = c["rewards"][g],
                   .counts = std::vector<unsigned char>(c["rewards"][g].size(), 1),
                   .lengths = c["lengths"][g]});
  return out;
}

TEST(AdvantagesTest, EqualVerl) {
  const Json& c = Golden()["verl_advantages"];
  const std::vector<GroupRewards> groups = VerlGroups();
  for (const char* name : {"optimal", "pass_k", "pass_k_plain", "group_mean_batch_std"}) {
    configs::AlgorithmConfig options;
    options.advantage_eps = 1e-6;  // verl's
    options.advantage_std = std::string(name) != "pass_k_plain";
    options.advantage = Named<configs::Advantage>(
        std::string(name) == "pass_k_plain" ? Json("pass_k") : Json(name));
    options.pass_k = 1000;  // the whole group, which is verl's
    std::vector<GroupAdvantage> got = AdvantagesOf(options, groups);
    if (WhitenedOverTokens(options.advantage)) {
      Rows rows;
      for (size_t g = 0; g < groups.size(); ++g) {
        for (size_t i = 0; i < groups[g].rewards.size(); ++i)
          rows.emplace_back(static_cast<size_t>(groups[g].lengths[i]), got[g].advantage[i]);
      }
      Whiten<double>(rows);
      size_t at = 0;
      for (GroupAdvantage& of : got) {
        for (double& a : of.advantage) a = rows[at++][0];
      }
    }
    for (size_t g = 0; g < groups.size(); ++g) {
      for (size_t i = 0; i < groups[g].rewards.size(); ++i)
        ExpectClose(got[g].advantage[i], c[name][g][i], name);
    }
  }
}

TEST(AdvantagesTest, TheGreedyAnswerIsTheBaseline) {
  const Json& c = Golden()["verl_advantages"];
  for (size_t g = 0; g < c["rewards"].size(); ++g) {
    for (size_t i = 0; i < c["rewards"][g].size(); ++i) {
      // verl has the baseline of each answer beside it, here it is the group's last member.
      const std::vector<double> rewards = {c["rewards"][g][i], c["greedy_baselines"][g][i]};
      const std::vector<unsigned char> both = {1, 1}, alone = {1, 0};
      ExpectClose(GreedyBaselineAdvantages(rewards, both, 1).advantage[0], c["greedy"][g][i],
                  "remax");
      EXPECT_EQ(GreedyBaselineAdvantages(rewards, both, 1).advantage[1], 0);
      EXPECT_EQ(GreedyBaselineAdvantages(rewards, alone, 1).advantage[0], 0);
    }
  }
}

TEST(AdvantagesTest, EqualTrlOverABatch) {
  const Json& c = Golden()["trl_advantages"];
  for (const char* name : {"std_over_batch", "normalize_then_sum"}) {
    configs::AlgorithmConfig options;
    if (std::string(name) == "std_over_batch") options.std_over = configs::StdOver::kBatch;
    else options.reward_aggregation = configs::RewardAggregation::kNormalizeThenSum;
    std::vector<GroupRewards> groups(2);
    for (size_t row = 0; row < c["rewards"].size(); ++row) {
      GroupRewards& of = groups[row / 4];
      double sum = 0;
      bool scored = false;
      for (size_t p = 0; p < 2; ++p) {
        auto& part = of.parts["part " + std::to_string(p)];
        part.weight = c["weights"][p];
        const Json& value = c["rewards"][row][p];
        part.values.push_back(value.is_null() ? std::nan("") : value.get<double>());
        if (value.is_null()) continue;
        sum += part.weight * value.get<double>();
        scored = true;
      }
      of.rewards.push_back(sum);
      of.counts.push_back(scored);
      of.lengths.push_back(1);
    }
    const std::vector<GroupAdvantage> got = AdvantagesOf(options, groups);
    for (size_t row = 0; row < c["rewards"].size(); ++row)
      ExpectClose(got[row / 4].advantage[row % 4], c[name][row], name);
  }
}

// All choices of k - 1 others, one by one.
double PassKByHand(const std::vector<double>& r, size_t i, size_t k) {
  double sum = 0;
  int choices = 0;
  for (unsigned set = 0; set < (1u << r.size()); ++set) {
    if ((set >> i) & 1u || static_cast<size_t>(__builtin_popcount(set)) != k - 1) continue;
    double best = -1e9;
    for (size_t j = 0; j < r.size(); ++j) {
      if ((set >> j) & 1u) best = std::max(best, r[j]);
    }
    sum += std::max(best, r[i]) - best;
    ++choices;
  }
  return sum / choices;
}

TEST(AdvantagesTest, PassKIsTheMeanOverAllChoices) {
  const std::vector<double> r = {0.5, 1, 0, 0.25, 1, 0.125};
  const std::vector<unsigned char> counts(r.size(), 1);
  for (int64_t k = 2; k <= 6; ++k) {
    const GroupAdvantage got = PassKAdvantages(r, counts, k, false, 0);
    for (size_t i = 0; i < r.size(); ++i)
      EXPECT_NEAR(got.advantage[i], PassKByHand(r, i, static_cast<size_t>(k)), 1e-14)
          << k << " " << i;
  }
  EXPECT_TRUE(
      PassKAdvantages(std::vector<double>{1, 1}, std::vector<unsigned char>{1, 1}, 2, true, 1e-4)
          .equal);
}

TEST(RejectionTest, MasksEqualVerl) {
  int64_t kept = 0, dropped = 0;
  for (const Json& c : Golden()["rejections"]) {
    const OffPolicyOptions<double> options{
        .mode = Named<OffPolicy>(c["mode"]), .floor = c["floor"], .cap = c["cap"]};
    const Rows proximal = c["proximal"], behaviour = c["behaviour"], want = c["weight"];
    for (size_t i = 0; i < want.size(); ++i) {
      std::vector<double> weight(want[i].size(), -1);
      OffPolicyWeights<double>(options, proximal[i], behaviour[i], weight);
      EXPECT_EQ(weight, want[i]) << c["mode"];
      (weight[0] == 0 ? dropped : kept) += 1;
    }
  }
  EXPECT_GT(kept, 4);
  EXPECT_GT(dropped, 4);
}

TEST(EntropyControlTest, FollowsTrl) {
  const Json& c = Golden()["entropy_control"];
  EntropyControl control(c["begin"], c["target"]);
  for (const Json& step : c["steps"]) {
    ExpectClose(control.applied(), step["applied"], step.dump());
    control.Update(step["entropy"]);
    ExpectClose(control.coefficient(), step["coefficient"], step.dump());
  }
  EntropyControl again(0.5, c["target"]);
  again.Restore(control.coefficient(), control.last());
  EXPECT_EQ(again.applied(), control.applied());
  const double before = control.coefficient();
  control.Update(std::nan(""));
  EXPECT_EQ(control.coefficient(), before);
  EntropyControl fixed(0.3, 0);
  fixed.Update(9);
  EXPECT_EQ(fixed.applied(), 0.3);
}

TEST(CovarianceTest, ChanceTakesSoManyAndTheSameAgain) {
  std::vector<double> advantage, logprob, old;
  for (int k = 0; k < 400; ++k) {
    advantage.push_back(std::sin(k * 1.7));
    logprob.push_back(-1 - std::cos(k * 0.9));
    old.push_back(logprob.back());
  }
  const auto pick = [&](uint64_t stream) {
    return ClipCovTokens<double>(advantage, logprob, old, {}, 0.01, 0.05, 0.4,
                                 RandomStream(1, stream));
  };
  const std::vector<double> cov = Covariances<double>(advantage, logprob);
  const auto picked = pick(1);
  EXPECT_EQ(std::count(picked.begin(), picked.end(), 1), 4);
  EXPECT_EQ(picked, pick(1));
  EXPECT_NE(picked, pick(2));
  for (size_t k = 0; k < picked.size(); ++k) {
    if (picked[k]) {
      EXPECT_GT(cov[k], 0.05);
      EXPECT_LT(cov[k], 0.4);
    }
  }
  const auto none =
      ClipCovTokens<double>(advantage, logprob, old, {}, 0.01, 5, 6, RandomStream(1, 1));
  EXPECT_EQ(std::count(none.begin(), none.end(), 1), 0);
}

}  // namespace
}  // namespace plumb::learner
