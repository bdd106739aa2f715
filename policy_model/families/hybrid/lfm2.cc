// LFM 2: gated short convolutions and some layers of attention, whose heads of q and k are normed
// each by itself. Files may say how wide the feed-forward part would be before a third is taken off
// it.
#include <algorithm>

#include "policy_model/families/config_keys.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

constexpr const char* kConv = "conv";
constexpr const char* kFull = "full_attention";

void ReadLayers(const ConfigKeys& keys, ModelShape& s) {
  std::vector<uint8_t>& layers = s.hybrid.layers;
  const char* key = keys.Has("layer_types") ? "layer_types" : "full_attn_idxs";
  if (!keys.Has(key)) return;  // all are attention
  const ConfigJson& list = keys.At(key);
  if (!list.is_array()) keys.Fail(std::string("'") + key + "' is not a list");
  layers.assign(static_cast<size_t>(s.layers), 0);
  if (key == std::string("full_attn_idxs")) {
    std::fill(layers.begin(), layers.end(), 1);
    for (const ConfigJson& layer : list) {
      if (!layer.is_number_integer() || layer < 0 || layer >= s.layers)
        keys.Fail("'full_attn_idxs' holds something else than layers");
      layers[layer.get<size_t>()] = 0;
    }
    return;
  }
  if (list.size() != layers.size())
    keys.Fail("'layer_types' is not a list of " + std::to_string(s.layers) + " names");
  for (size_t l = 0; l < layers.size(); ++l) {
    const std::string name = list[l].is_string() ? list[l].get<std::string>() : "?";
    if (name != kConv && name != kFull) {
      keys.Unsupported("layer_types: '" + name + "' is not computed here for lfm2; " + kFull +
                       " and " + kConv + " are");
    }
    layers[l] = name == kConv ? 1 : 0;
  }
}

void Read(const ConfigKeys& keys, ModelShape& s) {
  if (keys.Bool("conv_bias", false))
    keys.Unsupported("conv_bias: biases of short convolutions are not computed here");
  s.norm_eps = keys.Number("norm_eps", 1e-5);
  s.tied = keys.Bool("tie_embedding", s.tied);
  s.ffn = keys.Int("block_ff_dim", s.ffn);
  if (keys.Bool("block_auto_adjust_ff_dim", true)) {
    s.ffn = 2 * s.ffn / 3;
    if (keys.Has("block_ffn_dim_multiplier") || !keys.Mentions("block_ffn_dim_multiplier")) {
      const double by = keys.Number("block_ffn_dim_multiplier", 1);
      const int64_t of = keys.Int("block_multiple_of", 256);
      if (of < 1 || !(by > 0 && by < 1024)) keys.Fail("'block_multiple_of' or its kin is no size");
      s.ffn = (static_cast<int64_t>(by * static_cast<double>(s.ffn)) + of - 1) / of * of;
    }
  }
  ReadLayers(keys, s);
  if (s.hybrid.count() == 0) s.hybrid.layers.clear();
  else s.hybrid.taps = keys.Int("conv_L_cache", 3);
}

void Write(const ModelShape& s, ConfigJson& json) {
  const HybridShape& h = s.hybrid;
  json["norm_eps"] = s.norm_eps;
  json["block_auto_adjust_ff_dim"] = false;
  json["conv_bias"] = false;
  if (h.count() > 0) json["conv_L_cache"] = h.taps;
  ConfigJson types = ConfigJson::array();
  for (int64_t l = 0; l < s.layers; ++l) types.push_back(h.of(l) ? kConv : kFull);
  json["layer_types"] = std::move(types);
}

ModelPlan Plan(const ModelShape& s) {
  ModelPlan plan = CommonPlan(s);
  for (int64_t l = 0; l < s.layers; ++l) {
    LayerSpec& layer = plan.layers[static_cast<size_t>(l)];
    if (s.hybrid.of(l)) layer.conv = {.taps = s.hybrid.taps, .channels = s.hidden};
    else layer.qk_norm = QkNorm::kPerHead;
  }
  return plan;
}

}  // namespace

extern const Family kLfm2 = {.type = "lfm2",
                             .architecture = "Lfm2",
                             .tied = true,
                             .rope_theta = 1e6,
                             .kv_heads = 8,
                             .head_dim = 0,
                             .max_positions = 128000,
                             .norm_eps = 1e-5,
                             .names = {.attention_norm = "operator_norm",
                                       .ffn_norm = "ffn_norm",
                                       .q_norm = "self_attn.q_layernorm",
                                       .k_norm = "self_attn.k_layernorm",
                                       .o = "self_attn.out_proj",
                                       .gate = "feed_forward.w1",
                                       .up = "feed_forward.w3",
                                       .down = "feed_forward.w2",
                                       .final_norm = "model.embedding_norm"},
                             .read = Read,
                             .write = Write,
                             .plan = Plan};

}  // namespace plumb::policy_model
