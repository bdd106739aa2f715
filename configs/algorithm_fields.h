// The fields of the sections of learning: algorithm, critic, preference, optimizer.
//
// Purpose: the part of configs/fields.h that says how a policy learns; include that one.
// Thread safety: see there.
#pragma once

#include "configs/config.h"

namespace plumb::configs {

template <class V>
void AlgorithmConfig::Visit(V& v) {
  v({"name", "name", "sets the method's usual values of the other options (docs/algorithms.md)",
     "adv_estimator"},
    name);
  v({"advantage", "name", "what a reward is compared with (docs/algorithms.md)"}, advantage);
  v({"objective", "name", "what is done with the ratio (docs/algorithms.md)", "loss_mode"},
    objective);
  v({"ratio", "name",
     "of each token, the geometric mean over the answer (GSPO), or of the whole answer (RLOO)",
     "importance_sampling_level"},
    ratio);
  v({"advantage_std", "bool", "divide by the group's standard deviation (false: Dr.GRPO)",
     "scale_rewards norm_adv_by_std_in_grpo"},
    advantage_std);
  v({"advantage_eps", "1", "added to that standard deviation"}, advantage_eps);
  v({"skip_equal_groups", "bool",
     "groups of equal reward have no policy gradient: left out, but for their KL and entropy"},
    skip_equal_groups);
  v({"refill_rounds", "1",
     "dynamic sampling: prompts drawn one after the other in place of one whose answers have equal "
     "rewards; 0: off",
     Within(0, 1000)},
    refill_rounds);
  v({"clip_low", "1", "ratio is clipped below 1 - clip_low",
     "epsilon clip_ratio clip_ratio_low cliprange eps_clip", Within(0, 1)},
    clip_low);
  v({"clip_high", "1", "ratio is clipped above 1 + clip_high",
     "epsilon_high clip_ratio_high eps_clip_high", Within(0, 100)},
    clip_high);
  v({"dual_clip", "1", "bound of the loss at negative advantages, c > 1; 0: off",
     "clip_ratio_c delta"},
    dual_clip);
  v({"kl_coef", "1", "weight of the KL to the reference; 0: no reference is kept",
     "beta init_kl_coef kl_loss_coef", Within(0, 1e6)},
    kl_coef);
  v({"kl_estimator", "name", "", "kl_loss_type"}, kl_estimator);
  v({"kl_placement", "name", ""}, kl_placement);
  v({"aggregation", "name", "constant: sum / max_new_tokens", "loss_agg_mode loss_type"},
    aggregation);
  v({"entropy_coef", "1", "bonus on the entropy", "entropy_coeff"}, entropy_coef);
  v({"epochs", "1", "passes over a batch", "ppo_epochs num_iterations num_ppo_epochs", AtLeast(1)},
    epochs);
  v({"minibatches", "1",
     "updates a pass; ppo_mini_batch_size is the number of prompts of one, and is turned into this",
     "num_mini_batches ppo_mini_batch_size", AtLeast(1)},
    minibatches);
  v({"tis_cap", "1",
     "cap of the importance weight between actor and learner; used with recompute_logprobs; 0: off",
     "vllm_importance_sampling_clip_max"},
    tis_cap);
  v({"tis_floor", "1", "masking modes: weights below it count 0 (IcePop: 0.5 with tis_cap 5)",
     "vllm_importance_sampling_clip_min", Within(0, 1)},
    tis_floor);
  v({"off_policy", "name", "token_truncate is TIS, token_mask IcePop",
     "vllm_importance_sampling_mode"},
    off_policy);
  v({"recompute_logprobs", "bool",
     "old log-probs by the learner instead of those recorded at sampling; always so when "
     "max_staleness > 0 or with replayed groups"},
    recompute_logprobs);
  v({"logprob_gate", "nats",
     "mean |actor - learner| log-prob above which, by three standard errors, the run stops; 0: off",
     Within(0, 1e6)},
    logprob_gate);
  v({"gamma",
     "1",
     "ppo: discount a token; 1 for answers that are scored at their end",
     "discount",
     {0, 1, true}},
    gamma);
  v({"lam", "1", "ppo: 1 trusts the rewards alone, lower values the critic more",
     "gae_lambda lambd", Within(0, 1)},
    lam);
  v({"whiten_advantages", "bool", "ppo: advantages of a batch get mean 0 and variance 1",
     "normalize_advantages"},
    whiten_advantages);
  v({"kl_controller", "name", "ppo: adaptive moves kl_coef so that the KL meets kl_target",
     "kl_ctrl"},
    kl_controller);
  v({"kl_target", "nats/token", "ppo: adaptive: KL to the reference to aim at, often 0.1",
     "target_kl", AtLeast(0)},
    kl_target);
  v({"kl_horizon", "answers", "ppo: adaptive: larger moves kl_coef more slowly", "horizon",
     Positive()},
    kl_horizon);
  v({"reward_normalize", "name", "ppo: by the running std, or by mean and std", "normalize_reward"},
    reward_normalize);
  v({"reward_clip", "1",
     "ppo: scores are clipped to +- this, after normalisation, often 10; 0: off",
     "cliprange_reward", AtLeast(0)},
    reward_clip);
  v({"std_over", "name", "advantage_std: of the group, or of all rewards of a batch"}, std_over);
  v({"reward_aggregation", "name", "of several reward parts", "multi_objective_aggregation"},
    reward_aggregation);
  v({"pass_k", "answers", "advantage = pass_k: so many together count as the best of them",
     AtLeast(2)},
    pass_k);
  v({"kl_bias_correction", "bool", "the KL estimate times the ratio", "use_bias_correction_kl"},
    kl_bias_correction);
  v({"kl_straight_through", "bool", "the KL estimate's value with k2's gradient"},
    kl_straight_through);
  v({"sapo_tau_positive", "1", "sapo: temperature at advantages above 0",
     "sapo_temperature_pos tau_pos", Positive()},
    sapo_tau_positive);
  v({"sapo_tau_negative", "1", "sapo: temperature at the others", "sapo_temperature_neg tau_neg",
     Positive()},
    sapo_tau_negative);
  v({"vespo", "1", "vespo: k and lambda at advantages above 0, then at the others"}, vespo);
  v({"dro_beta", "1", "dro: half the weight of the squared log-ratio", Positive()}, dro_beta);
  v({"cov_share", "1", "clip_cov, kl_cov: share of the tokens, one at least",
     "clip_cov_ratio kl_cov_ratio", Within(0, 1)},
    cov_share);
  v({"cov_low", "1", "clip_cov: covariances above it", "clip_cov_lb"}, cov_low);
  v({"cov_high", "1", "clip_cov: and below this are left out, at random", "clip_cov_ub"}, cov_high);
  v({"cov_kl_coef", "1", "kl_cov: weight of |log ratio| on those tokens", "ppo_kl_coef",
     AtLeast(0)},
    cov_kl_coef);
  v({"off_policy_sequence_mask", "nats/token",
     "answers of negative advantage whose mean log-ratio is beyond it are left out; 0: off",
     "off_policy_mask_threshold", AtLeast(0)},
    off_policy_sequence_mask);
  v({"mask_truncated", "bool", "answers that were cut at the limit do not train",
     "mask_truncated_completions"},
    mask_truncated);
  v({"entropy_quantile",
     "1",
     "share of the tokens that train: those of highest entropy",
     "top_entropy_quantile",
     {0, 1, true}},
    entropy_quantile);
  v({"entropy_target", "nats", "entropy_coef moves so that the entropy meets it; 0: fixed",
     AtLeast(0)},
    entropy_target);
  v({"reference_sync_every", "steps", "between mixes of the policy into the reference; 0: never",
     "ref_model_sync_steps", AtLeast(0)},
    reference_sync_every);
  v({"reference_mix", "1", "share of the policy in the new reference", "ref_model_mixup_alpha",
     Within(0, 1)},
    reference_mix);
}

template <class V>
void CriticConfig::Visit(V& v) {
  v({"mode", "name", "a model of its own, or a head on the policy with half the memory"}, mode);
  v({"path", "folder",
     "own: start from this model with a scalar head, e.g. the reward model; empty: the policy's "
     "trunk",
     "critic_pretrain value_model_path"},
    path);
  v({"learning_rate", "1", "peak rate of the critic; follows optimizer.lr_schedule",
     "lr critic_learning_rate critic_lr", Positive()},
    learning_rate);
  v({"value_clip", "1", "a new value counts at most this far from the old one; 0: off",
     "cliprange_value value_clip_range", AtLeast(0)},
    value_clip);
  v({"vf_coef", "1", "shared: weight of the value loss beside the policy's",
     "value_loss_coef vf_loss_coef", Positive()},
    vf_coef);
  v({"warmup_steps", "steps", "first train steps that update the critic alone", "critic_warmup",
     AtLeast(0)},
    warmup_steps);
}

template <class V>
void PreferenceConfig::Visit(V& v) {
  v({"loss", "name", "dpo (docs/preferences.md)", "loss_type"}, loss);
  v({"beta", "1", "how strongly the policy is held to the reference; 0.1 is usual", Positive()},
    beta);
  v({"label_smoothing", "1",
     "share of pairs that are labelled the wrong way round: cDPO (sigmoid), robust",
     Within(0, 0.499)},
    label_smoothing);
  v({"gamma", "1", "simpo: margin that a pair has to exceed", "simpo_gamma"}, gamma);
  v({"length_normalize", "bool", "log-ratios a token instead of an answer: sigmoid, hinge, robust"},
    length_normalize);
  v({"desirable_weight", "1", "kto: of desirable completions; raise it where they are few",
     Within(0, 1000)},
    desirable_weight);
  v({"undesirable_weight", "1", "kto: of undesirable completions", Within(0, 1000)},
    undesirable_weight);
  v({"centering", "1", "reward_model: pulls scores towards 0, often 0.01; 0: off",
     "center_rewards_coefficient", Within(0, 100)},
    centering);
  v({"batch", "pairs", "pairs an update", AtLeast(1)}, batch);
  v({"heldout", "pairs",
     "last pairs of the file: never trained on, measured before and after; -1: 100, and of fewer "
     "than 1,000 a tenth",
     AtLeast(-1)},
    heldout);
  v({"max_tokens", "tokens", "prompt and answer; longer pairs follow data.overlong", "max_length",
     AtLeast(2)},
    max_tokens);
  v({"reference_cache", "folder",
     "store that keeps the reference's log-probs for other runs as well, one run at a time; \"\": "
     "the run's own"},
    reference_cache);
  v({"losses", "texts", "\"loss=weight\" each, added up; empty: `loss` alone"}, losses);
  v({"divergence", "name", "from the reference", "f_divergence_type"}, divergence);
  v({"divergence_alpha", "1", "alpha_divergence: its alpha", "f_alpha_divergence_coef"},
    divergence_alpha);
  v({"ld_alpha", "1", "weight of the tokens behind the shorter answer's length; 1: as all",
     Within(0, 1)},
    ld_alpha);
  v({"discopop_tau", "1", "discopop: temperature of the switch between its two losses", Positive()},
    discopop_tau);
  v({"weighted", "bool",
     "dpo: a pair weighs what the policy would write of it, token by token (WPO)", "use_weighting"},
    weighted);
}

template <class V>
void OptimizerConfig::Visit(V& v) {
  v({"name", "name", "muon: of matrices inside the layers, AdamW for the rest", "optim"}, name);
  v({"muon_learning_rate", "1", "muon: peak rate of those matrices", Positive()},
    muon_learning_rate);
  v({"muon_momentum", "1", "muon", Within(0, 0.9999)}, muon_momentum);
  v({"learning_rate", "1", "peak rate", "lr", Positive()}, learning_rate);
  v({"beta1", "1", "decay of the first moment", "adam_beta1", Within(0, 0.999999)}, beta1);
  v({"beta2", "1", "decay of the second moment", "adam_beta2", Within(0, 0.999999)}, beta2);
  v({"eps", "1", "added to the root of the second moment", "adam_epsilon", Positive()}, eps);
  v({"weight_decay", "1", "decoupled decay of matrices", Within(0, 1)}, weight_decay);
  v({"grad_clip", "1", "bound of the gradient's norm; 0: off", "max_grad_norm max_norm",
     Within(0, 1e9)},
    grad_clip);
  v({"clip_value", "1", "bound of each gradient, before that of the norm; 0: off", AtLeast(0)},
    clip_value);
  v({"lr_schedule", "name", "", "lr_scheduler_type"}, lr_schedule);
  v({"warmup_fraction", "1", "share of the steps with a rising rate",
     "warmup_ratio lr_warmup_steps_ratio", Within(0, 1)},
    warmup_fraction);
  v({"min_lr_fraction", "1", "rate at the end, as a share of the peak", "min_lr_ratio",
     Within(0, 1)},
    min_lr_fraction);
  v({"decay_fraction", "1", "wsd: last share of the steps, in which the rate falls", Within(0, 1)},
    decay_fraction);
  v({"ramp_steps", "steps",
     "of which each has a larger batch than the one before, until it is whole; 0: none",
     Within(0, 1e6)},
    ramp_steps);
  v({"ramp_start", "1", "share of a batch in the first step", Within(0, 1)}, ramp_start);
  v({"micro_batch_tokens", "tokens", "of one forward and backward: bounds memory",
     "ppo_max_token_len_per_gpu", AtLeast(1)},
    micro_batch_tokens);
  v({"max_skipped_in_a_row", "1", "non-finite updates in a row that end the run", AtLeast(1)},
    max_skipped_in_a_row);
  v({"masters", "name",
     "of bfloat16 weights; none: weights are rounded at random, 4 bytes a parameter less"},
    masters);
  v({"gradients", "name", "bfloat16: 2 bytes a parameter instead of 4, summed in float32"},
    gradients);
  v({"moments", "name", "int8: 2 bytes a parameter instead of 8, rounded at random"}, moments);
  v({"offload", "bool",
     "on a GPU moments and masters lie in the host's memory; an update takes as long as they take "
     "to come and go",
     "cpu_offload"},
    offload);
  v({"loss_scale", "1",
     "model.products = \"fp16\": first factor of the loss, and largest; a power of 2; an update "
     "that overflows is skipped and divides it by 4",
     "init_scale", Within(1, 1 << 24)},
    loss_scale);
  v({"loss_scale_steps", "updates", "without an overflow until that factor is doubled",
     "growth_interval", AtLeast(1)},
    loss_scale_steps);
  v({"recompute", "name",
     "activations that the backward computes again; layer: least memory, a third more work"},
    recompute);
}

}  // namespace plumb::configs
