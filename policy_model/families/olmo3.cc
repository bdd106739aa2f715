// OLMo 3: norms behind both branches and none before; q and k normed over their whole width; three
// sliding layers to one that sees all, and stretched positions in the latter only.
#include "policy_model/families/config_keys.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

void Read(const ConfigKeys& keys, ModelShape& s) {
  s.attention_bias = s.output_bias = keys.Bool("attention_bias", false);
  s.window = keys.Int("sliding_window", 4096);
  s.sliding = SlidingLayers(keys, s.layers, [](int64_t l) { return (l + 1) % 4 != 0; });
  if (s.local_rope_theta == 0) s.local_rope_theta = s.rope_theta;
}

void Write(const ModelShape& s, ConfigJson& json) {
  json["attention_bias"] = s.attention_bias;
  json["sliding_window"] = s.window;
  WriteLayerTypes(s, json);
}

ModelPlan Plan(const ModelShape& s) {
  ModelPlan plan = CommonPlan(s);
  for (LayerSpec& layer : plan.layers) {
    layer.norm_before = false;
    layer.norm_behind = true;
    layer.qk_norm = QkNorm::kFullWidth;
  }
  return plan;
}

}  // namespace

extern const Family kOlmo3 = {.type = "olmo3",
                              .architecture = "Olmo3",
                              .tied = false,
                              .rope_theta = 500000,
                              .kv_heads = 0,
                              .head_dim = 0,
                              .max_positions = 2048,
                              .norm_eps = 1e-5,
                              .names = {.attention_norm = nullptr,
                                        .attention_behind = "post_attention_layernorm",
                                        .ffn_norm = nullptr,
                                        .ffn_behind = "post_feedforward_layernorm"},
                              .read = Read,
                              .write = Write,
                              .plan = Plan};

}  // namespace plumb::policy_model
