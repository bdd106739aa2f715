// GLM 4.5, 4.6 and 4.7 (`glm4_moe`): the experts of DeepSeek V3 behind attention with half of a
// head turning, q and k normed head by head in some. GLM 4.7 Flash (`glm4_moe_lite`): the same with
// latent attention, and a list that says which layers are dense.
#include "policy_model/families/config_keys.h"
#include "policy_model/families/experts/deepseek_keys.h"

namespace plumb::policy_model {
namespace {

void Read(const ConfigKeys& keys, ModelShape& s) {
  s.attention_bias = keys.Bool("attention_bias", false);
  s.qk_norm = keys.Bool("use_qk_norm", false);
  ReadRoutedExperts(keys, {.count = 128, .per_token = 8, .width = 1408, .shared = 1}, "sigmoid", s);
  ReadFirstDense(keys, 1, s);
  s.experts.sigmoid = true;
  s.experts.bias = true;
}

void Write(const ModelShape& s, ConfigJson& json) {
  WriteRoutedExperts(s, json);
  json["attention_bias"] = s.attention_bias;
  json["use_qk_norm"] = s.qk_norm;
  json["first_k_dense_replace"] = FirstDense(s);
  json["num_nextn_predict_layers"] = 0;  // they are not read
}

ModelPlan Plan(const ModelShape& s) {
  ModelPlan plan = CommonPlan(s);
  for (LayerSpec& layer : plan.layers) layer.qk_norm = s.qk_norm ? QkNorm::kPerHead : QkNorm::kNone;
  PlanExperts(s, plan);
  return plan;
}

void ReadLite(const ConfigKeys& keys, ModelShape& s) {
  ReadLatent(keys, {.kv_rank = 512, .query_rank = 768, .nope = 192, .rope = 64, .value = 256}, s);
  s.latent.interleaved = keys.Bool("rope_interleave", true);
  ReadRoutedExperts(keys, {.count = 64, .per_token = 4, .width = 1536, .shared = 1, .scale = 1.8},
                    "sigmoid", s);
  ExpertsShape& e = s.experts;
  e.sigmoid = true;
  e.bias = true;
  if (!keys.Has("mlp_layer_types")) {
    // Files of transformers 4 have the other key; without either the first layer is dense.
    ReadFirstDense(keys, 1, s);
    return;
  }
  const ConfigJson& types = keys.At("mlp_layer_types");
  if (!types.is_array() || static_cast<int64_t>(types.size()) != s.layers)
    keys.Fail("'mlp_layer_types' is not a list of " + std::to_string(s.layers) + " names");
  bool some = false;
  for (const ConfigJson& type : types) {
    const std::string name = type.is_string() ? type.get<std::string>() : "?";
    if (name != "dense" && name != "sparse")
      keys.Unsupported("mlp_layer_types: '" + name +
                       "' is not computed here; dense and sparse are");
    e.dense.push_back(name == "dense" ? 1 : 0);
    some = some || name == "dense";
  }
  if (!some) e.dense.clear();
}

void WriteLite(const ModelShape& s, ConfigJson& json) {
  WriteLatent(s, json);
  WriteRoutedExperts(s, json);
  json["rope_interleave"] = s.latent.interleaved;
  json["mlp_layer_types"] = ConfigJson::array();
  for (int64_t l = 0; l < s.layers; ++l)
    json["mlp_layer_types"].push_back(s.experts.of(l) ? "sparse" : "dense");
  json["num_nextn_predict_layers"] = 0;  // they are not read
}

}  // namespace

extern const Family kGlm4Moe = {.type = "glm4_moe",
                                .architecture = "Glm4Moe",
                                .tied = false,
                                .rope_theta = 10000,
                                .rotated_share = 0.5,
                                .kv_heads = 8,
                                .head_dim = 0,
                                .max_positions = 131072,
                                .norm_eps = 1e-5,
                                .predicts_beyond = true,
                                .names = {.shared = "mlp.shared_experts"},
                                .read = Read,
                                .write = Write,
                                .plan = Plan};
extern const Family kGlm4MoeLite = {.type = "glm4_moe_lite",
                                    .architecture = "Glm4MoeLite",
                                    .tied = false,
                                    .rope_theta = 10000,
                                    .kv_heads = 0,
                                    .head_dim = 0,
                                    .max_positions = 202752,
                                    .norm_eps = 1e-5,
                                    .predicts_beyond = true,
                                    .names = {.shared = "mlp.shared_experts"},
                                    .read = ReadLite,
                                    .write = WriteLite,
                                    .plan = PlanLatentExperts};

}  // namespace plumb::policy_model
