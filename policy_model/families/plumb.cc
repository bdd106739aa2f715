// Models from scratch in forms that no family of transformers has: LayerNorm in some layers,
// RMSNorm in others, and under a sliding window single positions that all tokens behind them see.
// Every other number is Llama's.
//
// transformers does not know this model_type and says so; plumb generate, eval and score read it.
// Keys of its own: "norms", a name a layer and one for the norm in front of the head;
// "window", tokens that a token sees, itself included, 0: all; "global_every".
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

const char* NameOf(bool layer_norm) { return layer_norm ? "layernorm" : "rmsnorm"; }

void Read(const ConfigKeys& keys, ModelShape& s) {
  s.window = keys.Int("window", 0);
  s.global_every = keys.Int("global_every", 0);
  if (!keys.Has("norms")) return;
  const ConfigJson& names = keys.At("norms");
  if (!names.is_array() || static_cast<int64_t>(names.size()) != s.layers + 1)
    keys.Fail("'norms' is not a list of " + std::to_string(s.layers + 1) + " names");
  for (const ConfigJson& item : names) {
    const std::string name = item.is_string() ? item.get<std::string>() : "?";
    if (name != NameOf(true) && name != NameOf(false))
      keys.Unsupported("norms: '" + name + "' is not computed here; rmsnorm and layernorm are");
    s.layer_norms.push_back(name == NameOf(true) ? 1 : 0);
  }
  s.final_layer_norm = s.layer_norms.back() != 0;
  s.layer_norms.pop_back();
}

void Write(const ModelShape& s, ConfigJson& json) {
  ConfigJson names = ConfigJson::array();
  for (int64_t l = 0; l < s.layers; ++l)
    names.push_back(NameOf(!s.layer_norms.empty() && s.layer_norms[static_cast<size_t>(l)] != 0));
  names.push_back(NameOf(s.final_layer_norm));
  json["norms"] = std::move(names);
  json["window"] = s.window;
  json["global_every"] = s.global_every;
}

ModelPlan Plan(const ModelShape& s) {
  ModelPlan plan = CommonPlan(s);
  for (size_t l = 0; l < plan.layers.size(); ++l) {
    if (!s.layer_norms.empty() && s.layer_norms[l] != 0) plan.layers[l].norm = NormKind::kLayer;
    if (plan.layers[l].window > 0) plan.layers[l].global_every = s.global_every;
  }
  if (s.final_layer_norm) plan.final_norm = NormKind::kLayer;
  return plan;
}

}  // namespace

extern const Family kPlumb = {.type = "plumb",
                              .architecture = "Plumb",
                              .tied = true,
                              .rope_theta = 10000,
                              .kv_heads = 0,
                              .head_dim = 0,
                              .max_positions = 2048,
                              .norm_eps = 1e-5,
                              .names = {},
                              .read = Read,
                              .write = Write,
                              .plan = Plan};

}  // namespace plumb::policy_model
