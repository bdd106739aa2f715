// DeepSeek V2 (V2, V2-Lite, V2.5) and V3 (V3, R1, Moonlight; Kimi K2 and the text part of K2.5,
// which are read as it): latent attention, first layers dense, then experts with shared ones
// besides. V2: softmax, groups by their best expert, weights as they are; V3: sigmoids with a
// balancing bias, groups by their two best.
#include "policy_model/families/config_keys.h"
#include "policy_model/families/experts/deepseek_keys.h"

namespace plumb::policy_model {
namespace {

constexpr LatentShape kUsual = {
    .kv_rank = 512, .query_rank = 1536, .nope = 128, .rope = 64, .value = 128};

void Read3(const ConfigKeys& keys, ModelShape& s) {
  ReadLatent(keys, kUsual, s);
  s.latent.interleaved = keys.Bool("rope_interleave", true);
  ReadRoutedExperts(keys,
                    {.count = 256,
                     .per_token = 8,
                     .width = 2048,
                     .shared = 1,
                     .scale = 2.5,
                     .groups = 8,
                     .groups_per_token = 4},
                    "sigmoid", s);
  ReadFirstDense(keys, 3, s);
  s.experts.sigmoid = true;
  s.experts.bias = true;
}

void Write3(const ModelShape& s, ConfigJson& json) {
  WriteLatent(s, json);
  WriteRoutedExperts(s, json);
  json["rope_interleave"] = s.latent.interleaved;
  json["first_k_dense_replace"] = FirstDense(s);
  json["moe_layer_freq"] = 1;
  json["topk_method"] = "noaux_tc";
  json["num_nextn_predict_layers"] = 0;  // they are not read
}

void Read2(const ConfigKeys& keys, ModelShape& s) {
  ReadLatent(keys, kUsual, s);
  if (keys.Bool("mlp_bias", false))
    keys.Unsupported("mlp_bias: experts with biases are not computed here for " + s.family);
  ReadRoutedExperts(keys, {.count = 64, .width = 1407, .shared = 2, .renormalize = false},
                    "softmax", s);
  ReadFirstDense(keys, 0, s);
  ExpertsShape& e = s.experts;
  const std::string method = keys.Text("topk_method", "greedy");
  if (method == "greedy") e.groups = e.groups_per_token = 1;
  else if (method != "group_limited_greedy")
    keys.Unsupported("topk_method '" + method +
                     "' is not computed here; greedy and group_limited_greedy are");
  e.group_best = 1;
  // The class of transformers passes over the key, DeepSeek's own code does not.
  if (e.renormalize)
    keys.Unsupported(
        "norm_topk_prob: true means one thing to DeepSeek's own code and nothing to "
        "transformers; it is not computed here for deepseek_v2");
}

void Write2(const ModelShape& s, ConfigJson& json) {
  WriteLatent(s, json);
  WriteRoutedExperts(s, json);
  json["first_k_dense_replace"] = FirstDense(s);
  json["moe_layer_freq"] = 1;
  json["topk_method"] = s.experts.groups > 1 ? "group_limited_greedy" : "greedy";
  json["mlp_bias"] = false;
}

}  // namespace

extern const Family kDeepseekV2 = {.type = "deepseek_v2",
                                   .architecture = "DeepseekV2",
                                   .tied = false,
                                   .rope_theta = 10000,
                                   .kv_heads = 0,
                                   .head_dim = 0,
                                   .max_positions = 2048,
                                   .norm_eps = 1e-6,
                                   .names = {.shared = "mlp.shared_experts"},
                                   .read = Read2,
                                   .write = Write2,
                                   .plan = PlanLatentExperts};
extern const Family kDeepseekV3 = {.type = "deepseek_v3",
                                   .architecture = "DeepseekV3",
                                   .tied = false,
                                   .rope_theta = 10000,
                                   .kv_heads = 0,
                                   .head_dim = 0,
                                   .max_positions = 4096,
                                   .norm_eps = 1e-6,
                                   .predicts_beyond = true,
                                   .names = {.shared = "mlp.shared_experts"},
                                   .read = Read3,
                                   .write = Write3,
                                   .plan = PlanLatentExperts};

}  // namespace plumb::policy_model
