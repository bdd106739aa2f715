// Contradictions between options.
#include "configs/config.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <type_traits>

#include "common/base/device.h"
#include "common/base/error.h"
#include "configs/batch_ramp.h"
#include "configs/fields.h"
#include "configs/learning_check.h"
#include "configs/model_check.h"
#include "configs/option_names.h"
#include "configs/parallel.h"
#include "configs/paths.h"
#include "configs/pattern_number.h"
#include "configs/problems.h"
#include "configs/value_text.h"

namespace plumb::configs {
namespace {

// Numbers against the ranges that their fields name.
struct RangeCheck {
  Problems& problems;
  std::string prefix;
  template <class Field>
  void operator()(const FieldInfo& info, Field& field) {
    if constexpr (std::is_arithmetic_v<Field>) {
      const Range& range = info.range;
      if (std::isinf(range.low)) return;  // anything
      const auto value = static_cast<double>(field);
      const bool fine =
          (range.above ? value > range.low : value >= range.low) && value <= range.high;
      problems.Require(
          fine, prefix + info.name + " = " + Text(field) + " has to be " + Allowed(range) + ".");
    } else if constexpr (std::is_same_v<Field, std::vector<RewardPartConfig>>) {
      for (size_t i = 0; i < field.size(); ++i) {
        RangeCheck inner{problems, prefix + info.name + "." + std::to_string(i) + "."};
        field[i].Visit(inner);
      }
    }
  }
  template <class Table>
  void Section(const char* name, Table& table) {
    RangeCheck inner{problems, std::string(name) + "."};
    table.Visit(inner);
  }

  static std::string Allowed(const Range& range) {
    const auto number = [](double v) {
      char text[32];
      std::snprintf(text, sizeof text, "%.9g", v);
      return std::string(text);
    };
    if (std::isinf(range.high)) return range.above ? "positive" : "at least " + number(range.low);
    return "in " + std::string(range.above ? "(" : "[") + number(range.low) + ", " +
           number(range.high) + "]";
  }
};

void ValidateRun(const RunConfig& run, Problems& p) {
  p.Require(run.schedule != Schedule::kSync || run.max_staleness == 0,
            "run.max_staleness > 0 needs run.schedule = \"async\": under sync every batch is "
            "sampled by its own version.");
  p.Require(run.schedule != Schedule::kAsync || run.max_staleness >= 1,
            "run.schedule = \"async\" needs run.max_staleness >= 1; for 0 use \"sync\".");
  try {
    ReadParallel(run.parallel);
  } catch (const Error& e) {
    p.Require(false, std::string(e.what()) + ".");
  }
  const bool cluster = run.roles == Roles::kCluster;
  p.Require(
      !cluster || run.listen.starts_with("tcp://"),
      "run.roles = \"cluster\" needs run.listen, where roles join: \"tcp://0.0.0.0:7777\", or "
      "\"tcp://127.0.0.1:7777\" for roles of this machine.");
  p.Require(cluster || (run.listen.empty() && run.keys.empty()),
            "run.listen and run.keys are of run.roles = \"cluster\": set it, or take them out.");
  p.Require(cluster || (run.relay == 0 && !run.weight_deltas),
            "run.relay and run.weight_deltas are of run.roles = \"cluster\": set it, or take them "
            "out.");
  p.Require(ParseDevice(run.device).has_value(),
            "run.device = \"" + run.device + "\" is not known: use one of cpu, cuda, cuda:N.");
}

void ValidateData(const DataConfig& data, Problems& p) {
  p.Require(!data.train.empty(),
            "data.train is missing: name a file of prompts, or \"arithmetic\".");
  p.Require(data.chat_template || data.system_prompt.empty(),
            "data.system_prompt is a message, which the chat template writes: with "
            "data.chat_template = false put its words into the rows.");
  p.Require(data.train != data.eval || IsGenerated(data.eval) || data.eval.empty() ||
                (data.limit > 0 && data.eval_skip >= data.limit),
            "data.eval is the file of data.train: its rows would be held out and trained on; set "
            "data.limit = N and "
            "data.eval_skip to N or more.");
}

// Shares that rise from one phase to the next.
void ValidateCurriculum(const SftConfig& sft, Problems& p) {
  try {
    double before = 0;
    for (const auto& [source, share] : ReadPatternNumbers(sft.curriculum, "sft.curriculum")) {
      p.Require(share > before && share <= 1,
                "sft.curriculum lets \"" + source + "\" end at " + NumberText(share) +
                    " of the steps: each share has to be above the one before, and at most 1.");
      before = share;
    }
  } catch (const Error& e) {
    p.Require(false, "sft.curriculum " + e.message() + ".");
  }
}

// Training without rollouts: there is nothing of them.
void ValidateOffline(const Config& c, Problems& p) {
  if (c.algorithm.name != AlgorithmName::kSft) {
    p.Require(c.sft.curriculum.empty() && c.sft.syntax_penalty == 0,
              "sft.curriculum and sft.syntax_penalty are options of algorithm.name = \"sft\": take "
              "them out.");
  }
  if (!IsOffline(c)) {
    p.Require(
        c.sft.heldout == SftConfig().heldout && c.sft.max_tokens == SftConfig().max_tokens,
        "sft.heldout and sft.max_tokens are options of algorithm.name = \"sft\": a warm start "
        "holds out every 20th demonstration, take them out.");
    return;
  }
  const bool sft = c.algorithm.name == AlgorithmName::kSft;
  const std::string name = "algorithm.name = \"" + NameOf(c.algorithm.name) + "\"";
  p.Require(c.preference.loss != PreferenceLossKind::kKto ||
                c.algorithm.name != AlgorithmName::kDpo || c.preference.batch >= 2,
            "preference.loss = \"kto\" needs preference.batch >= 2: its reference point comes from "
            "other rows of the batch.");
  p.Require(sft || c.data.train != "arithmetic",
            "data.train has to name a file of preference pairs (or the folder of a store, or "
            "\"tiny_texts\") for this algorithm.");
  p.Require(sft || (c.data.system_prompt.empty() && c.data.prompt_suffix.empty()),
            "data.system_prompt and data.prompt_suffix are put on prompts and demonstrations; " +
                name + " takes its rows as they are: write them into the rows.");
  p.Require(c.sft.steps == 0, "sft.steps is a warm start before rollouts: " + name +
                                  " has none, leave it at 0" +
                                  (sft ? "; it makes run.steps (--steps) updates." : "."));
  p.Require(c.data.eval.empty(), "data.eval is for rollouts: " + name + " holds back " +
                                     (sft ? "sft.heldout" : "preference.heldout") +
                                     " rows of data.train.");
  p.Require(c.algorithm.kl_coef == 0,
            "algorithm.kl_coef (beta) is for rollouts: " +
                (sft ? name + " has no reference."
                     : std::string("the strength of DPO is preference.beta.")));
  p.Require(c.run.roles != Roles::kCluster,
            "run.roles = \"cluster\" needs actors: " + name +
                " has none; several machines train it as ranks (docs/ranks.md).");
  p.Require(c.run.roles != Roles::kProcesses || !c.run.parallel.empty(),
            "run.roles = \"processes\" needs actors: " + name +
                " has none, use local; or run.parallel = \"dp=2\", which starts learners.");
  p.Require(c.rollout.kv_type == KvType::kModel,
            "rollout.kv_type is of generation: " + name + " has none, take it out.");
  p.Require(!c.rollout.replay_experts,
            "rollout.replay_experts is of generation: " + name + " has none, take it out.");
  p.Require(c.rollout.kv_after_update == KvAfterUpdate::kKeep,
            "rollout.kv_after_update is of generation: " + name + " has none, take it out.");
  const auto reads_tokens = [](const RewardPartConfig& part) {
    return part.kind == "reward_model" || part.kind == "perplexity";
  };
  const bool labels = c.algorithm.name == AlgorithmName::kDpo &&
                      c.preference.loss != PreferenceLossKind::kKto &&
                      std::all_of(c.reward.parts.begin(), c.reward.parts.end(), reads_tokens);
  p.Require(labels || c.reward.parts.empty(),
            "[[reward.parts]] score rollouts: " + name +
                " has none, take them out; what labels the pairs of \"dpo\" (not of kto) is kind = "
                "\"reward_model\" or \"perplexity\".");
  ValidateCurriculum(c.sft, p);
}

// Options of [sft] that only a warm start goes by.
struct WarmStartOnly {
  Problems& problems;
  template <class Field>
  void operator()(const FieldInfo& info, Field& field) {
    static const std::map<std::string, std::string> kInstead = {
        {"learning_rate", "optimizer.learning_rate"},
        {"lr_schedule", "optimizer.lr_schedule"},
        {"warmup_fraction", "optimizer.warmup_fraction"},
        {"min_lr_fraction", "optimizer.min_lr_fraction"},
        {"weight_decay", "optimizer.weight_decay"},
        {"data", "data.train"},
        {"eval_every", "eval.every"},
        {"patience", "run.steps"}};
    const auto instead = kInstead.find(info.name);
    if (instead == kInstead.end()) return;
    problems.Require(Text(field) == DefaultText<SftConfig>(info.name),
                     "sft." + std::string(info.name) +
                         " is the warm start's: algorithm.name = "
                         "\"sft\" goes by " +
                         instead->second + ".");
  }
};

void ValidateReplay(const Config& c, Problems& p) {
  if (c.replay.groups_per_step <= 0) return;
  p.Require(!IsOffline(c) && c.algorithm.name != AlgorithmName::kPpo,
            "replay.groups_per_step > 0 adds earlier rollouts to a batch of the GRPO family; " +
                NameOf(c.algorithm.name) + " does not take them.");
  p.Require(c.algorithm.off_policy != OffPolicy::kOff && c.algorithm.tis_cap > 0,
            "replay.groups_per_step > 0 trains on answers of older policies: it needs importance "
            "weights, so algorithm.off_policy "
            "must not be off and algorithm.tis_cap has to be positive.");
}

// Of several processes that compute an actor's model together.
void ValidateSharedActor(const Config& c, Problems& p) {
  if (c.rollout.tp == 1) return;
  const std::string asked = "rollout.tp = " + std::to_string(c.rollout.tp);
  p.Require(c.run.roles == Roles::kProcesses,
            asked + " is of actors in processes: set run.roles = \"processes\".");
  p.Require(c.policy.adapter == Adapter::kNone,
            asked + " cuts no adapters in this version: set policy.adapter to \"none\".");
  p.Require(c.environment.kind == EnvironmentKind::kNone,
            asked + " has no turns in this version: leave out the environment.");
  p.Require(!c.rollout.replay_experts,
            asked + " cuts no experts in this version: leave out rollout.replay_experts.");
  const auto device = ParseDevice(c.run.device);
  p.Require(!device || device->is_cpu() || !c.rollout.device.empty(),
            asked +
                " takes a GPU for each process: set rollout.device to \"cuda\" (those behind "
                "the learner's) or to the first of them.");
}

void ValidateRollout(const Config& c, Problems& p) {
  p.Require(c.sft.patience == 0 || c.sft.eval_every > 0,
            "sft.patience counts held-out losses: set sft.eval_every.");
  if (IsOffline(c)) return;
  p.Require(
      c.algorithm.name == AlgorithmName::kPpo || c.algorithm.advantage == Advantage::kBatch ||
          c.rollout.samples_per_prompt >= 2,
      "rollout.samples_per_prompt has to be at least 2: GRPO compares the answers of a group.");
  p.Require(!c.model.path.empty() || c.rollout.max_new_tokens < c.model.max_positions,
            "rollout.max_new_tokens = " + std::to_string(c.rollout.max_new_tokens) +
                " leaves no token for a prompt: model.max_positions is " +
                std::to_string(c.model.max_positions) + "; lower the one or raise the other.");
  ValidateSharedActor(c, p);
  const std::string& device = c.rollout.device.empty() ? c.run.device : c.rollout.device;
  p.Require(ParseDevice(device).has_value() || c.rollout.device.empty(),
            "rollout.device = \"" + c.rollout.device +
                "\" is not known: use one of cpu, cuda, cuda:N, or leave it empty for run.device.");
  p.Require(
      c.rollout.device.empty() || c.run.roles != Roles::kCluster,
      "rollout.device is of actors on the learner's machine: with run.roles = \"cluster\" each "
      "role that joins says its own run.device.");
  p.Require(
      c.rollout.kv_after_update == KvAfterUpdate::kKeep || c.run.schedule == Schedule::kAsync,
      "rollout.kv_after_update is of answers that run on under new weights: under run.schedule "
      "= \"sync\" none does, set \"async\" or take it out.");
  const EnvironmentConfig& e = c.environment;
  p.Require(e.kind == EnvironmentKind::kNone || e.reply_tokens < c.rollout.max_new_tokens,
            "environment.reply_tokens = " + std::to_string(e.reply_tokens) +
                " leaves the policy no token: rollout.max_new_tokens = " +
                std::to_string(c.rollout.max_new_tokens) +
                " is of all turns of an answer and of what is said between them.");
  p.Require(!c.reward.parts.empty(),
            "there is no [[reward.parts]]: name at least one, e.g. kind = \"answer\".");
}

void ValidateAlgorithm(const Config& c, Problems& p) {
  const AlgorithmConfig& a = c.algorithm;
  const bool ppo = a.name == AlgorithmName::kPpo, batch = a.advantage == Advantage::kBatch;
  if (a.refill_rounds > 0) {
    p.Require(!IsOffline(c) && !ppo && !batch,
              "algorithm.refill_rounds replaces groups of equal reward, which have no gradient "
              "where the answers of a group are "
              "compared: here they have one, leave it at 0.");
    p.Require(c.rollout.samples_per_prompt >= 2,
              "algorithm.refill_rounds (dynamic sampling) needs groups: set "
              "rollout.samples_per_prompt to at least 2.");
    p.Require(c.replay.prompts == PromptSampler::kPasses,
              "algorithm.refill_rounds draws its prompts in passes over the data: keep "
              "replay.prompts = \"passes\".");
  }
  p.Require(a.dual_clip == 0 || a.dual_clip > 1,
            "algorithm.dual_clip has to be 0 (off) or more than 1.");
  p.Require(!ppo || (a.advantage == Advantage::kGroup && a.objective == Objective::kClip &&
                     a.ratio == RatioLevel::kToken),
            "algorithm.advantage, objective and ratio are options of the GRPO family: PPO's "
            "advantages come from its critic.");
  const std::string objective = "algorithm.objective = \"" + NameOf(a.objective) + "\"";
  p.Require(
      a.objective == Objective::kClip || a.objective == Objective::kSapo ||
          a.ratio == RatioLevel::kToken,
      objective + (a.objective == Objective::kGeometric || a.objective == Objective::kVespo
                       ? " has its own ratio of an answer: leave algorithm.ratio at \"token\"."
                       : " weighs tokens one by one: it needs algorithm.ratio = \"token\"."));
  p.Require(!batch || a.ratio == RatioLevel::kToken,
            "algorithm.advantage = \"batch\" gives every token its own: it needs algorithm.ratio = "
            "\"token\".");
  p.Require(!batch || a.kl_coef == 0 || a.kl_placement == KlPlacement::kReward,
            "algorithm.advantage = \"batch\" has its KL in the reward: set algorithm.kl_placement "
            "= \"reward\".");
  // Divided rather than multiplied: sizes without a bound must not overflow here.
  p.Require(c.rollout.prompts_per_step < 1 || c.rollout.samples_per_prompt < 1 ||
                (a.minibatches - 1) / c.rollout.samples_per_prompt < c.rollout.prompts_per_step,
            "algorithm.minibatches is larger than the number of answers in a batch.");
}

void ValidatePpo(const Config& c, Problems& p) {
  const AlgorithmConfig& a = c.algorithm;
  const bool ppo = a.name == AlgorithmName::kPpo,
             adaptive = a.kl_controller == KlController::kAdaptive;
  p.Require(!adaptive || a.kl_target > 0,
            "algorithm.kl_controller = \"adaptive\" needs algorithm.kl_target > 0: it steers "
            "towards that KL.");
  p.Require(adaptive || a.kl_target == 0,
            "algorithm.kl_target is only looked at under algorithm.kl_controller = \"adaptive\".");
  p.Require(!adaptive || a.kl_coef > 0,
            "algorithm.kl_controller = \"adaptive\" needs algorithm.kl_coef > 0 to start from: it "
            "multiplies it.");
  p.Require(!adaptive || ppo,
            "algorithm.kl_controller = \"adaptive\" is an option of algorithm.name = \"ppo\".");
  p.Require(a.reward_normalize == RewardNormalization::kOff || ppo,
            "algorithm.reward_normalize is an option of algorithm.name = \"ppo\": a group's mean "
            "and deviation do it elsewhere.");
  p.Require(c.critic.path.empty() || c.critic.mode == CriticMode::kOwn,
            "critic.path names a model of its own, critic.mode = \"shared\" puts a head on the "
            "policy: keep one of them.");
  p.Require(c.critic.path.empty() || ppo,
            "critic.path is given, but only algorithm.name = \"ppo\" has a critic.");
}

// The batch of the first step of a ramp.
void ValidateRamp(const Config& c, Problems& p) {
  if (c.optimizer.ramp_steps <= 0 || c.optimizer.ramp_steps > 1'000'000) return;
  p.Require(
      c.algorithm.name != AlgorithmName::kDpo || c.preference.loss != PreferenceLossKind::kKto,
      "optimizer.ramp_steps does not go with preference.loss = \"kto\": its batches are cut "
      "before the first step.");
  if (IsOffline(c) || c.rollout.prompts_per_step < 1 || c.rollout.samples_per_prompt < 1) return;
  const int64_t first = BatchRampOf(c.optimizer, c.rollout.prompts_per_step).Of(0);
  p.Require((c.algorithm.minibatches - 1) / c.rollout.samples_per_prompt < first,
            "algorithm.minibatches is larger than the number of answers in the first step's batch: "
            "raise optimizer.ramp_start.");
}

void ValidateOptimizer(const Config& c, Problems& p) {
  ValidateRamp(c, p);
  const OptimizerConfig plain;
  p.Require(c.optimizer.lr_schedule == LrSchedule::kWsd ||
                c.optimizer.decay_fraction == plain.decay_fraction,
            "optimizer.decay_fraction is the last part of optimizer.lr_schedule = \"wsd\": set "
            "that, or take it out.");
  p.Require(c.optimizer.ramp_steps != 0 || c.optimizer.ramp_start == plain.ramp_start,
            "optimizer.ramp_start is where optimizer.ramp_steps begin: set these, or take it out.");
  p.Require(c.optimizer.masters == Masters::kFloat32 || c.model.dtype != DType::kFloat32,
            "optimizer.masters = \"none\" is for model.dtype = \"bfloat16\": float32 weights are "
            "their own masters.");
}

void ValidateEval(const Config& c, Problems& p) {
  p.Require(c.eval.bar == 0 || IsOffline(c) || !c.data.eval.empty(),
            "eval.bar needs held-out prompts: name data.eval.");
  const bool sft = c.algorithm.name == AlgorithmName::kSft;
  p.Require(c.eval.bar == 0 || !IsOffline(c) || (sft ? c.sft.heldout : c.preference.heldout) != 0,
            std::string("eval.bar needs held-out rows: raise ") +
                (sft ? "sft.heldout." : "preference.heldout."));
  p.Require(!c.eval.keep_best || (IsOffline(c) ? (sft ? c.sft.heldout : c.preference.heldout) != 0
                                               : !c.data.eval.empty()),
            "eval.keep_best compares evaluations, and nothing is held out: name data.eval, or of "
            "demonstrations and pairs raise sft.heldout or preference.heldout.");
  if (c.eval.success_part.empty()) return;
  const bool found =
      std::any_of(c.reward.parts.begin(), c.reward.parts.end(), [&](const RewardPartConfig& part) {
        return (part.name.empty() ? part.kind : part.name) == c.eval.success_part;
      });
  p.Require(found, "eval.success_part = \"" + c.eval.success_part +
                       "\" is not the name of a reward part.");
}

}  // namespace

std::vector<std::string> Validate(const Config& config) {
  Config c = config;  // Visit hands out references
  Problems p;
  RangeCheck ranges{p, ""};
  c.Visit(ranges);
  ValidateRun(c.run, p);
  if (!c.run.stages.empty()) {  // all else is checked with each of the recipes
    p.Require(c.reward.parts.empty(),
              "[[reward.parts]] beside run.stages belong into the recipes of the stages.");
    return std::move(p).list();
  }
  p.Require(c.run.checkpoint_every != 0 || c.checkpoint.optimizer_every <= 1,
            "checkpoint.optimizer_every is about the checkpoints between two steps, and "
            "run.checkpoint_every = 0 makes none: raise that, or take it out.");
  CheckModel(c, p);
  ValidateData(c.data, p);
  ValidateOffline(c, p);
  if (c.algorithm.name == AlgorithmName::kSft) {
    WarmStartOnly only{p};
    c.sft.Visit(only);
  }
  ValidateReplay(c, p);
  ValidateRollout(c, p);
  ValidateOptimizer(c, p);
  ValidateAlgorithm(c, p);
  ValidatePpo(c, p);
  ValidateEval(c, p);
  CheckLearning(c, p);
  return std::move(p).list();
}

}  // namespace plumb::configs
