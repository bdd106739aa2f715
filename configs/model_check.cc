#include "configs/model_check.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "common/base/device.h"
#include "common/base/error.h"
#include "common/base/numbers/number_text.h"
#include "common/record/task_tokens.h"
#include "configs/parallel.h"
#include "configs/paths.h"
#include "configs/pattern_number.h"
#include "configs/value_text.h"

namespace plumb::configs {
namespace {

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
    const int64_t number = ParseNumber<int64_t>(width).value_or(0);
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
  ValidateTasks(c, p);
  p.Require(!c.policy.targets.empty(),
            "policy.targets names no module: use \"all-linear\" or names like \"q_proj\".");
}

// Ranks that have a whole model each, or there is one.
bool WholeModels(const Config& c) {
  try {
    const Parallel parallel = ReadParallel(c.run.parallel);
    return parallel.tp == 1 && parallel.pp == 1 && parallel.ep == 1;
  } catch (const Error&) {  // CheckParallel says it
    return true;
  }
}

// What the learner's products in 8 bits cannot be beside.
void ValidateFp8(const Config& c, Problems& p) {
  const std::string option = "model.products = \"fp8\" ";
  p.Require(c.policy.adapter == Adapter::kNone,
            option +
                "is of a whole model: products of a base under policy.adapter and of the adapter "
                "read model.dtype; take it out.");
  p.Require(c.experts.count == 0,
            option + "leaves experts out, whose products read model.dtype; take it out.");
  const std::optional<Device> device = ParseDevice(c.run.device);
  p.Require(!device || device->is_cpu() || c.model.dtype == DType::kBFloat16,
            option + "gives bfloat16 on a GPU: set model.dtype to \"bfloat16\".");
  p.Require(WholeModels(c),
            option +
                "goes with ranks of run.parallel that have a whole model each (dp): a scale is "
                "that of a whole row; take tp, pp and ep out, or it.");
}

// One that is not was said to be already.
bool LossScaleInRange(const Config& c) {
  return c.optimizer.loss_scale >= 1 && c.optimizer.loss_scale <= 1 << 24;
}

// Of those in float16, and of the scale that the loss has with them.
void ValidateFp16(const Config& c, Problems& p) {
  const std::string option = "model.products = \"fp16\" ";
  p.Require(c.experts.count == 0,
            option + "leaves experts out, whose products read model.dtype; take it out.");
  p.Require(WholeModels(c),
            option +
                "was never tried with tp, pp and ep of run.parallel: share the work as dp, or "
                "take it out.");
  p.Require(c.run.gradient_wire == GradientWire::kFloat32,
            option +
                "scales gradients, and what run.gradient_wire loses of them is added to those "
                "of another scale: leave run.gradient_wire at \"float32\".");
  int exponent = 0;
  p.Require(!LossScaleInRange(c) || std::frexp(c.optimizer.loss_scale, &exponent) == 0.5,
            "optimizer.loss_scale is " + NumberText(c.optimizer.loss_scale) +
                ", and a power of two rounds nothing: 65536, say.");
}

void ValidateProducts(const Config& c, Problems& p) {
  if (c.model.products == Products::kFp8) ValidateFp8(c, p);
  if (c.model.products == Products::kFp16) return ValidateFp16(c, p);
  const OptimizerConfig none;
  p.Require((c.optimizer.loss_scale == none.loss_scale || !LossScaleInRange(c)) &&
                c.optimizer.loss_scale_steps == none.loss_scale_steps,
            "optimizer.loss_scale and optimizer.loss_scale_steps are of products in float16: set "
            "model.products = \"fp16\", or take them out.");
}

}  // namespace

void CheckModel(const Config& config, Problems& problems) {
  ValidateModel(config.model, problems);
  ValidateExperts(config, problems);
  ValidatePolicy(config, problems);
  ValidateProducts(config, problems);
}

}  // namespace plumb::configs
