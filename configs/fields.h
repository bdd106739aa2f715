// The one list of options: what each field is called, its unit, its advice, and the names other systems give it.
//
// Parsing, checking, printing and documentation are visitors over these lists; a visitor is called as
// v(FieldInfo, field) for each field and v.Section(name, struct) for each table. Included by configs/*.cc only.
#pragma once

#include "configs/config.h"

namespace plumb::configs {

template <class V>
void RunConfig::Visit(V& v) {
  v({"seed", "1", "every random draw is keyed by it; the same seed gives the same run"}, seed);
  v({"out", "path", "run folder; empty: runs/<recipe name>"}, out);
  v({"roles", "name", "local: one process; processes: one process a role, restarted when killed"}, roles);
  v({"schedule", "name", "sync: batch k uses version k only, reproducible; async: generation runs ahead"}, schedule);
  v({"max_staleness", "versions", "how far generation may run ahead under async; 0 under sync"}, max_staleness);
  v({"steps", "steps", "train steps of the whole run", "total_steps max_steps"}, steps);
  v({"checkpoint_every", "steps", "of the run, and updates of its warm start; 0: only at the start, the end, a stop and an error",
     "save_steps save_freq"}, checkpoint_every);
  v({"keep_checkpoints", "1", "verified checkpoints kept; at least 2", "save_total_limit"}, keep_checkpoints);
  v({"threads", "1", "threads of products and kernels in each process; 0: one a core"}, threads);
  v({"device", "name", "cpu | cuda"}, device);
  v({"actors", "processes", "generating processes under roles = processes"}, actors);
  v({"reward_workers", "processes", "scoring processes under roles = processes"}, reward_workers);
  v({"stall_seconds", "s", "a wait in which nothing is generated, scored or stored for this long ends the run and names what it waited for"}, stall_seconds);
}

template <class V>
void ModelConfig::Visit(V& v) {
  v({"path", "folder", "HF model folder; empty: a new model of the shape below", "model_name_or_path pretrain"}, path);
  v({"dtype", "name", "float32 | bfloat16; bfloat16 is 4-5x faster where the processor has it", "torch_dtype"}, dtype);
  v({"layers", "1", "of a new model"}, layers);
  v({"hidden", "1", "width of a new model; a multiple of heads"}, hidden);
  v({"heads", "1", "query heads of a new model"}, heads);
  v({"kv_heads", "1", "key and value heads of a new model; divides heads"}, kv_heads);
  v({"ffn", "1", "width of the feed-forward part of a new model"}, ffn);
  v({"max_positions", "tokens", "longest sequence of a new model"}, max_positions);
  v({"tied", "bool", "a new model's head is its embedding"}, tied);
  v({"rope_theta", "1", "base of the rotary angles of a new model"}, rope_theta);
  v({"init_std", "1", "standard deviation of a new model's weights"}, init_std);
  v({"vocabulary", "name", "built-in tokenizer of a new model: arithmetic"}, vocabulary);
}

template <class V>
void DataConfig::Visit(V& v) {
  v({"train", "file", "prompts (JSONL, JSONL.gz), or \"arithmetic\" for generated sums", "train_files prompt_data"}, train);
  v({"dataset", "name", "offline training with a store's folder as train: which of its preference datasets; empty: the only one"}, dataset);
  v({"eval", "file", "held-out prompts, or \"arithmetic\"; empty: no evaluation", "val_files"}, eval);
  v({"eval_prompts", "rows", "at most so many rows of eval; 0: all"}, eval_prompts);
  v({"eval_skip", "rows", "usable rows of eval passed over first; at least `limit` where eval is train's file"}, eval_skip);
  v({"map", "table", "other column names, e.g. { prompt = \"input\", answer = \"label\" }"}, map);
  v({"system_prompt", "text", "put in front of every prompt as a system message"}, system_prompt);
  v({"prompt_suffix", "text", "appended to the user's text, e.g. how to write the answer"}, prompt_suffix);
  v({"max_prompt_tokens", "tokens", "longer prompts follow `overlong`", "max_prompt_length prompt_max_len"}, max_prompt_tokens);
  v({"overlong", "name", "error | drop | left | right (which side is cut); counted and reported"}, overlong);
  v({"shuffle", "bool", "another order in every epoch, keyed by the seed"}, shuffle);
  v({"limit", "rows", "use only the first rows of train; 0: all"}, limit);
  v({"arithmetic_digits", "digits", "size of the numbers in generated sums"}, arithmetic_digits);
  v({"arithmetic_sft_examples", "rows", "written-out sums for the warm start"}, arithmetic_sft_examples);
}

template <class V>
void ReplayConfig::Visit(V& v) {
  v({"keep_steps", "steps", "rollouts kept behind the oldest checkpoint, to mine, rescore or replay them; -1: all"}, keep_steps);
  v({"prompts", "name", "passes (data.shuffle) | uniform | prioritised (by weight) | group | stratified | curriculum | difficulty"}, prompts);
  v({"groups_per_step", "groups", "groups of earlier steps added to each batch, with importance weights; 0: on-policy only"}, groups_per_step);
  v({"sampler", "name", "of earlier groups: fifo | uniform | prioritised (spread of rewards) | group | stratified | curriculum | difficulty"}, sampler);
  v({"max_age_steps", "steps", "older groups are not drawn; so many steps stay in the store"}, max_age_steps);
  v({"max_times_sampled", "draws", "a group that was drawn so often leaves; 0: no bound"}, max_times_sampled);
  v({"max_groups", "groups", "drawn from at most so many; 0: no bound"}, max_groups);
  v({"evict", "name", "oldest | lowest_priority: who leaves when there are more than max_groups"}, evict);
  v({"samples_per_insert", "1", "draws for each group generated, at most, over the run"}, samples_per_insert);
  v({"min_groups", "groups", "generated before the first draw"}, min_groups);
  v({"max_staleness", "versions", "that a drawn group may be behind; 0: only max_age_steps bounds it"}, max_staleness);
  v({"alpha", "1", "prioritised: exponent of the priority; 0 is uniform"}, alpha);
  v({"easiest", "1", "curriculum: share of the prompts at the start"}, easiest);
  v({"ramp", "1", "curriculum: part of the run after which all are in"}, ramp);
  v({"floor", "1", "difficulty: weight of what is always or never solved, as a share of the most"}, floor);
  v({"stratum", "column", "of the data: what stratified and group go by"}, stratum);
  v({"difficulty", "column", "of the data, a number: what curriculum goes by; empty: length of the prompt"}, difficulty);
  v({"history_steps", "steps", "difficulty: steps whose results count; they stay in the store"}, history_steps);
}

template <class V>
void SftConfig::Visit(V& v) {
  v({"steps", "steps", "updates of the warm start; 0: none"}, steps);
  v({"batch", "sequences", "demonstrations an update"}, batch);
  v({"learning_rate", "1", "peak rate", "lr"}, learning_rate);
  v({"lr_schedule", "name", "constant | linear | cosine", "lr_scheduler_type"}, lr_schedule);
  v({"warmup_fraction", "1", "share of the steps with a rising rate", "warmup_ratio"}, warmup_fraction);
  v({"min_lr_fraction", "1", "rate at the end, as a share of the peak"}, min_lr_fraction);
  v({"weight_decay", "1", "decoupled decay of matrices"}, weight_decay);
  v({"data", "file", "demonstrations; empty: those that belong to data.train"}, data);
  v({"eval_every", "steps", "between held-out losses; 0: never"}, eval_every);
  v({"patience", "losses", "in a row without one 2 % lower than all before, then the warm start ends; 0: all steps",
     "early_stopping_patience"}, patience);
}

template <class V>
void RolloutConfig::Visit(V& v) {
  v({"prompts_per_step", "prompts", "groups in a training batch", "train_batch_size rollout_batch_size"}, prompts_per_step);
  v({"samples_per_prompt", "answers", "group size", "num_generations n n_samples_per_prompt"}, samples_per_prompt);
  v({"max_new_tokens", "tokens", "an answer is cut here", "max_completion_length max_response_length response_length"}, max_new_tokens);
  v({"temperature", "1", "of the sampled distribution; log-probs are of that distribution"}, temperature);
  v({"top_k", "tokens", "0: off; the learner computes over the tokens that filters keep"}, top_k);
  v({"top_p", "1", "1: off"}, top_p);
  v({"min_p", "1", "0: off"}, min_p);
  v({"stop", "texts", "stop strings besides the end-of-sequence token"}, stop);
  v({"max_batch", "sequences", "decoded together"}, max_batch);
  v({"page_tokens", "tokens", "KV slots a page"}, page_tokens);
  v({"kv_budget_mb", "MiB", "memory of the KV pages"}, kv_budget_mb);
  v({"prefill_tokens", "tokens", "prompt tokens computed in one step"}, prefill_tokens);
}

template <class V>
void RewardPartConfig::Visit(V& v) {
  v({"name", "name", "name in metrics and samples; empty: the kind"}, name);
  v({"kind", "name", "answer | format | length | plugin | program | python | ... (docs/rewards.md)"}, kind);
  v({"weight", "1", "share in the reward"}, weight);
  v({"path", "file", "shared object, program or Python file"}, path);
  v({"args", "texts", "arguments of a program"}, args);
  v({"timeout_s", "s", "wall clock a call; then the process is killed"}, timeout_s);
  v({"memory_mb", "MiB", "address space of the process that runs it"}, memory_mb);
  v({"workers", "processes", "that run it"}, workers);
  v({"target_tokens", "tokens", "length: full score up to here"}, target_tokens);
  v({"max_tokens", "tokens", "length: 0 from here on"}, max_tokens);
  v({"endpoint", "address", "zmq: tcp://host:port or ipc:///path; http, judge: http(s)://host:port/path", "url remote_rm_url rm_url"}, endpoint);
  v({"api", "name", "http: openrlhf | slime"}, api);
  v({"reply_key", "name", "http, api = slime: which number of a reply object is the score; empty: score", "reward_key"}, reply_key);
  v({"server_key", "file", "zmq: public key (.pub) of the worker; empty: no keys, loopback or ipc only"}, server_key);
  v({"client_key", "file", "zmq: our key (.key) that the worker knows; plumb keys generate makes one"}, client_key);
  v({"model", "name", "judge: the model's name at its endpoint"}, model);
  v({"judge_prompt", "text", "judge: what it is asked, with {prompt}, {completion}, {ground_truth}"}, judge_prompt);
  v({"score_regex", "PCRE2", "judge: group 1 is the number; empty: the last number of its text"}, score_regex);
  v({"scale", "1", "judge: the number that counts as 1"}, scale);
  v({"api_key_env", "name", "http, judge: environment variable with the key; the key itself never stands in a recipe"}, api_key_env);
}

template <class V>
void RewardConfig::Visit(V& v) {
  v({"parts", "tables", "the parts of a reward, [[reward.parts]]"}, parts);
  v({"on_failure", "name", "drop_group | requeue | penalty, after the retries"}, on_failure);
  v({"retries", "1", "further tries of a failed call"}, retries);
  v({"penalty", "1", "reward of an answer that could not be scored under on_failure = penalty"}, penalty);
  v({"allow_unsandboxed", "bool", "run reward code although a layer of isolation is missing on this machine"}, allow_unsandboxed);
}

template <class V>
void AlgorithmConfig::Visit(V& v) {
  v({"name", "name", "grpo | dr_grpo | dapo | gspo | rloo | reinforce++ | cispo | ppo | dpo | reward_model; sets the method's usual values of the other "
     "options (docs/algorithms.md)", "adv_estimator"}, name);
  v({"advantage", "name", "group: minus the group's mean; leave_one_out: minus the others' mean; batch: whitened over the batch"}, advantage);
  v({"objective", "name", "clip: clipped surrogate; cispo: bounded weight, every token keeps its gradient"}, objective);
  v({"ratio", "name", "token; sequence: geometric mean over the answer (GSPO); product: of the whole answer (RLOO)",
     "importance_sampling_level"}, ratio);
  v({"advantage_std", "bool", "divide by the group's standard deviation (false: Dr.GRPO)", "scale_rewards"}, advantage_std);
  v({"advantage_eps", "1", "added to that standard deviation"}, advantage_eps);
  v({"skip_equal_groups", "bool",
     "groups of equal reward have no policy gradient: left out, but for their KL and entropy"},
    skip_equal_groups);
  v({"refill_rounds", "1", "dynamic sampling: prompts drawn one after the other in place of one whose answers have equal rewards; 0: off"},
    refill_rounds);
  v({"clip_low", "1", "ratio is clipped below 1 - clip_low", "epsilon clip_ratio clip_ratio_low cliprange eps_clip"}, clip_low);
  v({"clip_high", "1", "ratio is clipped above 1 + clip_high", "epsilon_high clip_ratio_high eps_clip_high"}, clip_high);
  v({"dual_clip", "1", "bound of the loss at negative advantages, c > 1; 0: off", "clip_ratio_c"}, dual_clip);
  v({"kl_coef", "1", "weight of the KL to the reference; 0: no reference is kept", "beta init_kl_coef kl_loss_coef"}, kl_coef);
  v({"kl_estimator", "name", "k1 | k2 | k3", "kl_loss_type"}, kl_estimator);
  v({"kl_placement", "name", "loss | reward"}, kl_placement);
  v({"aggregation", "name", "token | sequence | constant (sum / max_new_tokens)", "loss_agg_mode loss_type"}, aggregation);
  v({"entropy_coef", "1", "bonus on the entropy", "entropy_coeff"}, entropy_coef);
  v({"epochs", "1", "passes over a batch", "ppo_epochs num_iterations num_ppo_epochs"}, epochs);
  v({"minibatches", "1", "updates a pass; ppo_mini_batch_size is the number of prompts of one, and is turned into this",
     "num_mini_batches ppo_mini_batch_size"}, minibatches);
  v({"tis_cap", "1", "cap of the importance weight between actor and learner; used with recompute_logprobs; 0: off",
     "vllm_importance_sampling_clip_max"}, tis_cap);
  v({"tis_floor", "1", "masking modes: weights below it count 0 (IcePop: 0.5 with tis_cap 5)", "vllm_importance_sampling_clip_min"},
    tis_floor);
  v({"off_policy", "name", "off | token_truncate (TIS) | token_mask (IcePop) | sequence_truncate | sequence_mask",
     "vllm_importance_sampling_mode"}, off_policy);
  v({"recompute_logprobs", "bool", "old log-probs by the learner instead of those recorded at sampling; always so when max_staleness > 0 or with replayed groups"}, recompute_logprobs);
  v({"logprob_gate", "nats", "mean |actor - learner| log-prob above which, by three standard errors, the run stops; 0: off"}, logprob_gate);
  v({"gamma", "1", "ppo: discount a token; 1 for answers that are scored at their end", "discount"}, gamma);
  v({"lam", "1", "ppo: 1 trusts the rewards alone, lower values the critic more", "gae_lambda lambd"}, lam);
  v({"whiten_advantages", "bool", "ppo: advantages of a batch get mean 0 and variance 1", "normalize_advantages"}, whiten_advantages);
  v({"kl_controller", "name", "ppo: fixed | adaptive (kl_coef moves so that the KL meets kl_target)", "kl_ctrl"}, kl_controller);
  v({"kl_target", "nats/token", "ppo: adaptive: KL to the reference to aim at, often 0.1", "target_kl"}, kl_target);
  v({"kl_horizon", "answers", "ppo: adaptive: larger moves kl_coef more slowly", "horizon"}, kl_horizon);
  v({"reward_normalize", "name", "ppo: off | scale (by the running std) | whiten (mean too)", "normalize_reward"}, reward_normalize);
  v({"reward_clip", "1", "ppo: scores are clipped to +- this, after normalisation, often 10; 0: off", "cliprange_reward"}, reward_clip);
}

template <class V>
void CriticConfig::Visit(V& v) {
  v({"mode", "name", "own: a model of its own; shared: a head on the policy, half the memory"}, mode);
  v({"path", "folder", "own: start from this model with a scalar head, e.g. the reward model; empty: the policy's trunk",
     "critic_pretrain value_model_path"}, path);
  v({"learning_rate", "1", "peak rate of the critic; follows optimizer.lr_schedule", "lr critic_learning_rate critic_lr"}, learning_rate);
  v({"value_clip", "1", "a new value counts at most this far from the old one; 0: off", "cliprange_value value_clip_range"}, value_clip);
  v({"vf_coef", "1", "shared: weight of the value loss beside the policy's", "value_loss_coef vf_loss_coef"}, vf_coef);
  v({"warmup_steps", "steps", "first train steps that update the critic alone", "critic_warmup"}, warmup_steps);
}

template <class V>
void PreferenceConfig::Visit(V& v) {
  v({"loss", "name", "dpo: sigmoid | hinge | ipo | robust | simpo | orpo | kto (docs/preferences.md)", "loss_type"}, loss);
  v({"beta", "1", "how strongly the policy is held to the reference; 0.1 is usual"}, beta);
  v({"label_smoothing", "1", "share of pairs that are labelled the wrong way round: cDPO (sigmoid), robust"}, label_smoothing);
  v({"gamma", "1", "simpo: margin that a pair has to exceed", "simpo_gamma"}, gamma);
  v({"length_normalize", "bool", "log-ratios a token instead of an answer: sigmoid, hinge, robust"}, length_normalize);
  v({"desirable_weight", "1", "kto: of desirable completions; raise it where they are few"}, desirable_weight);
  v({"undesirable_weight", "1", "kto: of undesirable completions"}, undesirable_weight);
  v({"centering", "1", "reward_model: pulls scores towards 0, often 0.01; 0: off", "center_rewards_coefficient"}, centering);
  v({"batch", "pairs", "pairs an update"}, batch);
  v({"heldout", "pairs",
     "last pairs of the file: never trained on, measured before and after; -1: 100, and of fewer "
     "than 1,000 a tenth"},
    heldout);
  v({"max_tokens", "tokens", "prompt and answer; longer pairs follow data.overlong", "max_length"}, max_tokens);
  v({"reference_cache", "folder", "store that keeps the reference's log-probs for other runs as well, one run at a time; \"\": the run's own"},
    reference_cache);
}

template <class V>
void OptimizerConfig::Visit(V& v) {
  v({"learning_rate", "1", "peak rate", "lr"}, learning_rate);
  v({"beta1", "1", "decay of the first moment", "adam_beta1"}, beta1);
  v({"beta2", "1", "decay of the second moment", "adam_beta2"}, beta2);
  v({"eps", "1", "added to the root of the second moment", "adam_epsilon"}, eps);
  v({"weight_decay", "1", "decoupled decay of matrices"}, weight_decay);
  v({"grad_clip", "1", "bound of the gradient's norm; 0: off", "max_grad_norm max_norm"}, grad_clip);
  v({"lr_schedule", "name", "constant | linear | cosine", "lr_scheduler_type"}, lr_schedule);
  v({"warmup_fraction", "1", "share of the steps with a rising rate", "warmup_ratio lr_warmup_steps_ratio"}, warmup_fraction);
  v({"min_lr_fraction", "1", "rate at the end, as a share of the peak", "min_lr_ratio"}, min_lr_fraction);
  v({"micro_batch_tokens", "tokens", "of one forward and backward: bounds memory", "ppo_max_token_len_per_gpu"}, micro_batch_tokens);
  v({"max_skipped_in_a_row", "1", "non-finite updates in a row that end the run"}, max_skipped_in_a_row);
}

template <class V>
void EvalConfig::Visit(V& v) {
  v({"every", "steps", "0: only before and after", "eval_steps test_freq"}, every);
  v({"samples", "answers", "a held-out prompt"}, samples);
  v({"success_part", "name", "reward part that says solved (>= 0.5); empty: the first"}, success_part);
  v({"bar", "1", "share solved at the end below which the run exits with 7; 0: none"}, bar);
}

template <class V>
void MetricsConfig::Visit(V& v) {
  v({"tensorboard", "bool", "write event files"}, tensorboard);
  v({"prometheus_port", "port", "serve /metrics on the loopback; 0: off"}, prometheus_port);
  v({"samples_every", "steps", "between entries of samples.jsonl; 0: none"}, samples_every);
}

template <class V>
void Config::Visit(V& v) {
  v.Section("run", run);
  v.Section("model", model);
  v.Section("data", data);
  v.Section("sft", sft);
  v.Section("rollout", rollout);
  v.Section("reward", reward);
  v.Section("replay", replay);
  v.Section("algorithm", algorithm);
  v.Section("critic", critic);
  v.Section("preference", preference);
  v.Section("optimizer", optimizer);
  v.Section("eval", eval);
  v.Section("metrics", metrics);
}

}  // namespace plumb::configs
