// gpt-oss: attention with sinks, every other layer slides; biases everywhere; experts of a clamped
// gated unit behind a router with a bias, whose softmax is over the chosen ones (which is the
// softmax over all, divided by the sum of the chosen).
//
// Its files hold the experts of a layer in one tensor, matrices by input, gate and up taking turns;
// published ones in MXFP4 (policy_model/memory/stacked_tensor.h), which are read as the numbers
// that they stand for and written as such.
#include "policy_model/families/config_keys.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

void Read(const ConfigKeys& keys, ModelShape& s) {
  s.attention_bias = s.output_bias = keys.Bool("attention_bias", true);
  s.sinks = true;
  s.window = keys.Int("sliding_window", 128);
  s.sliding = SlidingLayers(keys, s.layers, [](int64_t layer) { return layer % 2 == 0; });
  ExpertsShape& e = s.experts;
  e.count = keys.Int("num_local_experts", keys.Int("num_experts", 128));
  e.per_token = keys.Int("num_experts_per_tok", keys.Int("experts_per_token", 4));
  e.widths = {s.ffn};
  e.renormalize = true;
  e.biased = true;
  e.glu_alpha = keys.Number("swiglu_alpha", 1.702);
  e.glu_limit = keys.Number("swiglu_limit", 7.0);
  e.aux_coef = keys.Number("router_aux_loss_coef", 0.001);
  if (!(e.glu_limit > 0)) keys.Fail("'swiglu_limit' is not positive");
}

void Write(const ModelShape& s, ConfigJson& json) {
  const ExpertsShape& e = s.experts;
  json["attention_bias"] = s.attention_bias;
  json["sliding_window"] = s.window;
  WriteLayerTypes(s, json);
  json["num_local_experts"] = e.count;
  json["num_experts_per_tok"] = e.per_token;
  json["experts_per_token"] = e.per_token;
  json["swiglu_alpha"] = e.glu_alpha;
  json["swiglu_limit"] = e.glu_limit;
  json["router_aux_loss_coef"] = e.aux_coef;
}

ModelPlan Plan(const ModelShape& s) {
  ModelPlan plan = CommonPlan(s);
  PlanExperts(s, plan);
  return plan;
}

}  // namespace

extern const Family kGptOss = {.type = "gpt_oss",
                               .architecture = "GptOss",
                               .tied = false,
                               .rope_theta = 150000,
                               .kv_heads = 8,
                               .head_dim = 64,
                               .max_positions = 131072,
                               .norm_eps = 1e-5,
                               .names = {.router = "mlp.router", .experts_by_input = true},
                               .read = Read,
                               .write = Write,
                               .plan = Plan};

}  // namespace plumb::policy_model
