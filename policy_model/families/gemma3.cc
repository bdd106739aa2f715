// Gemma 3, text (270M, 1B; the text part of the larger ones): norms before and behind both
// branches, stored as distances from 1; q and k normed by head; GELU; embeddings times sqrt(H),
// rounded to the weights' type; five sliding layers with a rotary base of their own to one that
// sees all.
#include <cmath>

#include "policy_model/families/config_keys.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

void Read(const ConfigKeys& keys, ModelShape& s) {
  const double scalar = keys.Number("query_pre_attn_scalar", 256);
  if (!(scalar > 0)) keys.Fail("'query_pre_attn_scalar' is not positive");
  s.attention_scale = 1 / std::sqrt(scalar);
  s.attention_bias = s.output_bias = keys.Bool("attention_bias", false);
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    if (keys.Has(key)) keys.Unsupported(std::string(key) + " is not computed here");
  }
  if (keys.Bool("use_bidirectional_attention", false))
    keys.Unsupported("use_bidirectional_attention is not computed here");
  s.window = keys.Int("sliding_window", 4096);
  const char* pattern =
      keys.Has("sliding_window_pattern") ? "sliding_window_pattern" : "_sliding_window_pattern";
  const int64_t every = keys.Int(pattern, 6);
  if (every < 1) keys.Fail(std::string("'") + pattern + "' is not positive");
  if (keys.Has("layer_types")) {
    s.sliding = SlidingLayers(keys, s.layers, nullptr);
  } else {
    for (int64_t l = 0; l < s.layers; ++l) s.sliding.push_back((l + 1) % every != 0 ? 1 : 0);
  }
  if (s.local_rope_theta == 0) s.local_rope_theta = keys.Number("rope_local_base_freq", 10000);
}

void Write(const ModelShape& s, ConfigJson& json) {
  // The class without "Text" is the wrapper's.
  if (s.scalar_head) json["architectures"] = {"Gemma3TextForSequenceClassification"};
  json["hidden_activation"] = "gelu_pytorch_tanh";
  // A whole number in the class of transformers 5, which refuses another one.
  const double scalar = 1 / (s.attention_scale * s.attention_scale);
  const double whole = std::round(scalar);
  const bool is_whole = std::abs(scalar - whole) < 1e-9 * scalar;
  json["query_pre_attn_scalar"] =
      is_whole ? ConfigJson(static_cast<int64_t>(whole)) : ConfigJson(scalar);
  json["attention_bias"] = s.attention_bias;
  json["sliding_window"] = s.window;
  json["rope_local_base_freq"] = s.local_rope_theta;
  json["attn_logit_softcapping"] = nullptr;
  json["final_logit_softcapping"] = nullptr;
  WriteLayerTypes(s, json);
}

ModelPlan Plan(const ModelShape& s) {
  ModelPlan plan = CommonPlan(s);
  plan.norm_offset = 1;
  plan.embedding_scale = std::sqrt(static_cast<double>(s.hidden));
  plan.round_embedding_scale = true;
  for (LayerSpec& layer : plan.layers) {
    layer.norm_behind = true;
    layer.qk_norm = QkNorm::kPerHead;
    layer.activation = FfnActivation::kGeluTanh;
  }
  return plan;
}

}  // namespace

extern const Family kGemma3 = {.type = "gemma3_text",
                               .architecture = "Gemma3",
                               .tied = true,
                               .rope_theta = 1e6,
                               .kv_heads = 4,
                               .head_dim = 256,
                               .max_positions = 131072,
                               .norm_eps = 1e-6,
                               .names = {.attention_behind = "post_attention_layernorm",
                                         .ffn_norm = "pre_feedforward_layernorm",
                                         .ffn_behind = "post_feedforward_layernorm"},
                               .read = Read,
                               .write = Write,
                               .plan = Plan};

}  // namespace plumb::policy_model
