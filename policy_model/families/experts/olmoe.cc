// OLMoE: experts in every layer, softmax over all; q and k normed over their whole width.
#include "policy_model/families/config_keys.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

void Read(const ConfigKeys& keys, ModelShape& s) {
  s.attention_bias = s.output_bias = keys.Bool("attention_bias", false);
  if (keys.Has("clip_qkv"))
    keys.Unsupported("clip_qkv (q, k and v cut off at a bound) is not computed here");
  ExpertsShape& e = s.experts;
  e.count = keys.Int("num_experts", keys.Int("num_local_experts", 64));
  e.per_token = keys.Int("num_experts_per_tok", 8);
  e.widths = {s.ffn};
  e.renormalize = keys.Bool("norm_topk_prob", false);
  e.aux_coef = keys.Number("router_aux_loss_coef", 0.01);
}

void Write(const ModelShape& s, ConfigJson& json) {
  const ExpertsShape& e = s.experts;
  json["attention_bias"] = s.attention_bias;
  json["num_experts"] = e.count;
  json["num_experts_per_tok"] = e.per_token;
  json["norm_topk_prob"] = e.renormalize;
  json["router_aux_loss_coef"] = e.aux_coef;
}

ModelPlan Plan(const ModelShape& s) {
  ModelPlan plan = CommonPlan(s);
  PlanExperts(s, plan);
  for (LayerSpec& layer : plan.layers) layer.qk_norm = QkNorm::kFullWidth;
  return plan;
}

}  // namespace

extern const Family kOlmoe = {.type = "olmoe",
                              .architecture = "Olmoe",
                              .tied = false,
                              .rope_theta = 10000,
                              .kv_heads = 0,
                              .head_dim = 0,
                              .max_positions = 4096,
                              .norm_eps = 1e-5,
                              .names = {},
                              .read = Read,
                              .write = Write,
                              .plan = Plan};

}  // namespace plumb::policy_model
