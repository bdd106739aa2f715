// Qwen 2, 2.5 (biases on q, k, v) and 3 (no biases; each head of q and k normed before the
// rotation). Both may let the layers from max_window_layers on slide.
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

ModelPlan Plan3(const ModelShape& s) {
  ModelPlan plan = CommonPlan(s);
  for (LayerSpec& layer : plan.layers) layer.qk_norm = QkNorm::kPerHead;
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

}  // namespace plumb::policy_model
