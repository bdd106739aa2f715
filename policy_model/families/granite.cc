// Granite 3 and the dense Granite 4: Llama with four multipliers, of the embedding's rows, of what
// a branch adds, of the scores (instead of D^-1/2), and one that divides the logits.
#include "policy_model/families/config_keys.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

void Read(const ConfigKeys& keys, ModelShape& s) {
  s.attention_bias = s.output_bias = keys.Bool("attention_bias", false);
  s.mlp_bias = keys.Bool("mlp_bias", false);
  const auto positive = [&](const char* key) {
    const double x = keys.Number(key, 1);
    if (!(x > 0)) keys.Fail(std::string("'") + key + "' is not positive");
    return x;
  };
  s.embedding_scale = positive("embedding_multiplier");
  s.residual_scale = positive("residual_multiplier");
  s.attention_scale = positive("attention_multiplier");
  s.logit_divisor = positive("logits_scaling");
}

void Write(const ModelShape& s, ConfigJson& json) {
  json["attention_bias"] = s.attention_bias;
  json["mlp_bias"] = s.mlp_bias;
  json["embedding_multiplier"] = s.embedding_scale;
  json["residual_multiplier"] = s.residual_scale;
  json["attention_multiplier"] = s.attention_scale;
  json["logits_scaling"] = s.logit_divisor;
}

ModelPlan Plan(const ModelShape& s) {
  ModelPlan plan = CommonPlan(s);
  plan.embedding_scale = s.embedding_scale;
  plan.logit_divisor = s.logit_divisor;
  for (LayerSpec& layer : plan.layers) layer.residual_scale = s.residual_scale;
  return plan;
}

}  // namespace

extern const Family kGranite = {.type = "granite",
                                .architecture = "Granite",
                                .tied = false,
                                .rope_theta = 10000,
                                .kv_heads = 0,
                                .head_dim = 0,
                                .max_positions = 2048,
                                .norm_eps = 1e-6,
                                .names = {},
                                .read = Read,
                                .write = Write,
                                .plan = Plan};

}  // namespace plumb::policy_model
