// GLM 4 dense (9B, 32B of 0414): norms before and behind both branches; neighbours turn together,
// in half of a head; gate and up in one matrix; biases on q, k, v.
#include "policy_model/families/config_keys.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

void Read(const ConfigKeys& keys, ModelShape& s) {
  s.attention_bias = keys.Bool("attention_bias", true);
}

void Write(const ModelShape& s, ConfigJson& json) { json["attention_bias"] = s.attention_bias; }

ModelPlan Plan(const ModelShape& s) {
  ModelPlan plan = CommonPlan(s);
  for (RotarySpec& rotary : plan.rotary) rotary.interleaved = true;
  for (LayerSpec& layer : plan.layers) layer.norm_behind = true;
  return plan;
}

}  // namespace

extern const Family kGlm4 = {.type = "glm4",
                             .architecture = "Glm4",
                             .tied = false,
                             .rope_theta = 10000,
                             .rotated_share = 0.5,
                             .kv_heads = 2,
                             .head_dim = 128,
                             .max_positions = 131072,
                             .norm_eps = 1.5625e-7,
                             .names = {.attention_behind = "post_self_attn_layernorm",
                                       .ffn_norm = "post_attention_layernorm",
                                       .ffn_behind = "post_mlp_layernorm",
                                       .gate_up = "mlp.gate_up_proj"},
                             .read = Read,
                             .write = Write,
                             .plan = Plan};

}  // namespace plumb::policy_model
