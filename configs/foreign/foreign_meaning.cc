#include "configs/foreign/foreign_meaning.h"

#include <cstdlib>
#include <string_view>

#include "configs/checks/loss_weights.h"
#include "configs/pattern_number.h"

namespace plumb::configs {
namespace {

std::string GivenAs(const GivenNames& given, const std::string& key) {
  const auto found = given.find(key);
  return found == given.end() ? "" : found->second;
}

void ResolveKl(const ForeignMentions& mentions, Origins& origins,
               std::vector<std::string>& problems, AlgorithmConfig& a) {
  constexpr double kUsual = 0.001;  // verl's own, of both
  const auto &in_loss = mentions.in_loss, &in_reward = mentions.in_reward;
  if (!in_loss && !in_reward) return;
  const bool loss = in_loss && in_loss->on, reward = in_reward && in_reward->on;
  const std::string place = (loss || !in_reward ? in_loss : in_reward)->place;
  const auto refuse = [&](const std::string& what) { problems.push_back(place + ": " + what); };
  if (loss && reward) {
    return refuse(
        "use_kl_loss and use_kl_in_reward are both true; here the KL stands in one place: "
        "algorithm.kl_placement = \"loss\" or \"reward\"");
  }
  if (!loss && !reward) {  // the other one may be ours
    const KlPlacement other = in_loss ? KlPlacement::kReward : KlPlacement::kLoss;
    const bool both = in_loss && in_reward;
    if (!both && origins.contains("algorithm.kl_placement") && a.kl_placement == other) return;
    a.kl_coef = 0;
    origins["algorithm.kl_coef"] = place + (in_loss ? ", use_kl_loss" : ", use_kl_in_reward");
    return;
  }
  const KlPlacement wanted = loss ? KlPlacement::kLoss : KlPlacement::kReward;
  const std::string origin = place + (loss ? ", use_kl_loss" : ", use_kl_in_reward");
  if (origins.emplace("algorithm.kl_placement", origin).second) a.kl_placement = wanted;
  else if (a.kl_placement != wanted)
    return refuse(std::string(loss ? "use_kl_loss" : "use_kl_in_reward") +
                  " = true and algorithm.kl_placement = \"" + NameOf(a.kl_placement) +
                  "\" contradict each other: keep one of them");
  if (origins.emplace("algorithm.kl_coef", origin).second) a.kl_coef = kUsual;
  if (origins.emplace("algorithm.kl_estimator", origin).second)
    a.kl_estimator = loss ? KlEstimator::kK3 : KlEstimator::kK1;
}

// -1 says "never" and "off" elsewhere.
void ResolveNever(const GivenNames& given, Origins& origins, const std::string& key,
                  std::initializer_list<const char*> names, int64_t& value) {
  if (value != -1) return;
  for (const char* name : names) {
    if (GivenAs(given, key) != name) continue;
    value = 0;
    origins[key] += std::string(", ") + name + " = -1";
  }
}

// What their values bring along where nothing else was said; and where each value came from.
void ResolveValues(const ForeignMentions& mentions, Origins& origins, Config& config) {
  AlgorithmConfig& a = config.algorithm;
  const auto usual = [&](const char* option, const char* value, const std::string& key, auto& field,
                         auto wanted) {
    const auto found = mentions.values.find(option);
    if (found == mentions.values.end() || found->second.value != value) return;
    if (origins.emplace(key, "usual with " + found->second.said).second) field = wanted;
  };
  // verl's vanilla loss always bounds what the clip does not.
  usual("algorithm.objective", "vanilla", "algorithm.dual_clip", a.dual_clip, 3.0);
  // TRL's CISPO has no lower bound; its upper one is epsilon_high, 5 in the paper.
  usual("algorithm.objective", "cispo", "algorithm.clip_low", a.clip_low, 1.0);
  usual("algorithm.objective", "cispo", "algorithm.clip_high", a.clip_high, 4.0);
  for (const char* estimator : {"grpo", "grpo_passk"})
    usual("algorithm.advantage", estimator, "algorithm.advantage_eps", a.advantage_eps, 1e-6);
  usual("algorithm.advantage", "grpo_passk", "algorithm.pass_k", a.pass_k,
        config.rollout.samples_per_prompt);
  for (const auto& [option, given] : mentions.values) origins[option] += ", " + given.said;
}

// What says nothing by itself, and parts of one of our options.
void ResolveParts(const GivenNames& given, const ForeignMentions& mentions, Origins& origins,
                  std::vector<std::string>& problems, Config& config) {
  AlgorithmConfig& a = config.algorithm;
  // On, the option has a usual value; off, it has none, whatever stands beside the switch.
  const auto switched = [&](const std::optional<ForeignMentions::Switch>& by, const char* name,
                            const std::string& key, const char* theirs, auto& field, auto usual) {
    if (!by) return;
    if (by->on) {
      if (origins.emplace(key, std::string("usual with ") + name + " = true").second) field = usual;
    } else if (GivenAs(given, key) == theirs) {
      field = 0;
      origins[key] += std::string(", ") + name + " = false";
    } else if (field != 0) {
      problems.push_back(by->place + ": " + name + " = false and " + key +
                         " contradict each other: keep one of them");
    }
  };
  switched(mentions.sync_reference, "sync_ref_model", "algorithm.reference_sync_every",
           "ref_model_sync_steps", a.reference_sync_every, 512);
  switched(mentions.adaptive_entropy, "use_adaptive_entropy", "algorithm.entropy_target",
           "entropy_target", a.entropy_target, 0.2);
  for (size_t i = 0; i < mentions.vespo.size(); ++i) {
    const ForeignMentions::Part& part = mentions.vespo[i];
    if (part.text.empty() || a.vespo.size() != mentions.vespo.size()) continue;
    a.vespo[i] = part.text;
    origins["algorithm.vespo"] = part.place + ", vespo_k_pos and its like";
  }
  const auto refuse = [&](const std::string& what) {
    problems.push_back(mentions.losses_place + ": preference." + what);
  };
  const size_t losses = mentions.losses.size(), weights = mentions.loss_weights.size();
  PreferenceConfig& preference = config.preference;
  if (weights != 0 && losses == 0) {
    return refuse(
        "loss_weights weighs a list of losses, and loss_type is none: write loss_type = "
        "[\"" +
        NameOf(preference.loss) + "\", \"sft\"], here preference.losses, or leave the weights out");
  }
  if (weights != 0 && weights != losses) {
    return refuse("loss_weights has " + std::to_string(weights) +
                  (weights == 1 ? " number" : " numbers") + " and loss_type " +
                  std::to_string(losses) + (losses == 1 ? " name" : " names") +
                  ": one for each; here it is preference.losses = [\"sigmoid=0.8\", \"sft=1\"]");
  }
  if (losses == 0) return;
  std::vector<PatternNumber> weighed;
  for (size_t i = 0; i < losses; ++i) {
    weighed.emplace_back(
        mentions.losses[i],
        weights == 0 ? 1.0 : std::strtod(mentions.loss_weights[i].c_str(), nullptr));
  }
  if (const std::string wrong = WrongLossWeights(weighed); !wrong.empty())
    return refuse(std::string("loss_type") + (weights == 0 ? " " : " with loss_weights ") + wrong);
  // The command line has the last word about what the file says under whatever name.
  if (mentions.losses_place.starts_with("--set")) {
    for (const char* option : {"preference.losses", "preference.loss"}) {
      const auto origin = origins.find(option);
      if (origin == origins.end() || origin->second.starts_with("--set")) continue;
      origins.erase(origin);
      if (std::string_view(option) == "preference.loss") preference.loss = PreferenceConfig().loss;
      else preference.losses.clear();
    }
  }
  if (!origins.emplace("preference.losses", mentions.losses_place + ", loss_type").second)
    return refuse("loss_type says what preference.losses is, which is given, too: keep one");
  if (origins.contains("preference.loss"))
    return refuse("loss_type says what preference.loss is, which is given, too: keep one");
  for (size_t i = 0; i < losses; ++i)
    preference.losses.push_back(mentions.losses[i] + "=" +
                                (weights == 0 ? "1" : mentions.loss_weights[i]));
}

}  // namespace

void ResolveForeignNames(const GivenNames& given, const ForeignMentions& mentions, Origins& origins,
                         std::vector<std::string>& problems, Config& config) {
  AlgorithmConfig& a = config.algorithm;
  // TRL's epsilon, verl's clip_ratio and OpenRLHF's eps_clip bound both sides; epsilon_high and its
  // like only the upper one.
  const std::string low = GivenAs(given, "algorithm.clip_low");
  const bool both_sides =
      low == "epsilon" || low == "clip_ratio" || low == "cliprange" || low == "eps_clip";
  if (both_sides && GivenAs(given, "algorithm.clip_high").empty()) {
    a.clip_high = a.clip_low;
    origins["algorithm.clip_high"] = origins["algorithm.clip_low"] + ", " + low;
  }
  // TRL's CISPO names the bound itself and has none below; verl's epsilons are distances from 1.
  if (a.objective == Objective::kCispo ||
      (a.name == AlgorithmName::kCispo && !origins.contains("algorithm.objective"))) {
    if (GivenAs(given, "algorithm.clip_high") == "epsilon_high") {
      a.clip_high -= 1;
      origins["algorithm.clip_high"] += ", epsilon_high of CISPO is 1 + clip_high";
      if (origins.emplace("algorithm.clip_low", "epsilon_high of CISPO").second) a.clip_low = 1;
    }
  }
  const auto objective = mentions.values.find("algorithm.objective");
  if (both_sides && objective != mentions.values.end() && objective->second.value == "cispo") {
    if (GivenAs(given, "algorithm.clip_high").empty()) {
      problems.push_back(origins["algorithm.clip_low"] + ": under " + objective->second.said +
                         " algorithm." + low +
                         " bounds nothing: give algorithm.epsilon_high, the bound of the ratio "
                         "itself (5 in the paper)");
    }
    a.clip_low = 1;
    origins["algorithm.clip_low"] += ", CISPO has no lower bound";
  }
  // TRL's delta bounds the ratio itself. Above 1 + epsilon_high that is the dual clip; below, the
  // clip has the last word on both sides.
  if (GivenAs(given, "algorithm.dual_clip") == "delta" && a.dual_clip <= 1 + a.clip_high) {
    problems.push_back(
        origins["algorithm.dual_clip"] +
        ": algorithm.delta has to be above 1 + epsilon_high, where it bounds what "
        "the clip does not (here it is algorithm.dual_clip); leave it out otherwise");
    a.dual_clip = 0;  // so that nothing else is said about it
  }
  ResolveKl(mentions, origins, problems, a);
  ResolveValues(mentions, origins, config);
  ResolveParts(given, mentions, origins, problems, config);
  ResolveNever(given, origins, "run.checkpoint_every", {"save_freq", "save_steps"},
               config.run.checkpoint_every);
  ResolveNever(given, origins, "eval.every", {"test_freq", "eval_steps"}, config.eval.every);
  ResolveNever(given, origins, "rollout.top_k", {"top_k"}, config.rollout.top_k);
  // verl counts a minibatch in prompts.
  if (GivenAs(given, "algorithm.minibatches") == "ppo_mini_batch_size") {
    const int64_t prompts = config.rollout.prompts_per_step, size = a.minibatches;
    if (size < 1 || prompts % size != 0) {
      problems.push_back("algorithm.ppo_mini_batch_size = " + std::to_string(size) +
                         " has to divide rollout.prompts_per_step = " + std::to_string(prompts) +
                         ": it is the number of prompts of one update");
      a.minibatches = 1;  // so that nothing else is said about it
      return;
    }
    a.minibatches = prompts / size;
    origins["algorithm.minibatches"] += ", ppo_mini_batch_size = " + std::to_string(size);
  }
}

}  // namespace plumb::configs
