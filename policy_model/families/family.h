// The table of model families: what is peculiar to each, in one file a family (llama.cc, qwen.cc,
// ...).
//
// A family reads the keys of config.json that are its own, turns the shape into a plan of layers,
// and says how the file's tensors are called. Everything else (tensor table, loading, the
// transformer, the engine) works on plan and names.
// To add one: a file with one `Family` constant, and a line in the table of family.cc.
// Thread safety: constants. Errors: FamilyOf throws kUnsupported and names what is known.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "policy_model/families/layer_spec.h"
#include "policy_model/families/model_shape.h"

namespace plumb::policy_model {

// Of config_keys.h, whose JSON library only families themselves have to compile.
class ConfigKeys;
using ConfigJson = nlohmann::ordered_json;

// Names of a layer's tensors in the file, behind "model.layers.N." and without ".weight" / ".bias".
// nullptr: has none.
struct LayerNames {
  const char* attention_norm = "input_layernorm";     // before attention
  const char* attention_behind = nullptr;             // behind it
  const char* ffn_norm = "post_attention_layernorm";  // before the feed-forward
  const char* ffn_behind = nullptr;                   // behind it
  // q, k and v in one matrix, in that order; nullptr: three
  const char* qkv = nullptr;
  // gate and up in one matrix, in that order; nullptr: two
  const char* gate_up = nullptr;
  const char* q_norm = "self_attn.q_norm";
  const char* k_norm = "self_attn.k_norm";
  const char* o = "self_attn.o_proj";
  // Of a dense feed-forward part.
  const char* gate = "mlp.gate_proj";
  const char* up = "mlp.up_proj";
  const char* down = "mlp.down_proj";
  const char* final_norm = "model.norm";  // whole, in front of the head
  // Of a mixture of experts. The experts' own are "<experts>.E.gate_proj" and so on, or
  // "<experts>.gate_up_proj" and "<experts>.down_proj" for all together.
  const char* router = "mlp.gate";
  const char* router_bias = "mlp.gate.e_score_correction_bias";  // whole
  const char* experts = "mlp.experts";
  const char* expert_gate = "gate_proj";
  const char* expert_up = "up_proj";
  const char* expert_down = "down_proj";
  // All experts of a layer are one tensor of matrices [in, out], gate and up taking turns.
  bool experts_by_input = false;
  const char* shared = "mlp.shared_expert";
  const char* shared_gate = "mlp.shared_expert_gate";
};

struct Family {
  const char* type;          // model_type of config.json
  const char* architecture;  // "Llama" of "LlamaForCausalLM"
  // What transformers' class takes where the config does not say.
  bool tied;
  double rope_theta;         // 0: it takes none, the config has to say
  double rotated_share = 1;  // of a head's dimensions
  int64_t kv_heads;          // 0: as many as query heads
  int64_t head_dim;          // 0: hidden / heads
  int64_t max_positions;
  double norm_eps;
  // Files may hold layers behind the last that predict further tokens (MTP): they are left out.
  bool predicts_beyond = false;
  LayerNames names;
  // Keys of this family alone; the common ones are read. nullptr: none.
  void (*read)(const ConfigKeys& keys, ModelShape& shape);
  void (*write)(const ModelShape& shape, ConfigJson& json);
  ModelPlan (*plan)(const ModelShape& shape);
};

std::span<const Family* const> Families();
const Family* FindFamily(const std::string& type);  // nullptr: not known
const Family& FamilyOf(const ModelShape& shape);
inline ModelPlan PlanOf(const ModelShape& shape) { return FamilyOf(shape).plan(shape); }
// "llama, mistral, qwen2, ..." for errors.
std::string KnownFamilies();

// What the layers see, in order, repeated from the first: "local" (shape.window), "global" (all) or
// "memory" (shape.table besides; the window, where there is one). Throws kInvalidArgument, naming
// `where`, for another name and for local without a window. plumb's own (plumb.cc).
void SetScales(std::span<const std::string> names, const std::string& where, ModelShape& shape);

// What most families share: every field that the shape's switches say, one rotary table, a second
// one for sliding layers where local_rope_theta is set. Families change the rest.
ModelPlan CommonPlan(const ModelShape& shape);
// Gives the layers that have experts theirs.
void PlanExperts(const ModelShape& shape, ModelPlan& plan);

// [L] 1 where "layer_types" says sliding_attention; without the key `otherwise(layer)` decides.
std::vector<uint8_t> SlidingLayers(const ConfigKeys& keys, int64_t layers,
                                   bool (*otherwise)(int64_t layer));
// Writes "layer_types" (and nothing where no layer slides).
void WriteLayerTypes(const ModelShape& shape, ConfigJson& json);

}  // namespace plumb::policy_model
