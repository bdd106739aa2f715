// Phi 3 and 4 (mini, medium): Llama whose q, k, v and gate, up lie in one matrix each; a part of a
// head may rotate; longrope.
#include "policy_model/families/config_keys.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

void Read(const ConfigKeys& keys, ModelShape& s) {
  s.window = keys.Int("sliding_window", 0);
  if (s.rope.kind != RopeKind::kDefault && s.rope.kind != RopeKind::kLongRope)
    keys.Unsupported("rope_scaling: phi3 stretches positions by longrope only");
}

void Write(const ModelShape& s, ConfigJson& json) {
  json["sliding_window"] = s.window > 0 ? ConfigJson(s.window) : ConfigJson(nullptr);
}

}  // namespace

extern const Family kPhi3 = {.type = "phi3",
                             .architecture = "Phi3",
                             .tied = false,
                             .rope_theta = 10000,
                             .kv_heads = 0,
                             .head_dim = 0,
                             .max_positions = 4096,
                             .norm_eps = 1e-5,
                             .names = {.qkv = "self_attn.qkv_proj", .gate_up = "mlp.gate_up_proj"},
                             .read = Read,
                             .write = Write,
                             .plan = CommonPlan};

}  // namespace plumb::policy_model
