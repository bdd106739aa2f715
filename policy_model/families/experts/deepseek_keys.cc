#include "policy_model/families/experts/deepseek_keys.h"

#include <algorithm>
#include <cmath>

namespace plumb::policy_model {
namespace {

constexpr int64_t kMost = int64_t{1} << 24;

int64_t Bounded(const ConfigKeys& keys, const char* key, int64_t usual, int64_t least) {
  const int64_t value = keys.Int(key, usual);
  if (value < least || value > kMost)
    keys.Fail(std::string("'") + key + "' = " + std::to_string(value) + " is out of range");
  return value;
}

}  // namespace

void ReadLatent(const ConfigKeys& keys, const LatentShape& usual, ModelShape& s) {
  LatentShape& a = s.latent;
  a.kv_rank = Bounded(keys, "kv_lora_rank", usual.kv_rank, 1);
  // null: queries are not compressed; a missing key: the class's own number.
  const bool without = keys.Mentions("q_lora_rank") && !keys.Has("q_lora_rank");
  a.query_rank = without ? 0 : Bounded(keys, "q_lora_rank", usual.query_rank, 0);
  a.nope = Bounded(keys, "qk_nope_head_dim", usual.nope, 1);
  a.rope = Bounded(keys, "qk_rope_head_dim", usual.rope, 2);
  a.value = Bounded(keys, "v_head_dim", usual.value, 1);
  a.interleaved = usual.interleaved;
  a.norm_eps = usual.norm_eps;
  if (keys.Bool("attention_bias", false))
    keys.Unsupported("attention_bias: latent attention with biases is not computed here");
  if (s.kv_heads != s.heads) {
    keys.Unsupported("num_key_value_heads = " + std::to_string(s.kv_heads) +
                     ": latent attention has keys and values for each of its " +
                     std::to_string(s.heads) + " heads");
  }
  s.head_dim = a.head();
}

void WriteLatent(const ModelShape& s, ConfigJson& json) {
  const LatentShape& a = s.latent;
  json["kv_lora_rank"] = a.kv_rank;
  json["q_lora_rank"] = a.query_rank > 0 ? ConfigJson(a.query_rank) : ConfigJson(nullptr);
  json["qk_nope_head_dim"] = a.nope;
  json["qk_rope_head_dim"] = a.rope;
  json["v_head_dim"] = a.value;
  json["head_dim"] = a.rope;  // what other readers turn
  json["attention_bias"] = false;
}

void ReadRoutedExperts(const ConfigKeys& keys, const UsualExperts& usual, const char* score,
                       ModelShape& s) {
  ExpertsShape& e = s.experts;
  e.count = Bounded(keys, "n_routed_experts", keys.Int("num_local_experts", usual.count), 1);
  if (!keys.Has("num_experts_per_tok") && usual.per_token == 0)
    keys.Fail("has no 'num_experts_per_tok'");
  e.per_token = Bounded(keys, "num_experts_per_tok", usual.per_token, 1);
  const int64_t width = Bounded(keys, "moe_intermediate_size", usual.width, 1);
  e.widths = {width};
  e.shared_ffn = width * Bounded(keys, "n_shared_experts", usual.shared, 0);
  e.scale = keys.Number("routed_scaling_factor", usual.scale);
  e.groups = Bounded(keys, "n_group", usual.groups, 1);
  e.groups_per_token = Bounded(keys, "topk_group", usual.groups_per_token, 1);
  e.renormalize = keys.Bool("norm_topk_prob", usual.renormalize);
  const std::string named = keys.Text("scoring_func", score);
  if (named != score)
    keys.Unsupported("scoring_func '" + named + "' is not computed here for " + s.family +
                     ", only " + score);
  if (keys.Int("moe_layer_freq", 1) != 1)
    keys.Unsupported(
        "moe_layer_freq: experts in some layers only, behind the dense ones, are not "
        "computed here");
}

void WriteRoutedExperts(const ModelShape& s, ConfigJson& json) {
  const ExpertsShape& e = s.experts;
  json["n_routed_experts"] = e.count;
  json["num_experts_per_tok"] = e.per_token;
  json["moe_intermediate_size"] = e.widths[0];
  json["n_shared_experts"] = e.shared_ffn / e.widths[0];
  json["routed_scaling_factor"] = e.scale;
  json["n_group"] = e.groups;
  json["topk_group"] = e.groups_per_token;
  json["norm_topk_prob"] = e.renormalize;
  json["scoring_func"] = e.sigmoid ? "sigmoid" : "softmax";
}

void ReadFirstDense(const ConfigKeys& keys, int64_t usual, ModelShape& s) {
  const int64_t first = std::min(Bounded(keys, "first_k_dense_replace", usual, 0), s.layers);
  s.experts.dense.clear();
  if (first == 0) return;
  s.experts.dense.assign(static_cast<size_t>(s.layers), 0);
  std::fill_n(s.experts.dense.begin(), first, 1);
}

int64_t FirstDense(const ModelShape& s) {
  int64_t first = 0;
  while (first < s.layers && !s.experts.of(first)) ++first;
  return first;
}

double ScoreStretch(const RopeScaling& rope) {
  if (rope.kind == RopeKind::kDefault || rope.mscale_all_dim == 0 || rope.factor <= 1) return 1;
  const double m = 0.1 * rope.mscale_all_dim * std::log(rope.factor) + 1;
  return m * m;
}

ModelPlan PlanLatentExperts(const ModelShape& s) {
  ModelPlan plan = CommonPlan(s);
  for (LayerSpec& layer : plan.layers) layer.attention_scale *= ScoreStretch(s.rope);
  PlanExperts(s, plan);
  return plan;
}

}  // namespace plumb::policy_model
