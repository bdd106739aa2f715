// Qwen 3 Next, Qwen 3.5 and its mixtures of experts: three gated delta nets to one layer of gated
// attention, a part of whose heads rotates; norms stored as distances from 1. Qwen 3 Next
// interleaves what comes of a token by heads; 3.5 keeps it apart. Experts have one that every token
// goes through, with a gate.
#include "policy_model/families/config_keys.h"
#include "policy_model/families/experts/sparse_layers.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

constexpr const char* kLinear = "linear_attention";
constexpr const char* kFull = "full_attention";

void ReadLayers(const ConfigKeys& keys, ModelShape& s) {
  HybridShape& h = s.hybrid;
  if (!keys.Has("layer_types")) {
    const int64_t every = keys.Int("full_attention_interval", 4);
    if (every < 1) keys.Fail("'full_attention_interval' is not positive");
    for (int64_t l = 0; l < s.layers; ++l) h.layers.push_back((l + 1) % every != 0 ? 1 : 0);
    return;
  }
  const ConfigJson& types = keys.At("layer_types");
  if (!types.is_array() || static_cast<int64_t>(types.size()) != s.layers)
    keys.Fail("'layer_types' is not a list of " + std::to_string(s.layers) + " names");
  for (const ConfigJson& type : types) {
    const std::string name = type.is_string() ? type.get<std::string>() : "?";
    if (name != kLinear && name != kFull) {
      keys.Unsupported("layer_types: '" + name + "' is not computed here for " + s.family + "; " +
                       kFull + " and " + kLinear + " are");
    }
    h.layers.push_back(name == kLinear ? 1 : 0);
  }
}

void Read(const ConfigKeys& keys, ModelShape& s) {
  s.attention_bias = s.output_bias = keys.Bool("attention_bias", false);
  s.attention_gate = true;
  ReadLayers(keys, s);
  HybridShape& h = s.hybrid;
  h.taps = keys.Int("linear_conv_kernel_dim", 4);
  h.k_heads = keys.Int("linear_num_key_heads", 16);
  h.v_heads = keys.Int("linear_num_value_heads", 32);
  if (h.v_heads < 1) keys.Fail("'linear_num_value_heads' is not positive");
  h.k_dim = keys.Int("linear_key_head_dim", 128);
  h.v_dim = keys.Int("linear_value_head_dim", 128);
}

void Write(const ModelShape& s, ConfigJson& json) {
  json["attention_bias"] = s.attention_bias;
  const HybridShape& h = s.hybrid;
  json["linear_conv_kernel_dim"] = h.taps;
  json["linear_num_key_heads"] = h.k_heads;
  json["linear_num_value_heads"] = h.v_heads;
  json["linear_key_head_dim"] = h.k_dim;
  json["linear_value_head_dim"] = h.v_dim;
  ConfigJson types = ConfigJson::array();
  for (int64_t l = 0; l < s.layers; ++l) types.push_back(h.of(l) ? kLinear : kFull);
  json["layer_types"] = std::move(types);
}

// The class without "Text" is the wrapper's.
void Write35(const ModelShape& s, ConfigJson& json) {
  Write(s, json);
  if (s.scalar_head) json["architectures"] = {"Qwen3_5TextForSequenceClassification"};
}

void ReadExperts(const ConfigKeys& keys, ModelShape& s, int64_t count, int64_t per_token) {
  ExpertsShape& e = s.experts;
  e.count = keys.Int("num_experts", keys.Int("num_local_experts", count));
  e.per_token = keys.Int("num_experts_per_tok", per_token);
  e.widths = {keys.Int("moe_intermediate_size", 512)};
  e.shared_ffn = keys.Int("shared_expert_intermediate_size", 512);
  e.shared_gate = e.shared_ffn > 0;
  e.aux_coef = keys.Number("router_aux_loss_coef", 0.001);
}

void WriteExperts(const ModelShape& s, ConfigJson& json) {
  const ExpertsShape& e = s.experts;
  json["num_experts"] = e.count;
  json["num_experts_per_tok"] = e.per_token;
  json["moe_intermediate_size"] = e.widths[0];
  json["shared_expert_intermediate_size"] = e.shared_ffn;
  json["router_aux_loss_coef"] = e.aux_coef;
}

void Read35Moe(const ConfigKeys& keys, ModelShape& s) {
  Read(keys, s);
  ReadExperts(keys, s, 256, 8);
}

void Write35Moe(const ModelShape& s, ConfigJson& json) {
  Write(s, json);
  WriteExperts(s, json);
}

void ReadNext(const ConfigKeys& keys, ModelShape& s) {
  Read(keys, s);
  ReadExperts(keys, s, 512, 10);
  ExpertsShape& e = s.experts;
  e.renormalize = keys.Bool("norm_topk_prob", true);
  ReadSparseLayers(keys, s);
}

void WriteNext(const ModelShape& s, ConfigJson& json) {
  Write35Moe(s, json);
  json["norm_topk_prob"] = s.experts.renormalize;
  json["decoder_sparse_step"] = 1;
  json["mlp_only_layers"] = ConfigJson::array();
  for (int64_t l = 0; l < s.layers; ++l) {
    if (!s.experts.of(l)) json["mlp_only_layers"].push_back(l);
  }
}

ModelPlan Plan(const ModelShape& s) {
  ModelPlan plan = CommonPlan(s);
  plan.norm_offset = 1;
  const HybridShape& h = s.hybrid;
  for (int64_t l = 0; l < s.layers; ++l) {
    LayerSpec& layer = plan.layers[static_cast<size_t>(l)];
    if (h.of(l)) {
      layer.qkv_bias = layer.o_bias = layer.attention_gate = false;
      layer.delta = {.k_heads = h.k_heads,
                     .v_heads = h.v_heads,
                     .k_dim = h.k_dim,
                     .v_dim = h.v_dim,
                     .taps = h.taps,
                     .by_k_head = s.family == "qwen3_next"};
    } else {
      layer.qk_norm = QkNorm::kPerHead;
    }
  }
  PlanExperts(s, plan);
  return plan;
}

}  // namespace

extern const Family kQwen3Next = {.type = "qwen3_next",
                                  .architecture = "Qwen3Next",
                                  .tied = false,
                                  .rope_theta = 10000,
                                  .rotated_share = 0.25,
                                  .kv_heads = 2,
                                  .head_dim = 256,
                                  .max_positions = 32768,
                                  .norm_eps = 1e-6,
                                  .names = {},
                                  .read = ReadNext,
                                  .write = WriteNext,
                                  .plan = Plan};
extern const Family kQwen35 = {.type = "qwen3_5_text",
                               .architecture = "Qwen3_5",
                               .tied = false,
                               .rope_theta = 10000,
                               .rotated_share = 0.25,
                               .kv_heads = 4,
                               .head_dim = 256,
                               .max_positions = 32768,
                               .norm_eps = 1e-6,
                               .names = {},
                               .read = Read,
                               .write = Write35,
                               .plan = Plan};
extern const Family kQwen35Moe = {.type = "qwen3_5_moe_text",
                                  .architecture = "Qwen3_5Moe",
                                  .tied = false,
                                  .rope_theta = 10000,
                                  .rotated_share = 0.25,
                                  .kv_heads = 2,
                                  .head_dim = 256,
                                  .max_positions = 32768,
                                  .norm_eps = 1e-6,
                                  .names = {},
                                  .read = Read35Moe,
                                  .write = Write35Moe,
                                  .plan = Plan};

}  // namespace plumb::policy_model
