// Contradictions between options.
#include "configs/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>
#include <type_traits>

#include "common/base/device.h"
#include "common/base/error.h"
#include "common/record/task_tokens.h"
#include "configs/batch_ramp.h"
#include "configs/fields.h"
#include "configs/learning_check.h"
#include "configs/parallel.h"
#include "configs/paths.h"
#include "configs/pattern_number.h"
#include "configs/value_text.h"

namespace plumb::configs {
namespace {

class Problems {
 public:
  void Require(bool fine, std::string sentence) {
    if (!fine) list_.push_back(std::move(sentence));
  }
  std::vector<std::string> list() && { return std::move(list_); }

 private:
  std::vector<std::string> list_;
};

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
  p.Require(ParseDevice(run.device).has_value(),
            "run.device = \"" + run.device + "\" is not known: use one of cpu, cuda, cuda:N.");
}

// What the layers of a new model see.
void ValidateScales(const ModelConfig& model, Problems& p) {
  const auto some = [&](const char* name) {
    return std::find(model.scales.begin(), model.scales.end(), name) != model.scales.end();
  };
  p.Require(std::all_of(model.scales.begin(), model.scales.end(),
                        [](const std::string& name) {
                          return name == "local" || name == "global" || name == "memory";
                        }),
            "model.scales holds \"local\", \"global\" and \"memory\" and nothing else.");
  p.Require(model.window > 0 || !some("local"),
            "model.scales has local layers, which see a window: set model.window.");
  p.Require(some("memory") == !model.memory_table.empty(),
            some("memory") ? "model.scales has memory layers: name their table in "
                             "model.memory_table, a safetensors file with keys and values."
                           : "model.memory_table is for memory layers: name them in model.scales, "
                             "or take it out.");
  p.Require(model.gate_top_k == 0 ||
                (model.window > 0 && (model.scales.empty() || some("local") || some("memory"))),
            "model.gate_top_k is about tokens outside a window: set model.window, and in "
            "model.scales layers that have it, or take it out.");
  p.Require(model.gate_top_k == 0 || model.global_every == 0,
            "model.gate_top_k and model.global_every are two ways to see beyond a window: take one "
            "of them out.");
  p.Require(
      model.attention != AttentionKind::kLatent ||
          (model.gate_top_k == 0 && model.memory_table.empty()),
      "model.gate_top_k and memory layers are of model.attention = \"full\": latent attention "
      "has none.");
}

void ValidateModel(const ModelConfig& model, Problems& p) {
  if (!model.path.empty()) {
    const ModelConfig none;
    p.Require(
        model.norms == none.norms && model.window == 0 && model.global_every == 0 && !model.sinks,
        "model.norms, model.window, model.global_every and model.sinks are of a new model: "
        "the one of model.path says itself what it has.");
    p.Require(model.attention == none.attention && model.kv_rank == none.kv_rank &&
                  model.query_rank == none.query_rank && model.rope_dim == none.rope_dim,
              "model.attention, model.kv_rank, model.query_rank and model.rope_dim are of a new "
              "model: the one of model.path says itself what it has.");
    p.Require(
        model.gate_top_k == 0 && model.scales.empty() && model.memory_table.empty(),
        "model.gate_top_k, model.scales and model.memory_table are of a new model: the one of "
        "model.path says itself what it has.");
    return;
  }
  p.Require(model.heads >= 1 && model.hidden > 0 && model.hidden % model.heads == 0,
            "model.hidden has to be a positive multiple of model.heads.");
  const bool latent = model.attention == AttentionKind::kLatent;
  p.Require(latent || (model.kv_heads >= 1 && model.heads % model.kv_heads == 0),
            "model.kv_heads has to divide model.heads.");
  p.Require(model.rope_dim % 2 == 0, "model.rope_dim has to be even: its elements turn in pairs.");
  const ModelConfig full;
  p.Require(latent || (model.kv_rank == full.kv_rank && model.query_rank == full.query_rank &&
                       model.rope_dim == full.rope_dim),
            "model.kv_rank, model.query_rank and model.rope_dim are of latent attention: set "
            "model.attention = \"latent\", or take them out.");
  p.Require(!latent || !model.sinks,
            "model.sinks are of model.attention = \"full\": latent attention has none.");
  p.Require(!model.norms.empty() && std::all_of(model.norms.begin(), model.norms.end(),
                                                [](const std::string& name) {
                                                  return name == "rmsnorm" || name == "layernorm";
                                                }),
            "model.norms holds \"rmsnorm\" and \"layernorm\" and nothing else, one at least.");
  p.Require(model.global_every == 0 || model.window > 0,
            "model.global_every is about positions outside a window: set model.window, or take it "
            "out.");
  ValidateScales(model, p);
}

std::string NumberText(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", number);
  return text;
}

// Lists of "pattern=number".
void ValidatePatterns(const PolicyConfig& policy, Problems& p) {
  const auto check = [&](const char* option, const std::vector<std::string>& entries,
                         const char* what, const auto& fine) {
    try {
      for (const auto& [pattern, number] : ReadPatternNumbers(entries, option))
        p.Require(fine(number), std::string(option) + " gives \"" + pattern + "\" " +
                                    NumberText(number) + ": " + what + ".");
    } catch (const Error& e) {
      p.Require(false, std::string(option) + " " + e.message() + ".");
    }
  };
  check("policy.rank_pattern", policy.rank_pattern, "a rank is a whole number from 1 to 65536",
        [](double v) { return v >= 1 && v <= 65536 && v == std::floor(v); });
  check("policy.alpha_pattern", policy.alpha_pattern, "an alpha is above 0 and at most 1e6",
        [](double v) { return v > 0 && v <= 1e6; });
  check("policy.learning_rates", policy.learning_rates,
        "a factor is positive (policy.frozen names what is not trained)",
        [](double v) { return v > 0; });
}

void ValidateExperts(const Config& c, Problems& p) {
  const ExpertsConfig& e = c.experts;
  p.Require(e.capacity_noise == 0 || e.capacity > 0,
            "experts.capacity_noise varies a capacity: set experts.capacity.");
  if (e.count == 0) {
    const ExpertsConfig none;
    p.Require(e.per_token == none.per_token && e.shared == 0 && e.widths.empty() &&
                  e.first_dense == 0 && e.router == none.router &&
                  e.renormalize == none.renormalize && e.temperature == none.temperature &&
                  e.groups == none.groups && e.groups_per_token == none.groups_per_token &&
                  !e.shared_gate,
              "experts.per_token, shared, widths, first_dense, router, renormalize, temperature, "
              "groups, groups_per_token and shared_gate are of a new model with experts: set "
              "experts.count.");
    return;
  }
  p.Require(c.model.path.empty(),
            "experts.count is of a new model: the one of model.path says itself what it has.");
  p.Require(e.per_token <= e.count, "experts.per_token is larger than experts.count.");
  p.Require(e.first_dense < c.model.layers,
            "experts.first_dense leaves no layer of model.layers that has experts.");
  p.Require(e.groups >= 1 && e.groups <= e.count && e.count % e.groups == 0,
            "experts.groups has to divide experts.count.");
  p.Require(e.groups_per_token <= e.groups,
            "experts.groups_per_token is larger than "
            "experts.groups.");
  p.Require(e.groups < 1 || e.groups_per_token > e.groups ||
                e.per_token <= e.groups_per_token * (e.count / e.groups),
            "experts.groups_per_token groups hold fewer than experts.per_token experts.");
  p.Require(!e.shared_gate || e.shared > 0,
            "experts.shared_gate weighs shared experts: set "
            "experts.shared.");
  for (const std::string& width : e.widths) {
    const auto number = [&] {
      int64_t n = 0;
      const auto [end, error] = std::from_chars(width.data(), width.data() + width.size(), n);
      return error == std::errc() && end == width.data() + width.size() ? n : 0;
    }();
    p.Require(number >= 1 && number <= 1 << 24,
              "experts.widths holds \"" + width + "\", which is no width.");
  }
}

// Several adapters, weighed by the task of a row.
void ValidateTasks(const Config& c, Problems& p) {
  const PolicyConfig& policy = c.policy;
  const auto column = c.data.map.find("task");
  if (policy.tasks.empty()) {
    p.Require(policy.adapters == 1,
              "policy.adapters are weighed by the task of a row: name the tasks in policy.tasks.");
    p.Require(policy.task_tokens == 0,
              "policy.task_tokens are of each task: name the tasks in policy.tasks.");
    p.Require(column == c.data.map.end(),
              "data.map.task names the column of a row's task, and policy.tasks names no task.");
    return;
  }
  const std::set<std::string> once(policy.tasks.begin(), policy.tasks.end());
  p.Require(once.size() == policy.tasks.size() && !once.contains(""),
            "policy.tasks names a task twice, or one without a name.");
  p.Require(policy.tasks.size() <= static_cast<size_t>(kMostTasks),
            "policy.tasks names more than " + std::to_string(kMostTasks) + " tasks.");
  p.Require(column != c.data.map.end(),
            "policy.tasks needs data.map = { task = \"COLUMN\" }: which column of a row names its "
            "task.");
  p.Require(!IsGenerated(c.data.train) && !IsGenerated(c.data.eval) &&
                (c.sft.steps == 0 || !c.sft.data.empty() || IsOffline(c)),
            "policy.tasks needs rows with a column of tasks, which generated rows have not: name "
            "files.");
  p.Require(
      c.data.max_prompt_tokens > std::max<int64_t>(1, policy.task_tokens),
      "data.max_prompt_tokens counts the tokens of a task in front of a prompt, too: raise it "
      "above policy.task_tokens.");
  p.Require(!ParseDevice(c.run.device) || ParseDevice(c.run.device)->is_cpu(),
            "policy.tasks are computed on the CPU only: run.device = \"cpu\".");
  p.Require(c.run.parallel.empty(),
            "policy.tasks and run.parallel were never tried together: leave run.parallel empty.");
  p.Require(!c.rollout.replay_experts,
            "rollout.replay_experts numbers the tokens of a sequence without those of its task: "
            "leave it out with policy.tasks.");
}

void ValidatePolicy(const Config& c, Problems& p) {
  ValidatePatterns(c.policy, p);
  if (c.policy.adapter == Adapter::kNone) {
    for (const auto& [option, set] : {std::pair("rslora", c.policy.rslora),
                                      {"dropout", c.policy.dropout > 0},
                                      {"rank_pattern", !c.policy.rank_pattern.empty()},
                                      {"alpha_pattern", !c.policy.alpha_pattern.empty()},
                                      {"adapters", c.policy.adapters != 1},
                                      {"tasks", !c.policy.tasks.empty()},
                                      {"task_tokens", c.policy.task_tokens != 0}})
      p.Require(!set, std::string("policy.") + option + " needs policy.adapter = \"lora\".");
    p.Require(!c.data.map.contains("task"),
              "data.map.task names the column of a row's task, and policy.tasks names no task.");
    return;
  }
  p.Require(!c.model.path.empty(), "policy.adapter needs a model to stand on: name model.path.");
  p.Require(c.algorithm.name != AlgorithmName::kRewardModel,
            "policy.adapter does not go with algorithm.name = \"reward_model\": its new head has "
            "to be trained, too.");
  p.Require(
      c.policy.dropout == 0 || !ParseDevice(c.run.device) || ParseDevice(c.run.device)->is_cpu(),
      "policy.dropout is computed on the CPU only: leave it at 0 on run.device = \"" +
          c.run.device + "\".");
  ValidateTasks(c, p);
  p.Require(!c.policy.targets.empty(),
            "policy.targets names no module: use \"all-linear\" or names like \"q_proj\".");
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
                                  (sft ? "; it makes run.steps updates." : "."));
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
    SftConfig defaults;
    DefaultText of{info.name};
    defaults.Visit(of);
    problems.Require(Text(field) == of.text, "sft." + std::string(info.name) +
                                                 " is the warm start's: algorithm.name = "
                                                 "\"sft\" goes by " +
                                                 instead->second + ".");
  }

 private:
  struct DefaultText {
    const std::string name;
    std::string text = {};
    template <class Field>
    void operator()(const FieldInfo& info, Field& field) {
      if (name == info.name) text = Text(field);
    }
  };
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
  p.Require(c.rollout.kv_type == KvType::kModel || !ParseDevice(c.run.device) ||
                ParseDevice(c.run.device)->is_cpu(),
            "rollout.kv_type: keys and values in fewer bits are on the CPU only: leave it at "
            "\"model\" on run.device = \"" +
                c.run.device + "\".");
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
  ValidateModel(c.model, p);
  ValidateExperts(c, p);
  ValidatePolicy(c, p);
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
  for (std::string& sentence : LearningContradictions(c)) p.Require(false, std::move(sentence));
  return std::move(p).list();
}

}  // namespace plumb::configs
