// Models from scratch in forms that no family of transformers has: LayerNorm in some layers,
// RMSNorm in others; under a sliding window single positions that all tokens behind them see;
// experts of widths of their own, with routers of either kind, groups, a balancing bias, shared
// experts with and without a gate; latent attention. Every other number is Llama's.
//
// transformers does not know this model_type and says so; plumb generate, eval and score read it.
// A gate that chooses tokens before the window, and layers that see their window, all tokens, or a
// table of keys and values besides.
// Keys of its own: "norms", a name a layer and one for the norm in front of the head;
// "attention_sinks", a learned logit a head in every softmax; "window", tokens that a token sees,
// itself included, 0: all; "global_every"; "gate_top_k"; "scales", a name a layer, local, global or
// memory, with "memory_table" (a file of the folder), "memory_rows" and "memory_digest"; those of
// experts in WriteExperts; of latent attention those of DeepSeek V3 (experts/deepseek_keys.h).
#include <algorithm>

#include "common/base/error.h"
#include "policy_model/families/config_keys.h"
#include "policy_model/families/experts/deepseek_keys.h"

namespace plumb::policy_model {
namespace {

std::vector<int64_t> Numbers(const ConfigKeys& keys, const char* key) {
  std::vector<int64_t> out;
  if (!keys.Has(key)) return out;
  if (!keys.At(key).is_array()) keys.Fail(std::string("'") + key + "' is not a list");
  for (const ConfigJson& item : keys.At(key)) {
    if (!item.is_number_integer())
      keys.Fail(std::string("'") + key + "' holds something else than whole numbers");
    out.push_back(item.get<int64_t>());
  }
  return out;
}

void ReadExperts(const ConfigKeys& keys, ModelShape& s) {
  ExpertsShape& e = s.experts;
  e.count = keys.Int("num_experts", 0);
  if (e.count == 0) return;
  e.per_token = keys.Int("num_experts_per_tok");
  e.widths = Numbers(keys, "expert_widths");
  for (const int64_t layer : Numbers(keys, "mlp_only_layers")) {
    e.dense.resize(static_cast<size_t>(s.layers));
    if (layer < 0 || layer >= s.layers)
      keys.Fail("'mlp_only_layers' names a layer that is not there");
    e.dense[static_cast<size_t>(layer)] = 1;
  }
  const std::string router = keys.Text("router", "softmax");
  if (router != "softmax" && router != "sigmoid")
    keys.Unsupported("router '" + router + "' is not computed here; softmax and sigmoid are");
  e.sigmoid = router == "sigmoid";
  e.renormalize = keys.Bool("norm_topk_prob", true);
  e.temperature = keys.Number("router_temperature", 1);
  e.groups = keys.Int("n_group", 1);
  e.groups_per_token = keys.Int("topk_group", 1);
  e.bias = keys.Bool("router_bias", false);
  e.shared_ffn = keys.Int("shared_expert_intermediate_size", 0);
  e.shared_gate = keys.Bool("shared_expert_gate", false);
}

void WriteExperts(const ModelShape& s, ConfigJson& json) {
  const ExpertsShape& e = s.experts;
  if (e.count == 0) return;
  json["num_experts"] = e.count;
  json["num_experts_per_tok"] = e.per_token;
  json["expert_widths"] = e.widths;
  json["mlp_only_layers"] = ConfigJson::array();
  for (int64_t l = 0; l < s.layers; ++l) {
    if (!e.of(l)) json["mlp_only_layers"].push_back(l);
  }
  json["router"] = e.sigmoid ? "sigmoid" : "softmax";
  json["norm_topk_prob"] = e.renormalize;
  json["router_temperature"] = e.temperature;
  json["n_group"] = e.groups;
  json["topk_group"] = e.groups_per_token;
  json["router_bias"] = e.bias;
  json["shared_expert_intermediate_size"] = e.shared_ffn;
  json["shared_expert_gate"] = e.shared_gate;
}

void ReadScales(const ConfigKeys& keys, ModelShape& s) {
  s.gate_top_k = keys.Int("gate_top_k", 0);
  if (keys.Has("memory_table")) {
    const std::string file = keys.Text("memory_table", "");
    if (file != kTableFile)
      keys.Fail("'memory_table' names '" + file + "'; the table lies beside it as " + kTableFile);
    s.table.path = keys.path().substr(0, keys.path().rfind('/') + 1) + file;
    s.table.rows = keys.Int("memory_rows");
    s.table.digest = keys.Text("memory_digest", "");
    if (s.table.rows < 1 || s.table.digest.size() != 64)
      keys.Fail(
          "'memory_rows' and 'memory_digest' do not describe a table: a number of rows, 64 "
          "digits of SHA-256");
  }
  if (!keys.Has("scales")) return;
  const ConfigJson& list = keys.At("scales");
  std::vector<std::string> names;
  for (const ConfigJson& item : list)
    names.push_back(item.is_string() ? item.get<std::string>() : "?");
  if (!list.is_array() || static_cast<int64_t>(names.size()) != s.layers)
    keys.Fail("'scales' is not a list of " + std::to_string(s.layers) + " names");
  SetScales(names, keys.path(), s);
}

void WriteScales(const ModelShape& s, ConfigJson& json) {
  if (s.gate_top_k > 0) json["gate_top_k"] = s.gate_top_k;
  if (s.table.there()) {
    json["memory_table"] = kTableFile;
    json["memory_rows"] = s.table.rows;
    json["memory_digest"] = s.table.digest;
  }
  if (s.sliding.empty() && s.sees_table.empty()) return;
  ConfigJson names = ConfigJson::array();
  for (size_t l = 0; l < static_cast<size_t>(s.layers); ++l) {
    const bool table = !s.sees_table.empty() && s.sees_table[l] != 0;
    names.push_back(table ? "memory" : s.slides(static_cast<int64_t>(l)) ? "local" : "global");
  }
  json["scales"] = std::move(names);
}

const char* NameOf(bool layer_norm) { return layer_norm ? "layernorm" : "rmsnorm"; }

void Read(const ConfigKeys& keys, ModelShape& s) {
  ReadExperts(keys, s);
  if (keys.Has("kv_lora_rank")) ReadLatent(keys, {.norm_eps = s.norm_eps}, s);
  s.window = keys.Int("window", 0);
  s.global_every = keys.Int("global_every", 0);
  s.sinks = keys.Bool("attention_sinks", false);
  ReadScales(keys, s);
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
  if (std::find(s.layer_norms.begin(), s.layer_norms.end(), 1) == s.layer_norms.end())
    s.layer_norms.clear();
}

void Write(const ModelShape& s, ConfigJson& json) {
  WriteExperts(s, json);
  if (s.latent.there()) WriteLatent(s, json);
  ConfigJson names = ConfigJson::array();
  for (int64_t l = 0; l < s.layers; ++l)
    names.push_back(NameOf(!s.layer_norms.empty() && s.layer_norms[static_cast<size_t>(l)] != 0));
  names.push_back(NameOf(s.final_layer_norm));
  json["norms"] = std::move(names);
  json["window"] = s.window;
  json["global_every"] = s.global_every;
  if (s.sinks) json["attention_sinks"] = true;
  WriteScales(s, json);
}

ModelPlan Plan(const ModelShape& s) {
  ModelPlan plan = PlanLatentExperts(s);
  for (size_t l = 0; l < plan.layers.size(); ++l) {
    if (!s.layer_norms.empty() && s.layer_norms[l] != 0) plan.layers[l].norm = NormKind::kLayer;
    if (plan.layers[l].window > 0) {
      plan.layers[l].global_every = s.global_every;
      plan.layers[l].gate_top_k = s.gate_top_k;
    }
    plan.layers[l].table = !s.sees_table.empty() && s.sees_table[l] != 0;
  }
  if (s.final_layer_norm) plan.final_norm = NormKind::kLayer;
  return plan;
}

}  // namespace

void SetScales(std::span<const std::string> names, const std::string& where, ModelShape& s) {
  s.sliding.clear();
  s.sees_table.clear();
  if (names.empty()) return;
  for (size_t l = 0; l < static_cast<size_t>(s.layers); ++l) {
    const std::string& name = names[l % names.size()];
    if (name != "local" && name != "global" && name != "memory") {
      throw Error(ErrorCode::kInvalidArgument,
                  "scales: '" + name + "' is not known; there are local, global and memory", where);
    }
    if (name == "local" && s.window == 0) {
      throw Error(ErrorCode::kInvalidArgument,
                  "scales: local layers see a window, but none is given", where);
    }
    s.sliding.push_back(name != "global" && s.window > 0 ? 1 : 0);
    s.sees_table.push_back(name == "memory" ? 1 : 0);
  }
  if (std::find(s.sees_table.begin(), s.sees_table.end(), 1) == s.sees_table.end())
    s.sees_table.clear();
}

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
