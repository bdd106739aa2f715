// Llama 2 and 3 and all that took their form (SmolLM 1 and 2, TinyLlama, Yi,
// DeepSeek-R1-Distill-Llama ...). attention_bias gives biases to q, k, v and o, mlp_bias to all
// three matrices of the feed-forward.
#include "policy_model/families/config_keys.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

void Read(const ConfigKeys& keys, ModelShape& s) {
  s.attention_bias = s.output_bias = keys.Bool("attention_bias", false);
  s.mlp_bias = keys.Bool("mlp_bias", false);
}

void Write(const ModelShape& s, ConfigJson& json) {
  if (s.attention_bias) json["attention_bias"] = true;
  if (s.mlp_bias) json["mlp_bias"] = true;
}

}  // namespace

extern const Family kLlama = {.type = "llama",
                              .architecture = "Llama",
                              .tied = false,
                              .rope_theta = 10000,
                              .kv_heads = 0,
                              .head_dim = 0,
                              .max_positions = 2048,
                              .norm_eps = 1e-6,
                              .names = {},
                              .read = Read,
                              .write = Write,
                              .plan = CommonPlan};

}  // namespace plumb::policy_model
