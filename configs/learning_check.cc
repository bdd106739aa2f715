#include "configs/learning_check.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <optional>
#include <utility>

#include "common/base/device.h"
#include "common/base/error.h"
#include "configs/checks/distill_check.h"
#include "configs/checks/loss_weights.h"
#include "configs/number_list.h"
#include "configs/pattern_number.h"
#include "configs/value_text.h"

namespace plumb::configs {
namespace {

// Options that change a formula, and what they need.
void ValidateObjective(const Config& c, Problems& p) {
  const AlgorithmConfig& a = c.algorithm;
  const AlgorithmConfig none;
  const auto of = [&](Objective objective, bool set, const char* option) {
    p.Require(!set || a.objective == objective,
              std::string("algorithm.") + option + " is of algorithm.objective = \"" +
                  NameOf(objective) + "\": set that, or take it out.");
  };
  of(Objective::kSapo, a.sapo_tau_positive != none.sapo_tau_positive, "sapo_tau_positive");
  of(Objective::kSapo, a.sapo_tau_negative != none.sapo_tau_negative, "sapo_tau_negative");
  of(Objective::kVespo, a.vespo != none.vespo, "vespo");
  of(Objective::kDro, a.dro_beta != none.dro_beta, "dro_beta");
  of(Objective::kClipCov, a.cov_low != none.cov_low, "cov_low");
  of(Objective::kClipCov, a.cov_high != none.cov_high, "cov_high");
  of(Objective::kKlCov, a.cov_kl_coef != none.cov_kl_coef, "cov_kl_coef");
  p.Require(
      a.cov_share == none.cov_share || a.objective == Objective::kClipCov ||
          a.objective == Objective::kKlCov,
      "algorithm.cov_share is of algorithm.objective = \"clip_cov\" or \"kl_cov\": set one, or "
      "take it out.");
  p.Require(a.cov_low < a.cov_high, "algorithm.cov_low has to be below algorithm.cov_high.");
  try {
    for (const double number : ReadNumbers(a.vespo, 4, "algorithm.vespo"))
      p.Require(number >= 0 && std::isfinite(static_cast<float>(number)),
                "algorithm.vespo holds " + NumberText(number) +
                    ": k and lambda are 0 or more, and finite in 32 bits.");
  } catch (const Error& e) {
    p.Require(false, "algorithm.vespo " + e.message() + ": k and lambda, twice.");
  }
  p.Require(a.objective != Objective::kVespo || a.advantage != Advantage::kBatch,
            "algorithm.objective = \"vespo\" weighs whole answers, and algorithm.advantage = "
            "\"batch\" gives every token its own: choose another.");
  p.Require(a.objective != Objective::kGeometric || a.advantage != Advantage::kBatch,
            "algorithm.objective = \"geometric\" weighs whole answers, and algorithm.advantage = "
            "\"batch\" gives every token its own: choose another.");
  const bool in_loss = a.kl_coef > 0 && a.kl_placement == KlPlacement::kLoss;
  p.Require(!a.kl_bias_correction || in_loss,
            "algorithm.kl_bias_correction is of a KL term in the loss: set algorithm.kl_coef, with "
            "algorithm.kl_placement = \"loss\".");
  p.Require(!a.kl_straight_through || in_loss,
            "algorithm.kl_straight_through is about a gradient: set algorithm.kl_coef, with "
            "algorithm.kl_placement = \"loss\".");
  p.Require(!a.kl_bias_correction || !a.kl_straight_through,
            "algorithm.kl_bias_correction and algorithm.kl_straight_through are two ways to the "
            "same gradient: keep one of them.");
  p.Require(!a.kl_straight_through || a.kl_estimator != KlEstimator::kK2,
            "algorithm.kl_straight_through gives the gradient of k2, which algorithm.kl_estimator "
            "= \"k2\" has anyway: take it out.");
}

// Which tokens train, what advantages are of, and what moves beside the policy.
void ValidateFamily(const Config& c, Problems& p) {
  const AlgorithmConfig& a = c.algorithm;
  const AlgorithmConfig none;
  const bool ppo = a.name == AlgorithmName::kPpo;
  for (const auto& [option, set] :
       {std::pair("std_over", a.std_over != none.std_over),
        {"reward_aggregation", a.reward_aggregation != none.reward_aggregation},
        {"off_policy_sequence_mask", a.off_policy_sequence_mask > 0},
        {"mask_truncated", a.mask_truncated},
        {"entropy_quantile", a.entropy_quantile < 1},
        {"entropy_target", a.entropy_target > 0}})
    p.Require(
        !set || (!ppo && !IsOffline(c)),
        std::string("algorithm.") + option + " is an option of the GRPO family: take it out.");
  p.Require(a.pass_k == none.pass_k || a.advantage == Advantage::kPassK,
            "algorithm.pass_k is of algorithm.advantage = \"pass_k\": set that, or take it out.");
  p.Require(a.advantage != Advantage::kPassK || a.pass_k <= c.rollout.samples_per_prompt,
            "algorithm.pass_k is larger than rollout.samples_per_prompt.");
  p.Require(a.std_over == StdOver::kGroup || (a.advantage == Advantage::kGroup && a.advantage_std),
            "algorithm.std_over says what advantages are divided by: it needs algorithm.advantage "
            "= \"group\" and algorithm.advantage_std = true.");
  if (a.reward_aggregation == RewardAggregation::kNormalizeThenSum) {
    p.Require(a.advantage == Advantage::kGroup && a.advantage_std && a.std_over == StdOver::kGroup,
              "algorithm.reward_aggregation = \"normalize_then_sum\" normalises by group, then by "
              "batch: it needs algorithm.advantage = \"group\", algorithm.advantage_std = true and "
              "algorithm.std_over = \"group\".");
    p.Require(a.kl_coef == 0 || a.kl_placement == KlPlacement::kLoss,
              "algorithm.reward_aggregation = \"normalize_then_sum\" has no one reward that a KL "
              "could be taken from: set algorithm.kl_placement = \"loss\".");
    p.Require(c.reward.on_failure != OnFailure::kPenalty,
              "reward.on_failure = \"penalty\" gives an answer one reward, and "
              "algorithm.reward_aggregation = \"normalize_then_sum\" goes by its parts: use "
              "another.");
  }
  p.Require(
      a.advantage != Advantage::kGreedy ||
          (c.rollout.top_k == 0 && c.rollout.top_p >= 1 && c.rollout.min_p == 0),
      "algorithm.advantage = \"greedy\" draws one answer of a group without the filters of the "
      "others, which rollout.top_k, top_p and min_p record for all of them: take these out.");
  p.Require(
      a.advantage != Advantage::kGreedy || c.replay.groups_per_step == 0,
      "algorithm.advantage = \"greedy\" compares with the answer of the policy as it was: leave "
      "replay.groups_per_step at 0.");
  p.Require(a.advantage != Advantage::kGreedy || a.refill_rounds == 0,
            "algorithm.advantage = \"greedy\" compares with one answer of the group: leave "
            "algorithm.refill_rounds at 0.");
  p.Require(a.entropy_target == 0 || a.entropy_coef <= 1,
            "algorithm.entropy_target moves algorithm.entropy_coef within [0, 1]: begin there.");
  p.Require(a.reference_sync_every == 0 || ((a.kl_coef > 0 || TeachesItself(c)) && !IsOffline(c)),
            "algorithm.reference_sync_every renews the reference of a KL term, or of a policy that "
            "teaches itself: set algorithm.kl_coef.");
  p.Require(a.reference_sync_every == 0 || c.policy.adapter == Adapter::kNone,
            "algorithm.reference_sync_every mixes the policy into a copy of the model, and the "
            "reference of policy.adapter is the model without it: take one out.");
  p.Require(a.reference_mix == none.reference_mix || a.reference_sync_every > 0,
            "algorithm.reference_mix is of algorithm.reference_sync_every: set that, or take it "
            "out.");
  p.Require(a.off_policy != OffPolicy::kKlMask || a.tis_floor == 0,
            "algorithm.tis_floor bounds weights from below, and algorithm.off_policy = \"kl_mask\" "
            "has one bound, algorithm.tis_cap: take it out.");
}

// What preference.losses names, or preference.loss.
std::vector<PreferenceLossKind> LossKinds(const PreferenceConfig& c, Problems& p) {
  if (c.losses.empty()) return {c.loss};
  std::vector<PreferenceLossKind> out;
  try {
    const std::vector<PatternNumber> losses = ReadPatternNumbers(c.losses, "preference.losses");
    if (const std::string wrong = WrongLossWeights(losses); !wrong.empty())
      p.Require(false, "preference.losses " + wrong + ".");
    for (const auto& [name, weight] : losses) {
      const auto kind = FromName<PreferenceLossKind>(name);
      p.Require(kind.has_value() && kind != PreferenceLossKind::kKto,
                "preference.losses holds \"" + name + "\": use " +
                    ListOfNames<PreferenceLossKind>() + ", but for kto.");
      if (kind) out.push_back(*kind);
    }
  } catch (const Error& e) {
    p.Require(false, "preference.losses " + e.message() + ", as \"sigmoid=0.8\".");
  }
  return out;
}

void ValidatePreference(const Config& config, Problems& p) {
  using Kind = PreferenceLossKind;
  const PreferenceConfig& c = config.preference;
  const PreferenceConfig none;
  const bool dpo = config.algorithm.name == AlgorithmName::kDpo;
  for (const auto& [option, set] : {std::pair("losses", !c.losses.empty()),
                                    {"divergence", c.divergence != none.divergence},
                                    {"ld_alpha", c.ld_alpha != none.ld_alpha},
                                    {"discopop_tau", c.discopop_tau != none.discopop_tau},
                                    {"weighted", c.weighted}})
    p.Require(!set || dpo, std::string("preference.") + option +
                               " is an option of algorithm.name = \"dpo\": take it out.");
  p.Require(c.losses.empty() || c.loss == none.loss,
            "preference.loss and preference.losses both say what is minimised: keep one.");
  p.Require(c.divergence == Divergence::kAlpha || c.divergence_alpha == none.divergence_alpha,
            "preference.divergence_alpha is of preference.divergence = \"alpha_divergence\": set "
            "that, or take it out.");
  if (!dpo) return;
  const std::vector<Kind> kinds = LossKinds(c, p);
  const auto any = [&](std::initializer_list<Kind> of) {
    return std::any_of(kinds.begin(), kinds.end(), [&](Kind kind) {
      return std::find(of.begin(), of.end(), kind) != of.end();
    });
  };
  p.Require(
      !any({Kind::kExoPair}) || c.label_smoothing > 0,
      "preference.loss \"exo_pair\" takes the logarithm of preference.label_smoothing: set that "
      "above 0, for example to 0.001.");
  p.Require(c.divergence == Divergence::kReverseKl ||
                any({Kind::kSigmoid, Kind::kHinge, Kind::kIpo, Kind::kRobust, Kind::kExoPair,
                     Kind::kDiscopop, Kind::kSigmoidNorm}),
            "preference.divergence changes the scores of sigmoid, hinge, ipo, robust, exo_pair, "
            "discopop and sigmoid_norm, and preference.loss has none of them: take it out.");
  p.Require(c.ld_alpha == 1 || !any({Kind::kKto, Kind::kSimpo, Kind::kOrpo, Kind::kSft}),
            "preference.ld_alpha weighs the tokens of log-ratios: it does not go with kto, simpo, "
            "orpo and sft.");
  p.Require(c.discopop_tau == none.discopop_tau || any({Kind::kDiscopop}),
            "preference.discopop_tau is of the loss \"discopop\": use that, or take it out.");
  p.Require(!any({Kind::kAot, Kind::kAotUnpaired}) || c.batch >= 2,
            "preference.loss \"aot\" and \"aot_unpaired\" compare the pairs of a batch: set "
            "preference.batch to 2 at least.");
  p.Require(!c.weighted || !any({Kind::kAot, Kind::kAotUnpaired, Kind::kSft, Kind::kKto,
                                 Kind::kSimpo, Kind::kOrpo}),
            "preference.weighted weighs pairs by themselves that are held against a reference: it "
            "does not go with aot, aot_unpaired, sft, kto, simpo and orpo.");
}

void ValidateMuon(const Config& c, Problems& p) {
  const OptimizerConfig& o = c.optimizer;
  const OptimizerConfig none;
  const bool muon = o.name == OptimizerName::kMuon;
  p.Require(muon || (o.muon_learning_rate == none.muon_learning_rate &&
                     o.muon_momentum == none.muon_momentum),
            "optimizer.muon_learning_rate and optimizer.muon_momentum are of optimizer.name = "
            "\"muon\": set that, or take them out.");
  if (!muon) return;
  p.Require(c.policy.adapter == Adapter::kNone,
            "optimizer.name = \"muon\" is of the matrices of a model, and policy.adapter trains "
            "others: use \"adamw\".");
  p.Require(o.moments == Moments::kFloat32 && o.masters == Masters::kFloat32,
            "optimizer.name = \"muon\" keeps momentum and masters as float32: leave "
            "optimizer.moments and optimizer.masters out.");
  p.Require(
      c.run.parallel.empty() || c.run.zero == 0,
      "optimizer.name = \"muon\" updates whole matrices, and run.zero cuts them: set it to 0.");
}

// Gradients in two bytes are those of a whole model on one rank, which AdamW reads.
void ValidateGradients(const Config& c, Problems& p) {
  if (c.optimizer.gradients == Gradients::kFloat32) return;
  const std::string option = "optimizer.gradients = \"bfloat16\" ";
  p.Require(c.policy.adapter == Adapter::kNone,
            option +
                "is of a whole model, and policy.adapter trains few parameters: leave it at "
                "\"float32\".");
  p.Require(c.optimizer.name == OptimizerName::kAdamW,
            option + "goes with optimizer.name = \"adamw\" only: leave it at \"float32\".");
  p.Require(c.run.parallel.empty(),
            option +
                "is of one rank: ranks of run.parallel add gradients up as float32; leave it "
                "at \"float32\", or run.parallel out.");
}

// State goes through the device in pieces.
void ValidateOffload(const Config& c, Problems& p) {
  if (!c.optimizer.offload) return;
  const std::optional<Device> device = ParseDevice(c.run.device);
  p.Require(
      !device || device->is_cuda(),
      "optimizer.offload is for a GPU (run.device = \"cuda\"): on the CPU moments and masters lie "
      "in the host's memory anyway; take it out.");
  p.Require(c.optimizer.name == OptimizerName::kAdamW,
            "optimizer.offload goes with optimizer.name = \"adamw\" only: \"muon\" updates whole "
            "matrices; take it out.");
}

}  // namespace

bool MayNarrowGradients(const Config& config) {
  Config other = config;
  other.optimizer.gradients = Gradients::kBFloat16;
  Problems problems;
  ValidateGradients(other, problems);
  return config.optimizer.gradients == Gradients::kFloat32 && std::move(problems).list().empty();
}

void CheckLearning(const Config& config, Problems& problems) {
  ValidateObjective(config, problems);
  ValidateFamily(config, problems);
  ValidatePreference(config, problems);
  ValidateMuon(config, problems);
  CheckDistill(config, problems);
  ValidateGradients(config, problems);
  ValidateOffload(config, problems);
}

}  // namespace plumb::configs
