// Contradictions, and a Config as text.
#include "configs/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <type_traits>

#include "configs/fields.h"

namespace plumb::configs {
namespace {

std::string Quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (u < 0x20 || u == 0x7F) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04X", u);
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string Text(const std::string& v) { return Quote(v); }
std::string Text(bool v) { return v ? "true" : "false"; }
std::string Text(int64_t v) { return std::to_string(v); }
std::string Text(uint64_t v) { return std::to_string(v); }
std::string Text(double v) {
  // Shortest digits that read back to the same number; TOML wants a point or an exponent in a float.
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, v).ptr;
  std::string out(buffer, end);
  if (out.find_first_of(".en") == std::string::npos) out += ".0";
  return out;
}
std::string Text(const std::vector<std::string>& v) {
  std::string out = "[";
  for (size_t i = 0; i < v.size(); ++i) out += (i ? ", " : "") + Quote(v[i]);
  return out + "]";
}
std::string Text(const std::map<std::string, std::string>& v) {
  std::string out = "{";
  for (const auto& [key, value] : v) out += (out.size() > 1 ? ", " : " ") + Quote(key) + " = " + Quote(value);
  return out + (v.empty() ? "}" : " }");
}

struct Printer {
  std::string out, tail;
  template <class Field>
  void operator()(const FieldInfo& info, Field& field) {
    if constexpr (std::is_same_v<Field, std::vector<RewardPartConfig>>) {
      for (RewardPartConfig& part : field) {
        Printer inner;
        part.Visit(inner);
        tail += "\n[[reward.parts]]\n" + inner.out;
      }
    } else {
      out += std::string(info.name) + " = " + Text(field) + "\n";
    }
  }
  template <class Table>
  void Section(const char* name, Table& table) {
    Printer inner;
    table.Visit(inner);
    out += (out.empty() ? "[" : "\n[") + std::string(name) + "]\n" + inner.out + inner.tail;
  }
};

struct Row {
  std::string key, value, origin, unit, advice;
};

struct Lister {
  const Origins& origins;
  std::string prefix;
  std::vector<Row>& rows;
  template <class Field>
  void operator()(const FieldInfo& info, Field& field) {
    if constexpr (std::is_same_v<Field, std::vector<RewardPartConfig>>) {
      for (size_t i = 0; i < field.size(); ++i) {
        Lister inner{origins, prefix + info.name + "." + std::to_string(i) + ".", rows};
        field[i].Visit(inner);
      }
    } else {
      const auto origin = origins.find(prefix + info.name);
      rows.push_back({prefix + info.name, Text(field), origin == origins.end() ? "default" : origin->second, info.unit,
                      info.advice});
    }
  }
  template <class Table>
  void Section(const char* name, Table& table) {
    Lister inner{origins, std::string(name) + ".", rows};
    table.Visit(inner);
  }
};

void OneOf(std::vector<std::string>& problems, const std::string& key, const std::string& value,
           std::initializer_list<const char*> allowed) {
  std::string list;
  for (const char* a : allowed) {
    if (value == a) return;
    list += std::string(list.empty() ? "" : ", ") + a;
  }
  problems.push_back(key + " = \"" + value + "\" is not known: use one of " + list + ".");
}

void ValidatePpo(const Config& c, std::vector<std::string>& problems) {
  const auto require = [&](bool fine, const char* sentence) {
    if (!fine) problems.emplace_back(sentence);
  };
  const AlgorithmConfig& a = c.algorithm;
  OneOf(problems, "algorithm.kl_controller", a.kl_controller, {"fixed", "adaptive"});
  OneOf(problems, "algorithm.reward_normalize", a.reward_normalize, {"off", "scale", "whiten"});
  OneOf(problems, "critic.mode", c.critic.mode, {"own", "shared"});
  require(a.gamma > 0 && a.gamma <= 1, "algorithm.gamma has to be in (0, 1].");
  require(a.lam >= 0 && a.lam <= 1, "algorithm.lam has to be in [0, 1].");
  require(a.reward_clip >= 0, "algorithm.reward_clip has to be 0 (off) or positive.");
  require(a.kl_target >= 0, "algorithm.kl_target has to be 0 (none) or positive.");
  require(a.kl_horizon > 0, "algorithm.kl_horizon has to be positive.");
  const bool adaptive = a.kl_controller == "adaptive";
  require(!adaptive || a.kl_target > 0,
          "algorithm.kl_controller = \"adaptive\" needs algorithm.kl_target > 0: it steers towards that KL.");
  require(adaptive || a.kl_target == 0,
          "algorithm.kl_target is only looked at under algorithm.kl_controller = \"adaptive\".");
  require(!adaptive || a.kl_coef > 0,
          "algorithm.kl_controller = \"adaptive\" needs algorithm.kl_coef > 0 to start from: it multiplies it.");
  require(!adaptive || a.name == "ppo", "algorithm.kl_controller = \"adaptive\" is an option of algorithm.name = \"ppo\".");
  require(a.reward_normalize == "off" || a.name == "ppo",
          "algorithm.reward_normalize is an option of algorithm.name = \"ppo\": a group's mean and deviation do it elsewhere.");
  require(c.critic.learning_rate > 0, "critic.learning_rate has to be positive.");
  require(c.critic.value_clip >= 0, "critic.value_clip has to be 0 (off) or positive.");
  require(c.critic.vf_coef > 0, "critic.vf_coef has to be positive.");
  require(c.critic.warmup_steps >= 0, "critic.warmup_steps has to be 0 or more.");
  require(c.critic.path.empty() || c.critic.mode == "own",
          "critic.path names a model of its own, critic.mode = \"shared\" puts a head on the policy: keep one of them.");
  require(c.critic.path.empty() || a.name == "ppo", "critic.path is given, but only algorithm.name = \"ppo\" has a critic.");
}

}  // namespace

std::vector<std::string> Validate(const Config& c) {
  std::vector<std::string> p;
  const auto require = [&](bool fine, const std::string& sentence) {
    if (!fine) p.push_back(sentence);
  };
  const auto at_least = [&](const std::string& key, int64_t value, int64_t low) {
    require(value >= low, key + " = " + std::to_string(value) + " has to be at least " + std::to_string(low) + ".");
  };
  const auto within = [&](const std::string& key, double value, double low, double high) {
    require(value >= low && value <= high,
            key + " = " + Text(value) + " has to be in [" + Text(low) + ", " + Text(high) + "].");
  };
  OneOf(p, "run.roles", c.run.roles, {"local", "processes"});
  OneOf(p, "run.schedule", c.run.schedule, {"sync", "async"});
  OneOf(p, "run.device", c.run.device, {"cpu", "cuda"});
  OneOf(p, "model.dtype", c.model.dtype, {"float32", "bfloat16"});
  OneOf(p, "data.overlong", c.data.overlong, {"error", "drop", "left", "right"});
  OneOf(p, "sft.lr_schedule", c.sft.lr_schedule, {"constant", "linear", "cosine"});
  OneOf(p, "optimizer.lr_schedule", c.optimizer.lr_schedule, {"constant", "linear", "cosine"});
  OneOf(p, "reward.on_failure", c.reward.on_failure, {"drop_group", "requeue", "penalty"});
  OneOf(p, "algorithm.name", c.algorithm.name, {"grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce++", "cispo", "ppo", "dpo",
                                                "reward_model"});
  const bool offline = IsOffline(c);
  if (offline) {
    OneOf(p, "preference.loss", c.preference.loss, {"sigmoid", "hinge", "ipo", "robust", "simpo", "orpo", "kto"});
    require(c.preference.beta > 0, "preference.beta has to be positive.");
    within("preference.label_smoothing", c.preference.label_smoothing, 0, 0.499);
    within("preference.centering", c.preference.centering, 0, 100);
    at_least("preference.batch", c.preference.batch, 1);
    within("preference.desirable_weight", c.preference.desirable_weight, 0, 1000);
    within("preference.undesirable_weight", c.preference.undesirable_weight, 0, 1000);
    require(c.preference.loss != "kto" || c.algorithm.name != "dpo" || c.preference.batch >= 2,
            "preference.loss = \"kto\" needs preference.batch >= 2: its reference point comes from other rows of the batch.");
    at_least("preference.heldout", c.preference.heldout, -1);
    at_least("preference.max_tokens", c.preference.max_tokens, 2);
    require(c.data.train != "arithmetic", "data.train has to name a file of preference pairs (or the folder of a store) for this algorithm.");
    require(c.sft.steps == 0, "sft.steps is a warm start before rollouts: training on pairs has none, leave it at 0.");
    require(c.data.eval.empty(), "data.eval is for rollouts: training on pairs holds back preference.heldout pairs of data.train.");
    require(c.algorithm.kl_coef == 0, "algorithm.kl_coef (beta) is for rollouts: the strength of DPO is preference.beta.");
    require(c.run.roles == "local", "run.roles = \"processes\" needs actors: training on pairs has none, use local.");
  }
  OneOf(p, "algorithm.advantage", c.algorithm.advantage, {"group", "leave_one_out", "batch"});
  OneOf(p, "algorithm.objective", c.algorithm.objective, {"clip", "cispo"});
  OneOf(p, "algorithm.ratio", c.algorithm.ratio, {"token", "sequence", "product"});
  OneOf(p, "algorithm.off_policy", c.algorithm.off_policy,
        {"off", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"});
  OneOf(p, "algorithm.kl_estimator", c.algorithm.kl_estimator, {"k1", "k2", "k3"});
  OneOf(p, "algorithm.kl_placement", c.algorithm.kl_placement, {"loss", "reward"});
  OneOf(p, "algorithm.aggregation", c.algorithm.aggregation, {"token", "sequence", "constant"});

  at_least("replay.keep_steps", c.replay.keep_steps, -1);
  OneOf(p, "replay.prompts", c.replay.prompts, {"passes", "uniform", "prioritised", "group", "stratified", "curriculum", "difficulty"});
  OneOf(p, "replay.sampler", c.replay.sampler, {"fifo", "uniform", "prioritised", "group", "stratified", "curriculum", "difficulty"});
  OneOf(p, "replay.evict", c.replay.evict, {"oldest", "lowest_priority"});
  at_least("replay.groups_per_step", c.replay.groups_per_step, 0);
  at_least("replay.max_age_steps", c.replay.max_age_steps, 1);
  at_least("replay.max_times_sampled", c.replay.max_times_sampled, 0);
  at_least("replay.max_groups", c.replay.max_groups, 0);
  at_least("replay.min_groups", c.replay.min_groups, 1);
  at_least("replay.max_staleness", c.replay.max_staleness, 0);
  at_least("replay.history_steps", c.replay.history_steps, 1);
  within("replay.samples_per_insert", c.replay.samples_per_insert, 1e-6, 1e6);
  within("replay.alpha", c.replay.alpha, 0, 100);
  within("replay.easiest", c.replay.easiest, 1e-6, 1);
  within("replay.ramp", c.replay.ramp, 0, 1);
  within("replay.floor", c.replay.floor, 0, 1);
  if (c.replay.groups_per_step > 0) {
    require(!offline && c.algorithm.name != "ppo", "replay.groups_per_step > 0 adds earlier rollouts to a batch of the GRPO family; " +
                                                       c.algorithm.name + " does not take them.");
    require(c.algorithm.off_policy != "off" && c.algorithm.tis_cap > 0,
            "replay.groups_per_step > 0 trains on answers of older policies: it needs importance weights, so algorithm.off_policy must "
            "not be off and algorithm.tis_cap has to be positive.");
  }
  at_least("run.steps", c.run.steps, 0);
  at_least("run.checkpoint_every", c.run.checkpoint_every, 0);
  at_least("run.keep_checkpoints", c.run.keep_checkpoints, 2);
  at_least("run.threads", c.run.threads, 0);
  at_least("run.actors", c.run.actors, 1);
  at_least("run.reward_workers", c.run.reward_workers, 1);
  at_least("run.max_staleness", c.run.max_staleness, 0);
  require(c.run.stall_seconds > 0, "run.stall_seconds has to be positive.");
  require(c.run.schedule != "sync" || c.run.max_staleness == 0,
          "run.max_staleness > 0 needs run.schedule = \"async\": under sync every batch is sampled by its own version.");
  require(c.run.schedule != "async" || c.run.max_staleness >= 1,
          "run.schedule = \"async\" needs run.max_staleness >= 1; for 0 use \"sync\".");
  if (c.model.path.empty()) {
    at_least("model.layers", c.model.layers, 1);
    at_least("model.heads", c.model.heads, 1);
    at_least("model.kv_heads", c.model.kv_heads, 1);
    at_least("model.ffn", c.model.ffn, 1);
    at_least("model.max_positions", c.model.max_positions, 2);
    require(c.model.heads >= 1 && c.model.hidden > 0 && c.model.hidden % c.model.heads == 0,
            "model.hidden has to be a positive multiple of model.heads.");
    require(c.model.kv_heads >= 1 && c.model.heads % c.model.kv_heads == 0, "model.kv_heads has to divide model.heads.");
    require(c.model.init_std > 0, "model.init_std has to be positive.");
    OneOf(p, "model.vocabulary", c.model.vocabulary, {"arithmetic"});
  }
  require(!c.data.train.empty(), "data.train is missing: name a file of prompts, or \"arithmetic\".");
  at_least("data.max_prompt_tokens", c.data.max_prompt_tokens, 1);
  at_least("data.eval_prompts", c.data.eval_prompts, 0);
  at_least("data.limit", c.data.limit, 0);
  at_least("data.eval_skip", c.data.eval_skip, 0);
  require(c.data.train != c.data.eval || c.data.eval == "arithmetic" || c.data.eval.empty() ||
              (c.data.limit > 0 && c.data.eval_skip >= c.data.limit),
          "data.eval is the file of data.train: its rows would be held out and trained on; set data.limit = N and "
          "data.eval_skip to N or more.");
  at_least("sft.steps", c.sft.steps, 0);
  at_least("sft.batch", c.sft.batch, 1);
  require(c.sft.learning_rate > 0, "sft.learning_rate has to be positive.");
  at_least("sft.eval_every", c.sft.eval_every, 0);
  at_least("sft.patience", c.sft.patience, 0);
  require(c.sft.patience == 0 || c.sft.eval_every > 0, "sft.patience counts held-out losses: set sft.eval_every.");
  at_least("rollout.prompts_per_step", c.rollout.prompts_per_step, 1);
  at_least("rollout.samples_per_prompt", c.rollout.samples_per_prompt, 1);
  require(offline || c.algorithm.name == "ppo" || c.algorithm.advantage == "batch" || c.rollout.samples_per_prompt >= 2,
          "rollout.samples_per_prompt has to be at least 2: GRPO compares the answers of a group.");
  at_least("rollout.max_new_tokens", c.rollout.max_new_tokens, 1);
  require(offline || !c.model.path.empty() || c.rollout.max_new_tokens < c.model.max_positions,
          "rollout.max_new_tokens = " + std::to_string(c.rollout.max_new_tokens) + " leaves no token for a prompt: model.max_positions is " +
              std::to_string(c.model.max_positions) + "; lower the one or raise the other.");
  at_least("rollout.max_batch", c.rollout.max_batch, 1);
  at_least("rollout.page_tokens", c.rollout.page_tokens, 1);
  at_least("rollout.kv_budget_mb", c.rollout.kv_budget_mb, 1);
  at_least("rollout.prefill_tokens", c.rollout.prefill_tokens, 1);
  at_least("rollout.top_k", c.rollout.top_k, 0);
  require(c.rollout.temperature > 0 && c.rollout.temperature <= 100,
          "rollout.temperature has to be in (0, 100]: a policy is trained on what it samples.");
  within("rollout.top_p", c.rollout.top_p, 1e-6, 1);
  within("rollout.min_p", c.rollout.min_p, 0, 1);
  require(offline || !c.reward.parts.empty(), "there is no [[reward.parts]]: name at least one, e.g. kind = \"answer\".");
  at_least("reward.retries", c.reward.retries, 0);
  within("algorithm.refill_rounds", static_cast<double>(c.algorithm.refill_rounds), 0, 1000);
  if (c.algorithm.refill_rounds > 0) {
    require(!offline && c.algorithm.name != "ppo" && c.algorithm.advantage != "batch",
            "algorithm.refill_rounds replaces groups of equal reward, which have no gradient where the answers of a group are compared: "
            "here they have one, leave it at 0.");
    require(c.rollout.samples_per_prompt >= 2, "algorithm.refill_rounds (dynamic sampling) needs groups: set rollout.samples_per_prompt to "
                                               "at least 2.");
    require(c.replay.prompts == "passes", "algorithm.refill_rounds draws its prompts in passes over the data: keep replay.prompts = \"passes\".");
  }
  within("algorithm.clip_low", c.algorithm.clip_low, 0, 1);
  within("algorithm.clip_high", c.algorithm.clip_high, 0, 100);
  require(c.algorithm.dual_clip == 0 || c.algorithm.dual_clip > 1, "algorithm.dual_clip has to be 0 (off) or more than 1.");
  within("algorithm.kl_coef", c.algorithm.kl_coef, 0, 1e6);
  require(c.algorithm.name != "ppo" || (c.algorithm.advantage == "group" && c.algorithm.objective == "clip" &&
                                        c.algorithm.ratio == "token"),
          "algorithm.advantage, objective and ratio are options of the GRPO family: PPO's advantages come from its critic.");
  require(c.algorithm.objective != "cispo" || c.algorithm.ratio == "token",
          "algorithm.objective = \"cispo\" weighs tokens one by one: it needs algorithm.ratio = \"token\".");
  require(c.algorithm.advantage != "batch" || c.algorithm.ratio == "token",
          "algorithm.advantage = \"batch\" gives every token its own: it needs algorithm.ratio = \"token\".");
  require(c.algorithm.advantage != "batch" || c.algorithm.kl_coef == 0 || c.algorithm.kl_placement == "reward",
          "algorithm.advantage = \"batch\" has its KL in the reward: set algorithm.kl_placement = \"reward\".");
  within("algorithm.tis_floor", c.algorithm.tis_floor, 0, 1);
  at_least("algorithm.epochs", c.algorithm.epochs, 1);
  at_least("algorithm.minibatches", c.algorithm.minibatches, 1);
  // Divided rather than multiplied: sizes without a bound must not overflow here.
  require(c.rollout.prompts_per_step < 1 || c.rollout.samples_per_prompt < 1 ||
              (c.algorithm.minibatches - 1) / c.rollout.samples_per_prompt < c.rollout.prompts_per_step,
          "algorithm.minibatches is larger than the number of answers in a batch.");
  within("algorithm.logprob_gate", c.algorithm.logprob_gate, 0, 1e6);
  ValidatePpo(c, p);
  require(c.optimizer.learning_rate > 0, "optimizer.learning_rate has to be positive.");
  within("optimizer.beta1", c.optimizer.beta1, 0, 0.999999);
  within("optimizer.beta2", c.optimizer.beta2, 0, 0.999999);
  require(c.optimizer.eps > 0, "optimizer.eps has to be positive.");
  within("optimizer.weight_decay", c.optimizer.weight_decay, 0, 1);
  within("optimizer.grad_clip", c.optimizer.grad_clip, 0, 1e9);
  within("optimizer.warmup_fraction", c.optimizer.warmup_fraction, 0, 1);
  within("optimizer.min_lr_fraction", c.optimizer.min_lr_fraction, 0, 1);
  at_least("optimizer.micro_batch_tokens", c.optimizer.micro_batch_tokens, 1);
  at_least("optimizer.max_skipped_in_a_row", c.optimizer.max_skipped_in_a_row, 1);
  at_least("eval.every", c.eval.every, 0);
  at_least("eval.samples", c.eval.samples, 1);
  within("eval.bar", c.eval.bar, 0, 1);
  require(c.eval.bar == 0 || !c.data.eval.empty(), "eval.bar needs held-out prompts: name data.eval.");
  require(c.metrics.prometheus_port >= 0 && c.metrics.prometheus_port <= 65535,
          "metrics.prometheus_port has to be a port, or 0 for off.");
  if (!c.eval.success_part.empty()) {
    const bool found = std::any_of(c.reward.parts.begin(), c.reward.parts.end(), [&](const RewardPartConfig& part) {
      return (part.name.empty() ? part.kind : part.name) == c.eval.success_part;
    });
    require(found, "eval.success_part = \"" + c.eval.success_part + "\" is not the name of a reward part.");
  }
  return p;
}

std::string ToToml(const Config& config) {
  Config copy = config;  // Visit hands out references
  Printer printer;
  copy.Visit(printer);
  return printer.out;
}

std::string Describe(const Loaded& loaded) {
  Config copy = loaded.config;
  std::vector<Row> rows;
  Lister lister{loaded.origins, "", rows};
  copy.Visit(lister);
  size_t key = 3, value = 5, origin = 6, unit = 4;
  for (const Row& r : rows) {
    key = std::max(key, r.key.size());
    value = std::max(value, std::min<size_t>(r.value.size(), 40));
    origin = std::max(origin, r.origin.size());
    unit = std::max(unit, r.unit.size());
  }
  const auto pad = [](const std::string& text, size_t width) {
    return text.size() >= width ? text + "  " : text + std::string(width - text.size() + 2, ' ');
  };
  std::string out = pad("key", key) + pad("value", value) + pad("origin", origin) + pad("unit", unit) + "advice\n";
  for (const Row& r : rows) out += pad(r.key, key) + pad(r.value, value) + pad(r.origin, origin) + pad(r.unit, unit) + r.advice + "\n";
  return out;
}

}  // namespace plumb::configs
