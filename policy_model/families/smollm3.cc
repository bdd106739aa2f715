// SmolLM 3: Llama, of whose layers every fourth has no positions (no_rope_layers: 1 where a layer
// rotates).
#include "policy_model/families/config_keys.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

void Read(const ConfigKeys& keys, ModelShape& s) {
  s.attention_bias = s.output_bias = keys.Bool("attention_bias", false);
  s.mlp_bias = keys.Bool("mlp_bias", false);
  if (keys.Bool("use_sliding_window", false)) {
    s.window = keys.Int("sliding_window");
    s.sliding = SlidingLayers(keys, s.layers, [](int64_t) { return true; });
  }
  if (!keys.Has("no_rope_layers")) {
    const int64_t every = keys.Int("no_rope_layer_interval", 4);
    if (every < 1) keys.Fail("'no_rope_layer_interval' is not positive");
    for (int64_t l = 0; l < s.layers; ++l) s.rotated.push_back((l + 1) % every != 0 ? 1 : 0);
    return;
  }
  const ConfigJson& list = keys.At("no_rope_layers");
  if (!list.is_array() || static_cast<int64_t>(list.size()) != s.layers) {
    keys.Fail("'no_rope_layers' is not a list of " + std::to_string(s.layers) + " numbers");
  }
  for (const ConfigJson& item : list) {
    if (!item.is_number_integer())
      keys.Fail("'no_rope_layers' holds something else than whole numbers");
    s.rotated.push_back(item.get<int64_t>() != 0 ? 1 : 0);
  }
}

void Write(const ModelShape& s, ConfigJson& json) {
  json["attention_bias"] = s.attention_bias;
  json["mlp_bias"] = s.mlp_bias;
  json["use_sliding_window"] = s.window > 0;
  if (s.window > 0) json["sliding_window"] = s.window;
  WriteLayerTypes(s, json);
  ConfigJson list = ConfigJson::array();
  for (int64_t l = 0; l < s.layers; ++l) list.push_back(s.rotates(l) ? 1 : 0);
  json["no_rope_layers"] = std::move(list);
}

}  // namespace

extern const Family kSmolLm3 = {.type = "smollm3",
                                .architecture = "SmolLM3",
                                .tied = true,
                                .rope_theta = 2e6,
                                .kv_heads = 4,
                                .head_dim = 0,
                                .max_positions = 32768,
                                .norm_eps = 1e-6,
                                .names = {},
                                .read = Read,
                                .write = Write,
                                .plan = CommonPlan};

}  // namespace plumb::policy_model
