// Ministral 3 (3B, 8B, 14B; wrapped as mistral3 with an eye): Llama with YaRN, whose queries grow
// with the logarithm of how often their position holds the pretraining's length.
#include "policy_model/families/config_keys.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

void Read(const ConfigKeys& keys, ModelShape& s) {
  s.window = keys.Int("sliding_window", 0);
  // The class reads the query scale from rope_parameters and fails without it.
  if (!keys.Has("rope_parameters"))
    keys.Fail("has no 'rope_parameters', where ministral3 keeps its rotary base and query scale");
  const ConfigKeys rope(keys.At("rope_parameters"), keys.path());
  if (!rope.Has("llama_4_scaling_beta"))
    keys.Fail("'rope_parameters' has no 'llama_4_scaling_beta'");
  s.rope.query_beta = rope.Number("llama_4_scaling_beta", 0);
  if (rope.Int("original_max_position_embeddings") < 1)
    keys.Fail("'original_max_position_embeddings' is not positive");
  s.rope.original_positions = rope.Int("original_max_position_embeddings");
}

void Write(const ModelShape& s, ConfigJson& json) {
  json["sliding_window"] = s.window > 0 ? ConfigJson(s.window) : ConfigJson(nullptr);
  ConfigJson rope =
      json.contains("rope_scaling") ? json["rope_scaling"] : ConfigJson{{"rope_type", "default"}};
  rope["rope_theta"] = s.rope_theta;
  rope["original_max_position_embeddings"] = s.rope.original_positions;
  rope["llama_4_scaling_beta"] = s.rope.query_beta;
  json.erase("rope_scaling");
  json["rope_parameters"] = std::move(rope);
}

ModelPlan Plan(const ModelShape& s) {
  ModelPlan plan = CommonPlan(s);
  plan.rotary[0].query_beta = s.rope.query_beta;
  plan.rotary[0].query_step = static_cast<double>(s.rope.original_positions);
  return plan;
}

}  // namespace

extern const Family kMinistral3 = {.type = "ministral3",
                                   .architecture = "Ministral3",
                                   .tied = false,
                                   .rope_theta = 0,  // it has no default but with its YaRN
                                   .kv_heads = 8,
                                   .head_dim = 128,
                                   .max_positions = 262144,
                                   .norm_eps = 1e-5,
                                   .names = {},
                                   .read = Read,
                                   .write = Write,
                                   .plan = Plan};

}  // namespace plumb::policy_model
