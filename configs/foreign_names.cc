#include "configs/foreign_names.h"

#include "configs/choices.h"

namespace plumb::configs {
namespace {

struct Elsewhere {
  const char* name;
  const char* here;
};
constexpr char kBatch[] =
    "an update sees rollout.prompts_per_step x rollout.samples_per_prompt answers (pairs: "
    "preference.batch, demonstrations: sft.batch); optimizer.micro_batch_tokens bounds its memory";
constexpr char kEverySteps[] = "every step's metrics are written";
constexpr char kPerToken[] = "it is experts.per_token";
constexpr Elsewhere kElsewhere[] = {
    {"per_device_train_batch_size", kBatch},
    {"gradient_accumulation_steps", kBatch},
    {"ppo_micro_batch_size_per_gpu", kBatch},
    {"num_train_epochs", "run.steps counts the updates of the whole run"},
    {"total_epochs", "run.steps counts the updates of the whole run"},
    {"logging_steps", kEverySteps},
    {"log_every_n_steps", kEverySteps},
    {"report_to", "metrics.tensorboard and metrics.prometheus_port say where metrics go"},
    {"bf16", "it is model.dtype = \"bfloat16\""},
    {"fp16", "model.dtype is float32 or bfloat16"},
    {"use_peft", "it is policy.adapter = \"lora\""},
    {"use_lora", "it is policy.adapter = \"lora\""},
    {"lora", "it is policy.adapter = \"lora\", with policy.rank, alpha and targets"},
    {"experts.top_k", kPerToken},
    {"experts.num_experts_per_tok", kPerToken},
    {"num_experts_per_tok", kPerToken},
    {"file", "a reward part's file is its path, a run's data are data.train"},
    {"peft_config", "it is policy.adapter = \"lora\", with policy.rank, alpha and targets"},
};

struct Value {
  const char* key;
  const char* value;
  const char* here;
};
constexpr char kAllLinear[] = "a list of names, [\"all-linear\"]";
constexpr Value kValues[] = {
    {"algorithm.aggregation", "grpo",
     "write algorithm.aggregation = \"sequence\", the mean over answers of the mean over their "
     "tokens"},
    {"algorithm.aggregation", "dr_grpo",
     "write algorithm.aggregation = \"constant\", the sum over answers x rollout.max_new_tokens"},
    {"algorithm.aggregation", "dapo",
     "write algorithm.aggregation = \"token\", the mean over all tokens of an update"},
    {"algorithm.aggregation", "bnpo",
     "it divides by the tokens of each device's batch, which nothing here does; the mean over all "
     "tokens of an update is algorithm.aggregation = \"token\""},
    {"algorithm.aggregation", "token-mean", "write algorithm.aggregation = \"token\""},
    {"algorithm.aggregation", "seq-mean-token-mean", "write algorithm.aggregation = \"sequence\""},
    {"algorithm.advantage_std", "group", "write algorithm.advantage_std = true"},
    {"algorithm.advantage_std", "none", "write algorithm.advantage_std = false"},
    {"algorithm.advantage_std", "batch",
     "the deviation of a whole batch is algorithm.advantage = \"batch\" (REINFORCE++), which takes "
     "the batch's mean, too"},
    {"policy.targets", "all-linear", kAllLinear},
    {"policy.targets", "all", kAllLinear},
    {"preference.loss", "dpo", "write preference.loss = \"sigmoid\", the loss of the DPO paper"},
    {"preference.loss", "kto_pair", "write preference.loss = \"kto\""},
    {"algorithm.name", "gae", "write algorithm.name = \"ppo\", whose advantages are GAE"},
    {"algorithm.name", "reinforce_plus_plus", "write algorithm.name = \"reinforce++\""},
};

}  // namespace

std::string ForeignKey(std::string_view key) {
  for (const Elsewhere& there : kElsewhere) {
    if (key == there.name) return there.here;
  }
  return "";
}

std::string ForeignValue(std::string_view key, std::string_view value) {
  for (const Value& there : kValues) {
    if (key == there.key && value == there.value) return there.here;
  }
  if (key != "algorithm.name") return "";
  const std::string preference = ForeignAlgorithm(value);
  return preference.empty() ? "" : "write " + preference;
}

std::string ForeignAlgorithm(std::string_view name) {
  if (!FromName<PreferenceLossKind>(name)) return "";
  return "algorithm.name = \"dpo\" with preference.loss = \"" + std::string(name) + "\"";
}

}  // namespace plumb::configs
