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
constexpr char kVespo[] = "it is one of algorithm.vespo = [k, lambda above 0, k, lambda below]";
constexpr char kPerToken[] = "it is experts.per_token";
constexpr Elsewhere kElsewhere[] = {
    {"per_device_train_batch_size", kBatch},
    {"gradient_accumulation_steps", kBatch},
    {"ppo_micro_batch_size_per_gpu", kBatch},
    {"num_train_epochs", "run.steps counts the updates of the whole run"},
    {"total_epochs", "run.steps counts the updates of the whole run"},
    {"logging_steps", kEverySteps},
    {"log_every_n_steps", kEverySteps},
    {"report_to",
     "metrics.tensorboard, metrics.prometheus_port and metrics.follow (wandb, trackio, mlflow) say "
     "where metrics go"},
    {"bf16", "it is model.dtype = \"bfloat16\""},
    {"fp16", "model.dtype is float32 or bfloat16"},
    {"use_peft", "it is policy.adapter = \"lora\""},
    {"use_lora", "it is policy.adapter = \"lora\""},
    {"lora", "it is policy.adapter = \"lora\", with policy.rank, alpha and targets"},
    {"experts.top_k", kPerToken},
    {"experts.num_experts_per_tok", kPerToken},
    {"num_experts_per_tok", kPerToken},
    {"file", "a reward part's file is its path, a run's data are data.train"},
    {"vespo_k_pos", kVespo},
    {"vespo_lambda_pos", kVespo},
    {"vespo_k_neg", kVespo},
    {"vespo_lambda_neg", kVespo},
    {"use_adaptive_entropy", "it is algorithm.entropy_target > 0"},
    {"sync_ref_model", "it is algorithm.reference_sync_every > 0"},
    {"loss_weights", "each of preference.losses has its weight: [\"sigmoid=0.8\", \"sft=1\"]"},
    {"seq_kd",
     "answers of the teacher are demonstrations: write them with `plumb generate`, then "
     "algorithm.name = \"sft\""},
    {"use_task_rewards", "it is distill.only = false"},
    {"peft_config", "it is policy.adapter = \"lora\", with policy.rank, alpha and targets"},
};

struct Value {
  const char* key;
  const char* value;
  const char* here;
};
constexpr char kStraight[] =
    "write the estimator without \"+\", and algorithm.kl_straight_through = true";
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
     "write algorithm.aggregation = \"token\", the mean over all tokens of an update, which is one "
     "batch here on however many devices"},
    {"algorithm.aggregation", "luspo",
     "write algorithm.aggregation = \"sequence_sum\" with algorithm.ratio = \"sequence\""},
    {"algorithm.aggregation", "cispo", "write algorithm.name = \"cispo\""},
    {"algorithm.aggregation", "sapo",
     "write algorithm.objective = \"sapo\" with algorithm.aggregation = \"sequence\""},
    {"algorithm.aggregation", "vespo", "write algorithm.objective = \"vespo\""},
    {"algorithm.aggregation", "seq-mean-token-sum",
     "write algorithm.aggregation = \"sequence_sum\""},
    {"algorithm.aggregation", "seq-mean-token-sum-norm",
     "write algorithm.aggregation = \"constant\""},
    {"algorithm.objective", "vanilla", "write algorithm.objective = \"clip\""},
    {"algorithm.objective", "gspo",
     "write algorithm.name = \"gspo\", whose ratio is that of a sequence"},
    {"algorithm.objective", "gpg", "write algorithm.objective = \"policy_gradient\""},
    {"algorithm.objective", "geo_mean",
     "write algorithm.objective = \"geometric\" with algorithm.aggregation = \"sequence\""},
    {"algorithm.kl_estimator", "low_var_kl", "write algorithm.kl_estimator = \"k3\""},
    {"algorithm.kl_estimator", "kl", "write algorithm.kl_estimator = \"k1\""},
    {"algorithm.kl_estimator", "mse", "write algorithm.kl_estimator = \"k2\""},
    {"algorithm.kl_estimator", "k1+", kStraight},
    {"algorithm.kl_estimator", "k3+", kStraight},
    {"algorithm.kl_estimator", "abs+", kStraight},
    {"algorithm.kl_estimator", "low_var_kl+", kStraight},
    {"algorithm.aggregation", "token-mean", "write algorithm.aggregation = \"token\""},
    {"algorithm.aggregation", "seq-mean-token-mean", "write algorithm.aggregation = \"sequence\""},
    {"algorithm.advantage_std", "group", "write algorithm.advantage_std = true"},
    {"algorithm.advantage_std", "none", "write algorithm.advantage_std = false"},
    {"algorithm.advantage_std", "batch",
     "write algorithm.std_over = \"batch\"; with the batch's mean, too, it is algorithm.advantage "
     "= "
     "\"batch\" (REINFORCE++)"},
    {"distill.distance", "k1", "write distill.distance = \"reverse_k1\""},
    {"distill.distance", "k3", "write distill.distance = \"reverse_k3\""},
    {"distill.distance", "forward_kl_topk", "write distill.distance = \"forward_top_k\""},
    {"distill.distance", "forward_kl",
     "write distill.distance = \"forward_top_k\", over distill.top_k tokens"},
    {"distill.distance", "reverse_kl",
     "write distill.distance = \"reverse_k1\", or \"jsd\" with distill.beta = 1"},
    {"policy.targets", "all-linear", kAllLinear},
    {"policy.targets", "all", kAllLinear},
    {"preference.loss", "dpo", "write preference.loss = \"sigmoid\", the loss of the DPO paper"},
    {"preference.loss", "kto_pair", "write preference.loss = \"kto\""},
    {"algorithm.name", "gae", "write algorithm.name = \"ppo\", whose advantages are GAE"},
    {"algorithm.name", "reinforce_plus_plus", "write algorithm.name = \"reinforce++\""},
    {"algorithm.name", "reinforce_plus_plus_baseline",
     "write algorithm.advantage = \"group_mean_batch_std\""},
    {"algorithm.name", "remax", "write algorithm.advantage = \"greedy\""},
    {"algorithm.name", "opo", "write algorithm.advantage = \"optimal\""},
    {"algorithm.name", "grpo_passk",
     "write algorithm.advantage = \"pass_k\" with algorithm.pass_k = rollout.samples_per_prompt"},
    {"algorithm.name", "gpg",
     "write algorithm.objective = \"policy_gradient\" with algorithm.advantage_std = false"},
    {"algorithm.name", "gdpo", "write algorithm.reward_aggregation = \"normalize_then_sum\""},
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
