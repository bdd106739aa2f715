#include "policy_model/families/family.h"

#include <cmath>

#include "common/base/error.h"
#include "policy_model/families/config_keys.h"
#include "policy_model/families/rope_frequencies.h"

namespace plumb::policy_model {

extern const Family kLlama, kMistral, kMinistral3, kQwen2, kQwen3, kQwen3Moe, kGemma3, kSmolLm3,
    kOlmo3, kPhi3, kGlm4, kGranite, kPlumb;
extern const Family kDeepseekV2, kDeepseekV3, kGlm4Moe, kGlm4MoeLite, kGptOss, kMiniMaxM2, kMixtral,
    kOlmoe;                                                  // experts/
extern const Family kQwen3Next, kQwen35, kQwen35Moe, kLfm2;  // hybrid/

namespace {

const Family* const kFamilies[] = {
    &kLlama,     &kMistral,     &kMinistral3, &kQwen2,  &kQwen3,     &kQwen3Moe,   &kGemma3,
    &kSmolLm3,   &kOlmo3,       &kPhi3,       &kGlm4,   &kGranite,   &kDeepseekV2, &kDeepseekV3,
    &kGlm4Moe,   &kGlm4MoeLite, &kQwen3Next,  &kQwen35, &kQwen35Moe, &kLfm2,       &kGptOss,
    &kMiniMaxM2, &kMixtral,     &kOlmoe,      &kPlumb};

}  // namespace

std::span<const Family* const> Families() { return kFamilies; }

const Family* FindFamily(const std::string& type) {
  for (const Family* family : kFamilies) {
    if (type == family->type) return family;
  }
  return nullptr;
}

std::string KnownFamilies() {
  std::string out;
  for (const Family* family : kFamilies)
    out += (out.empty() ? "" : ", ") + std::string(family->type);
  return out;
}

const Family& FamilyOf(const ModelShape& shape) {
  const Family* family = FindFamily(shape.family);
  if (!family) {
    throw Error(ErrorCode::kUnsupported, "model family '" + shape.family +
                                             "' is not computed here; known: " + KnownFamilies());
  }
  return *family;
}

ModelPlan CommonPlan(const ModelShape& s) {
  ModelPlan plan;
  const int64_t dims = s.rotated_dims();
  plan.rotary.push_back(RotaryOf(s.rope, s.rope_theta, dims, s.max_positions));
  if (s.local_rope_theta > 0)
    plan.rotary.push_back(RotaryOf({}, s.local_rope_theta, dims, s.max_positions));
  for (RotarySpec& rotary : plan.rotary)
    rotary.interleaved = s.latent.there() && s.latent.interleaved;
  for (int64_t l = 0; l < s.layers; ++l) {
    LayerSpec layer;
    layer.latent = s.latent.there();
    const int64_t dims_scored = layer.latent ? s.latent.nope + s.latent.rope : s.head_dim;
    layer.attention_scale =
        s.attention_scale > 0 ? s.attention_scale : 1 / std::sqrt(static_cast<double>(dims_scored));
    layer.window = s.slides(l) ? s.window : 0;
    layer.rotary = !s.rotates(l) ? -1 : s.slides(l) && s.local_rope_theta > 0 ? 1 : 0;
    layer.qkv_bias = s.attention_bias;
    layer.o_bias = s.output_bias;
    layer.attention_gate = s.attention_gate;
    layer.sinks = s.sinks;
    layer.ffn = s.ffn;
    layer.ffn_bias = s.mlp_bias;
    plan.layers.push_back(layer);
  }
  return plan;
}

void PlanExperts(const ModelShape& s, ModelPlan& plan) {
  const ExpertsShape& e = s.experts;
  for (int64_t l = 0; l < s.layers; ++l) {
    if (!e.of(l)) continue;
    ExpertsSpec& spec = plan.layers[static_cast<size_t>(l)].experts;
    for (int64_t i = 0; i < e.count; ++i) spec.widths.push_back(e.width(i));
    spec.per_token = e.per_token;
    spec.score = e.sigmoid ? RouterScore::kSigmoid : RouterScore::kSoftmax;
    spec.renormalize = e.renormalize;
    spec.temperature = e.temperature;
    spec.scale = e.scale;
    spec.groups = e.groups;
    spec.groups_per_token = e.groups_per_token;
    spec.group_best = e.group_best;
    spec.bias = e.bias;
    spec.biased = e.biased;
    spec.glu_alpha = e.glu_alpha;
    spec.glu_limit = e.glu_limit;
    spec.shared_ffn = e.shared_ffn;
    spec.shared_gate = e.shared_gate;
    spec.first_here = e.first_here;
    spec.some_here = e.here;
  }
}

std::vector<uint8_t> SlidingLayers(const ConfigKeys& keys, int64_t layers,
                                   bool (*otherwise)(int64_t)) {
  std::vector<uint8_t> out;
  if (!keys.Has("layer_types")) {
    for (int64_t l = 0; l < layers; ++l) out.push_back(otherwise(l) ? 1 : 0);
    return out;
  }
  const ConfigJson& types = keys.At("layer_types");
  if (!types.is_array() || static_cast<int64_t>(types.size()) != layers) {
    keys.Fail("'layer_types' is not a list of " + std::to_string(layers) + " names");
  }
  for (const ConfigJson& type : types) {
    const std::string name = type.is_string() ? type.get<std::string>() : "?";
    if (name == "sliding_attention") out.push_back(1);
    else if (name == "full_attention" || name == "attention") out.push_back(0);
    else
      keys.Unsupported("layer_types: '" + name +
                       "' is not computed here; full_attention and sliding_attention are");
  }
  return out;
}

void WriteLayerTypes(const ModelShape& s, ConfigJson& json) {
  if (s.window == 0) return;
  ConfigJson types = ConfigJson::array();
  for (int64_t l = 0; l < s.layers; ++l)
    types.push_back(s.slides(l) ? "sliding_attention" : "full_attention");
  json["layer_types"] = std::move(types);
}

}  // namespace plumb::policy_model
