// Qwen 2, 2.5 (biases on q, k, v) and 3 (no biases; each head of q and k normed before the
// rotation). Both may let the layers from max_window_layers on slide. Qwen 3 MoE: mixtures of
// experts, softmax over all of them.
#include "policy_model/families/config_keys.h"
#include "policy_model/families/experts/sparse_layers.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

void ReadWindow(const ConfigKeys& keys, ModelShape& s) {
  if (!keys.Bool("use_sliding_window", false)) return;
  s.window = keys.Int("sliding_window", 4096);
  if (keys.Has("layer_types")) {
    s.sliding = SlidingLayers(keys, s.layers, nullptr);
    return;
  }
  const int64_t first = keys.Int("max_window_layers", 28);
  for (int64_t l = 0; l < s.layers; ++l) s.sliding.push_back(l >= first ? 1 : 0);
}

void WriteWindow(const ModelShape& s, ConfigJson& json) {
  json["use_sliding_window"] = s.window > 0;
  if (s.window == 0) return;
  json["sliding_window"] = s.window;
  int64_t first = 0;
  while (first < s.layers && !s.slides(first)) ++first;
  json["max_window_layers"] = first;
  WriteLayerTypes(s, json);
}

void Read2(const ConfigKeys& keys, ModelShape& s) {
  s.attention_bias = true;
  ReadWindow(keys, s);
}

void Read3(const ConfigKeys& keys, ModelShape& s) {
  s.attention_bias = s.output_bias = keys.Bool("attention_bias", false);
  ReadWindow(keys, s);
}

void Write3(const ModelShape& s, ConfigJson& json) {
  json["attention_bias"] = s.attention_bias;
  WriteWindow(s, json);
}

// Experts in every decoder_sparse_step-th layer but those of mlp_only_layers. Transformers 4 counts
// them under num_experts, 5 under num_local_experts.
void Read3Moe(const ConfigKeys& keys, ModelShape& s) {
  Read3(keys, s);
  ExpertsShape& e = s.experts;
  e.count = keys.Int("num_local_experts", keys.Int("num_experts", 128));
  e.per_token = keys.Int("num_experts_per_tok", 8);
  e.widths = {keys.Int("moe_intermediate_size", 768)};
  e.renormalize = keys.Bool("norm_topk_prob", false);
  e.aux_coef = keys.Number("router_aux_loss_coef", 0.001);
  ReadSparseLayers(keys, s);
}

void Write3Moe(const ModelShape& s, ConfigJson& json) {
  Write3(s, json);
  const ExpertsShape& e = s.experts;
  json["num_experts"] = e.count;
  json["num_local_experts"] = e.count;
  json["num_experts_per_tok"] = e.per_token;
  json["moe_intermediate_size"] = e.widths[0];
  json["norm_topk_prob"] = e.renormalize;
  json["router_aux_loss_coef"] = e.aux_coef;
  json["decoder_sparse_step"] = 1;
  json["mlp_only_layers"] = ConfigJson::array();
  for (int64_t l = 0; l < s.layers; ++l) {
    if (!e.of(l)) json["mlp_only_layers"].push_back(l);
  }
}

ModelPlan Plan3(const ModelShape& s) {
  ModelPlan plan = CommonPlan(s);
  for (LayerSpec& layer : plan.layers) layer.qk_norm = QkNorm::kPerHead;
  return plan;
}

ModelPlan Plan3Moe(const ModelShape& s) {
  ModelPlan plan = Plan3(s);
  PlanExperts(s, plan);
  return plan;
}

}  // namespace

extern const Family kQwen2 = {.type = "qwen2",
                              .architecture = "Qwen2",
                              .tied = false,
                              .rope_theta = 10000,
                              .kv_heads = 32,
                              .head_dim = 0,
                              .max_positions = 32768,
                              .norm_eps = 1e-6,
                              .names = {},
                              .read = Read2,
                              .write = WriteWindow,
                              .plan = CommonPlan};
extern const Family kQwen3 = {.type = "qwen3",
                              .architecture = "Qwen3",
                              .tied = false,
                              .rope_theta = 10000,
                              .kv_heads = 32,
                              .head_dim = 128,
                              .max_positions = 32768,
                              .norm_eps = 1e-6,
                              .names = {},
                              .read = Read3,
                              .write = Write3,
                              .plan = Plan3};
extern const Family kQwen3Moe = {.type = "qwen3_moe",
                                 .architecture = "Qwen3Moe",
                                 .tied = false,
                                 .rope_theta = 10000,
                                 .kv_heads = 4,
                                 .head_dim = 0,
                                 .max_positions = 32768,
                                 .norm_eps = 1e-6,
                                 .names = {},
                                 .read = Read3Moe,
                                 .write = Write3Moe,
                                 .plan = Plan3Moe};

}  // namespace plumb::policy_model
