// Mixtral: experts in every layer, softmax over all, the weights of the chosen ones divided by
// their sum. MiniMax M2: the same files' names; sigmoids with a balancing bias, q and k normed over
// their whole width, a part of a head rotates.
#include "policy_model/families/config_keys.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

constexpr LayerNames kNames = {.router = "block_sparse_moe.gate",
                               .router_bias = "block_sparse_moe.e_score_correction_bias",
                               .experts = "block_sparse_moe.experts",
                               .expert_gate = "w1",
                               .expert_up = "w3",
                               .expert_down = "w2"};

void ReadExperts(const ConfigKeys& keys, int64_t count, int64_t per_token, ModelShape& s) {
  ExpertsShape& e = s.experts;
  e.count = keys.Int("num_local_experts", keys.Int("num_experts", count));
  e.per_token = keys.Int("num_experts_per_tok", per_token);
  e.widths = {s.ffn};
  e.renormalize = true;
  e.aux_coef = keys.Number("router_aux_loss_coef", 0.001);
  if (keys.Number("router_jitter_noise", 0) > 0)
    keys.Unsupported("router_jitter_noise is not computed here; set it to 0");
}

void WriteExperts(const ModelShape& s, ConfigJson& json) {
  json["num_local_experts"] = s.experts.count;
  json["num_experts_per_tok"] = s.experts.per_token;
  json["router_aux_loss_coef"] = s.experts.aux_coef;
}

void ReadMixtral(const ConfigKeys& keys, ModelShape& s) {
  ReadExperts(keys, 8, 2, s);
  s.window = keys.Int("sliding_window", 0);
}

void WriteMixtral(const ModelShape& s, ConfigJson& json) {
  WriteExperts(s, json);
  json["sliding_window"] = s.window > 0 ? ConfigJson(s.window) : ConfigJson();
}

ModelPlan PlanMixtral(const ModelShape& s) {
  ModelPlan plan = CommonPlan(s);
  PlanExperts(s, plan);
  return plan;
}

void ReadMiniMax(const ConfigKeys& keys, ModelShape& s) {
  ReadExperts(keys, 256, 8, s);
  s.experts.sigmoid = true;
  s.experts.bias = true;
  // The published files have a word of their own for the rotated part.
  if (keys.Has("rotary_dim")) {
    s.rotated_share = static_cast<double>(keys.Int("rotary_dim")) / static_cast<double>(s.head_dim);
  }
  if (keys.Text("qk_norm_type", "per_layer") != "per_layer" || !keys.Bool("use_qk_norm", true))
    keys.Unsupported("norms of q and k other than over their whole width are not computed here");
}

ModelPlan PlanMiniMax(const ModelShape& s) {
  ModelPlan plan = PlanMixtral(s);
  for (LayerSpec& layer : plan.layers) layer.qk_norm = QkNorm::kFullWidth;
  return plan;
}

}  // namespace

extern const Family kMixtral = {.type = "mixtral",
                                .architecture = "Mixtral",
                                .tied = false,
                                .rope_theta = 1e6,
                                .kv_heads = 8,
                                .head_dim = 0,
                                .max_positions = 131072,
                                .norm_eps = 1e-5,
                                .names = kNames,
                                .read = ReadMixtral,
                                .write = WriteMixtral,
                                .plan = PlanMixtral};
extern const Family kMiniMaxM2 = {.type = "minimax_m2",
                                  .architecture = "MiniMaxM2",
                                  .tied = false,
                                  .rope_theta = 5e6,
                                  .kv_heads = 8,
                                  .head_dim = 128,
                                  .max_positions = 196608,
                                  .norm_eps = 1e-6,
                                  .names = kNames,
                                  .read = ReadMiniMax,
                                  .write = WriteExperts,
                                  .plan = PlanMiniMax};

}  // namespace plumb::policy_model
