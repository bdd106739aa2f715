// Keys of config.json that DeepSeek's families share with GLM's mixtures and with new models of
// Plumb's own form: latent attention, and experts in groups with shared ones besides.
//
// `usual`: what transformers' class takes where the config does not say. Thread safety: pure
// functions of their arguments. Errors: kCorruption, kUnsupported with file and key.
#pragma once

#include "policy_model/families/config_keys.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {

// kv_lora_rank, q_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim. Sets kv_heads and
// head_dim, too; refuses biases and groups of heads with one key.
void ReadLatent(const ConfigKeys& keys, const LatentShape& usual, ModelShape& shape);
void WriteLatent(const ModelShape& shape, ConfigJson& json);

// n_routed_experts, num_experts_per_tok, moe_intermediate_size, n_shared_experts,
// routed_scaling_factor, n_group, topk_group, norm_topk_prob. `score`: the only scoring_func that
// the class has. Which layers are dense is the family's business.
struct UsualExperts {
  int64_t count = 0, per_token = 0, width = 0, shared = 0;
  double scale = 1;
  int64_t groups = 1, groups_per_token = 1;
  bool renormalize = true;
};
void ReadRoutedExperts(const ConfigKeys& keys, const UsualExperts& usual, const char* score,
                       ModelShape& shape);
void WriteRoutedExperts(const ModelShape& shape, ConfigJson& json);

// The first layers are dense: first_k_dense_replace.
void ReadFirstDense(const ConfigKeys& keys, int64_t usual, ModelShape& shape);
int64_t FirstDense(const ModelShape& shape);

// What stretching a latent model's positions does to the scale of its scores: the square of YaRN's
// magnitude for mscale_all_dim.
double ScoreStretch(const RopeScaling& rope);
// CommonPlan and PlanExperts, with that.
ModelPlan PlanLatentExperts(const ModelShape& shape);

}  // namespace plumb::policy_model
