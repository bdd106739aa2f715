#include "policy_model/families/model_config.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json/strict_json.h"
#include "common/base/log.h"
#include "common/base/place.h"
#include "policy_model/families/config_keys.h"
#include "policy_model/families/family.h"
#include "policy_model/files/safetensors.h"

namespace plumb::policy_model {
namespace {

constexpr size_t kMaxConfigBytes = size_t{1} << 20;
constexpr int64_t kMaxDimension = int64_t{1} << 24;
constexpr int64_t kMostChosen = 1024;  // tokens that a gate chooses

ConfigJson ReadJson(const std::string& path) {
  ConfigJson j = ReadStrictJson(path, kMaxConfigBytes);
  if (!j.is_object()) throw Error(ErrorCode::kCorruption, "is not a JSON object", path);
  return j;
}

void AddEos(const ConfigJson& j, const std::string& path, std::vector<int32_t>& out) {
  if (!j.contains("eos_token_id") || j.at("eos_token_id").is_null()) return;
  const ConfigJson& eos = j.at("eos_token_id");
  const auto add = [&](const ConfigJson& id) {
    if (!id.is_number_integer())
      throw Error(ErrorCode::kCorruption, "'eos_token_id' is not a token id", path);
    const auto value = id.get<int64_t>();
    if (value < 0 || value > kMaxDimension)
      throw Error(ErrorCode::kCorruption, "'eos_token_id' is out of range", path);
    for (int32_t known : out) {
      if (known == value) return;
    }
    out.push_back(static_cast<int32_t>(value));
  };
  if (eos.is_array()) {
    for (const ConfigJson& id : eos) add(id);
  } else {
    add(eos);
  }
}

struct RopeName {
  RopeKind kind;
  const char* name;
};
constexpr RopeName kRopeNames[] = {
    {RopeKind::kDefault, "default"}, {RopeKind::kLinear, "linear"},
    {RopeKind::kDynamic, "dynamic"}, {RopeKind::kLlama3, "llama3"},
    {RopeKind::kYarn, "yarn"},       {RopeKind::kLongRope, "longrope"}};

std::string RopeNames() {
  std::string out;
  for (const RopeName& known : kRopeNames)
    out += (out.empty() ? "" : ", ") + std::string(known.name);
  return out;
}

std::vector<double> ReadDivisors(const ConfigKeys& rope, const char* name) {
  if (!rope.Has(name) || !rope.At(name).is_array())
    rope.Fail(std::string("longrope has no list '") + name + "'");
  std::vector<double> out;
  for (const ConfigJson& item : rope.At(name)) {
    if (!item.is_number())
      rope.Fail(std::string("'") + name + "' holds something else than numbers");
    out.push_back(item.get<double>());
  }
  return out;
}

RopeScaling ReadScaling(const ConfigKeys& rope, const char* key) {
  RopeScaling s;
  std::string name = rope.Text("rope_type", rope.Text("type", "default"));
  if (name == "su") name = "longrope";  // in the first files of Phi 3
  const RopeName* found = nullptr;
  for (const RopeName& known : kRopeNames) {
    if (name == known.name) found = &known;
  }
  if (!found) {
    rope.Unsupported(std::string(key) + " of type '" + name +
                     "' is not computed here; known: " + RopeNames());
  }
  s.kind = found->kind;
  if (s.kind == RopeKind::kDefault) return s;
  const bool divisors = s.kind == RopeKind::kLongRope;
  s.factor = rope.Number("factor", 0);
  if (!rope.Has("factor") && !divisors) rope.Fail(std::string(key) + " has no 'factor'");
  if (divisors) {
    s.short_factor = ReadDivisors(rope, "short_factor");
    s.long_factor = ReadDivisors(rope, "long_factor");
  }
  s.original_positions = rope.Int("original_max_position_embeddings", 0);
  s.low_freq = rope.Number("low_freq_factor", 1);
  s.high_freq = rope.Number("high_freq_factor", 4);
  s.beta_fast = rope.Number("beta_fast", 32);
  s.beta_slow = rope.Number("beta_slow", 1);
  s.attention_factor = rope.Number("attention_factor", 0);
  s.mscale = rope.Number("mscale", 0);
  s.mscale_all_dim = rope.Number("mscale_all_dim", 0);
  s.truncate = rope.Bool("truncate", true);
  if (!((s.factor >= 1 || (divisors && s.factor == 0)) && s.beta_fast > s.beta_slow &&
        s.beta_slow > 0 && s.original_positions >= 0 &&
        (s.kind != RopeKind::kLlama3 || (s.low_freq > 0 && s.high_freq > s.low_freq)))) {
    rope.Fail(std::string(key) + " holds numbers that stretch nothing");
  }
  return s;
}

// Base and stretching of the positions: 4.x writes rope_theta and rope_scaling, 5.x
// rope_parameters, flat or by layer type.
void ReadRope(const ConfigKeys& keys, const Family& family, ModelShape& s) {
  s.rope_theta = keys.Number("rope_theta", family.rope_theta);
  s.rotated_share = keys.Number("partial_rotary_factor", family.rotated_share);
  const auto take = [&](const ConfigJson& json, const char* key) {
    const ConfigKeys rope(json, keys.path());
    s.rope = ReadScaling(rope, key);
    s.rope_theta = rope.Number("rope_theta", s.rope_theta);
    s.rotated_share = rope.Number("partial_rotary_factor", s.rotated_share);
  };
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!keys.Has(key)) continue;
    const ConfigJson& rope = keys.At(key);
    if (!rope.is_object()) keys.Fail(std::string("'") + key + "' is not an object");
    if (!rope.contains("full_attention")) {
      take(rope, key);
      continue;
    }
    if (!rope.at("full_attention").is_object())
      keys.Fail(std::string("'") + key + "' holds something else than objects");
    take(rope.at("full_attention"), key);
    if (!rope.contains("sliding_attention") || rope.at("sliding_attention").is_null()) continue;
    if (!rope.at("sliding_attention").is_object())
      keys.Fail(std::string("'") + key + "' holds something else than objects");
    const ConfigKeys local(rope.at("sliding_attention"), keys.path());
    if (ReadScaling(local, key).kind != RopeKind::kDefault) {
      keys.Unsupported(std::string(key) +
                       ": stretched positions in sliding layers are not computed here");
    }
    s.local_rope_theta = local.Number("rope_theta", s.rope_theta);
  }
  if (s.rope_theta == 0) {
    keys.Fail("has no 'rope_theta', neither at the top nor in 'rope_parameters', and " + s.family +
              " takes none by default");
  }
  if (s.rope.kind == RopeKind::kYarn || s.rope.kind == RopeKind::kLlama3 ||
      s.rope.kind == RopeKind::kLongRope) {
    if (s.rope.original_positions == 0)
      s.rope.original_positions = keys.Int("original_max_position_embeddings", 0);
  }
}

void WriteRope(const ModelShape& s, ConfigJson& j) {
  j["rope_theta"] = s.rope_theta;
  if (s.rotated_share != 1 || FamilyOf(s).rotated_share != 1)
    j["partial_rotary_factor"] = s.rotated_share;
  if (s.rope.kind == RopeKind::kDefault) return;
  const char* name = "";
  for (const RopeName& known : kRopeNames) {
    if (known.kind == s.rope.kind) name = known.name;
  }
  if (s.rope.kind == RopeKind::kLongRope) {  // transformers 4 asks for just these three keys
    ConfigJson rope = {
        {"type", name}, {"short_factor", s.rope.short_factor}, {"long_factor", s.rope.long_factor}};
    if (s.rope.factor > 0) rope["factor"] = s.rope.factor;
    if (s.rope.attention_factor > 0) rope["attention_factor"] = s.rope.attention_factor;
    j["original_max_position_embeddings"] = s.rope.original_positions;
    j["max_position_embeddings"] = s.rope.stretched_positions;
    j["rope_scaling"] = std::move(rope);
    return;
  }
  ConfigJson rope = {{"rope_type", name}, {"factor", s.rope.factor}};
  if (s.rope.original_positions > 0)
    rope["original_max_position_embeddings"] = s.rope.original_positions;
  if (s.rope.kind == RopeKind::kLlama3) {
    rope["low_freq_factor"] = s.rope.low_freq;
    rope["high_freq_factor"] = s.rope.high_freq;
  }
  if (s.rope.kind == RopeKind::kYarn) {
    rope["beta_fast"] = s.rope.beta_fast;
    rope["beta_slow"] = s.rope.beta_slow;
    if (s.rope.attention_factor > 0) rope["attention_factor"] = s.rope.attention_factor;
    if (s.rope.mscale > 0) rope["mscale"] = s.rope.mscale;
    if (s.rope.mscale_all_dim > 0) rope["mscale_all_dim"] = s.rope.mscale_all_dim;
    if (!s.rope.truncate) rope["truncate"] = false;
  }
  if (s.local_rope_theta > 0 && s.window > 0) {  // by layer type: sliding layers are not stretched
    ConfigJson full = rope;
    full["rope_theta"] = s.rope_theta;
    j["rope_parameters"] = {
        {"full_attention", full},
        {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", s.local_rope_theta}}}};
    return;
  }
  j["rope_scaling"] = std::move(rope);
}

// The folder's weights hold a head and an embedding that are not the same numbers. Only bytes are
// compared: types that differ are two tensors.
bool HasAnotherHead(const std::string& directory) {
  FileSystem& files = RealFileSystem();
  const std::string single = directory + "/model.safetensors";
  if (!files.Exists(single) && !files.Exists(single + ".index.json")) return false;
  const auto reader = SafetensorsReader::OpenDirectory(directory);
  // Wrappers put names of their own in front.
  const auto named = [&](const char* end) {
    return std::find_if(reader->tensors().begin(), reader->tensors().end(),
                        [&](const auto& tensor) { return tensor.first.ends_with(end); });
  };
  const auto head = named("lm_head.weight"), embedding = named("embed_tokens.weight");
  if (head == reader->tensors().end() || embedding == reader->tensors().end()) return false;
  const TensorView &a = head->second, &b = embedding->second;
  return a.dtype != b.dtype || a.shape != b.shape ||
         std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) != 0;
}

// The folder's weights hold the experts of a layer in one tensor.
bool HasFusedExperts(const std::string& directory) {
  FileSystem& files = RealFileSystem();
  const std::string single = directory + "/model.safetensors";
  if (!files.Exists(single) && !files.Exists(single + ".index.json")) return false;
  const auto reader = SafetensorsReader::OpenDirectory(directory);
  return std::any_of(reader->tensors().begin(), reader->tensors().end(), [](const auto& tensor) {
    return tensor.first.ends_with(".experts.gate_up_proj") ||
           tensor.first.ends_with(".experts.gate_up_proj_blocks");
  });
}

void ValidateExperts(const ModelShape& s, const std::string& where) {
  constexpr int64_t kMostExperts = 1024, kMostGroups = 1024;
  const ExpertsShape& e = s.experts;
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::kInvalidArgument, what, where);
  };
  if (e.count < 1 || e.count > kMostExperts)
    fail(std::to_string(e.count) + " experts a layer: 1 to " + std::to_string(kMostExperts) +
         " are computed");
  if (e.per_token < 1 || e.per_token > e.count)
    fail("a token goes to " + std::to_string(e.per_token) + " of " + std::to_string(e.count) +
         " experts");
  if (e.widths.empty()) fail("experts have no width");
  for (const int64_t width : e.widths) {
    if (width < 1 || width > kMaxDimension)
      fail("an expert's width of " + std::to_string(width) + " is out of range");
  }
  if (e.groups < 1 || e.groups > kMostGroups || e.count % e.groups != 0)
    fail("the experts do not fall into " + std::to_string(e.groups) + " equal groups");
  if (e.groups_per_token < 1 || e.groups_per_token > e.groups ||
      e.per_token > e.groups_per_token * (e.count / e.groups))
    fail(std::to_string(e.groups_per_token) + " groups a token do not hold its " +
         std::to_string(e.per_token) + " experts");
  if (e.group_best < 1 || e.group_best > 2)
    fail("a group is chosen by its best or its two best experts, not by " +
         std::to_string(e.group_best));
  for (const double number : {e.temperature, e.scale}) {
    if (!(number > 0 && std::isfinite(number)))
      fail("the router's temperature and scale have to be positive, finite numbers");
  }
  if (!(e.glu_limit >= 0 && std::isfinite(e.glu_limit) && std::isfinite(e.glu_alpha)))
    fail("the limits of the experts' gated unit have to be finite numbers");
  if (e.shared_ffn < 0 || e.shared_ffn > kMaxDimension)
    fail("the shared experts' width of " + std::to_string(e.shared_ffn) + " is out of range");
}

void ValidateLatent(const ModelShape& s, const std::string& where) {
  const LatentShape& a = s.latent;
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::kInvalidArgument, "latent attention: " + what, where);
  };
  for (const int64_t rank : {a.kv_rank, a.query_rank}) {
    if (rank < 0 || rank > kMaxDimension)
      fail("a rank of " + std::to_string(rank) + " is out of range");
  }
  for (const int64_t part : {a.nope, a.rope, a.value}) {
    if (part < 1 || part > kMaxDimension)
      fail("a part of a head of " + std::to_string(part) + " elements is out of range");
  }
  if (a.rope % 2 != 0)
    fail("the rotated part of a head, " + std::to_string(a.rope) + " elements, has to be even");
  if (!(a.norm_eps > 0 && std::isfinite(a.norm_eps)))
    fail("the eps of its norms has to be a positive, finite number");
  if (s.kv_heads != s.heads || s.head_dim != a.head())
    fail("every head has keys and values of its own, of the larger of its sizes");
  if (s.rotated_share != 1 || s.local_rope_theta != 0 || s.rope.query_beta != 0)
    fail("all of the rotated part turns in one way, by partial_rotary_factor 1");
}

void ValidateHybrid(const ModelShape& s, const std::string& where) {
  constexpr int64_t kMostTaps = 16, kMostHeads = 4096, kMostDim = 1024;
  const HybridShape& h = s.hybrid;
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::kInvalidArgument, what, where);
  };
  if (h.count() >= s.layers) fail("a model without a layer of attention is not computed");
  if (h.taps < 1 || h.taps > kMostTaps)
    fail("a short convolution of " + std::to_string(h.taps) + " taps: 1 to " +
         std::to_string(kMostTaps) + " are computed");
  if (h.v_heads == 0) return;
  if (h.k_heads < 1 || h.v_heads < 1 || h.v_heads > kMostHeads || h.v_heads % h.k_heads != 0)
    fail("linear attention with " + std::to_string(h.k_heads) + " heads of keys and " +
         std::to_string(h.v_heads) + " of values: the first has to divide the second");
  if (h.k_dim < 1 || h.k_dim > kMostDim || h.v_dim < 1 || h.v_dim > kMostDim)
    fail("heads of linear attention of size " + std::to_string(h.k_dim) + " and " +
         std::to_string(h.v_dim) + ": 1 to " + std::to_string(kMostDim) + " are computed");
}

// A folder has what its model needs. A file of other bytes is refused where it is read
// (memory/key_table.h).
void CopyTable(const KeyTableShape& table, const std::string& directory) {
  const std::string to = directory + "/" + kTableFile;
  FileSystem& files = RealFileSystem();
  std::error_code other;  // one of them is not there
  if (files.Exists(to) && std::filesystem::equivalent(table.path, to, other)) return;
  files.WriteFileAtomic(to, MappedFile::Open(table.path)->text());
}

}  // namespace

int32_t ModelShape::ScoredPosition(std::span<const int32_t> tokens) const {
  size_t n = tokens.size();
  while (n > 0 && tokens[n - 1] == pad_token) --n;
  return n == 0 ? 0 : static_cast<int32_t>(n) - 1;
}

void Validate(const ModelShape& s, const std::string& where) {
  const auto positive = [&](const char* name, int64_t v) {
    if (v <= 0 || v > kMaxDimension) {
      throw Error(ErrorCode::kInvalidArgument,
                  std::string(name) + " = " + std::to_string(v) + " is out of range", where);
    }
  };
  // a head of its own has none (weights.h)
  if (!s.scalar_head || s.layers != 0) positive("layers", s.layers);
  positive("hidden", s.hidden);
  positive("heads", s.heads);
  positive("kv_heads", s.kv_heads);
  positive("head_dim", s.head_dim);
  positive("ffn", s.ffn);
  positive("vocab", s.vocab);
  positive("max_positions", s.max_positions);
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::kInvalidArgument, what, where);
  };
  if (s.heads % s.kv_heads != 0) fail("kv_heads has to divide heads");
  if (s.head_dim % 2 != 0) fail("head_dim has to be even");
  if (s.head_dim > 1024 || s.heads > 4096 || s.layers > 4096)
    fail("the shape is larger than any model this computes");
  const auto finite = [](double x) { return x > 0 && std::isfinite(x); };
  if (!finite(s.rope_theta) || !finite(s.norm_eps))
    fail("rope_theta and norm_eps have to be positive, finite numbers");
  if (s.local_rope_theta != 0 && !finite(s.local_rope_theta))
    fail("rope_local_base_freq has to be a positive, finite number");
  if (s.attention_scale != 0 && !finite(s.attention_scale))
    fail("the scale of attention has to be a positive, finite number");
  if (!(s.rotated_share > 0 && s.rotated_share <= 1))
    fail("partial_rotary_factor has to lie in (0, 1]");
  if (s.rope.kind == RopeKind::kLongRope) {
    for (const auto* list : {&s.rope.short_factor, &s.rope.long_factor}) {
      if (2 * static_cast<int64_t>(list->size()) != s.rotated_dims() ||
          !std::all_of(list->begin(), list->end(), finite))
        fail("short_factor and long_factor of longrope have to hold " +
             std::to_string(s.rotated_dims() / 2) + " positive numbers, one a frequency");
    }
    if (s.rope.original_positions < 2 || s.rope.stretched_positions < s.rope.original_positions ||
        s.rope.stretched_positions > kMaxDimension)
      fail(
          "longrope needs original_max_position_embeddings between 2 and "
          "max_position_embeddings");
  }
  for (const double scale : {s.embedding_scale, s.residual_scale, s.logit_divisor}) {
    if (!finite(scale)) fail("a multiplier has to be a positive, finite number");
  }
  if (!(s.rope.query_beta >= 0 && std::isfinite(s.rope.query_beta)))
    fail("llama_4_scaling_beta has to be a finite number that is not negative");
  if (s.window < 0 || s.window > kMaxDimension)
    fail("sliding_window = " + std::to_string(s.window) + " is out of range");
  if (s.global_every < 0 || s.global_every > kMaxDimension || (s.global_every > 0 && s.window == 0))
    fail("global_every = " + std::to_string(s.global_every) +
         " is out of range or without a window");
  if (s.gate_top_k < 0 || s.gate_top_k > kMostChosen || (s.gate_top_k > 0 && s.window == 0))
    fail("gate_top_k = " + std::to_string(s.gate_top_k) + " is out of range (0 to " +
         std::to_string(kMostChosen) + ") or without a window");
  if (s.gate_top_k > 0 && s.global_every > 0)
    fail("gate_top_k and global_every are two ways to see beyond a window: take one of them out");
  if ((s.gate_top_k > 0 || s.table.there()) && s.latent.there())
    fail("latent attention sees neither tokens that a gate chooses nor a memory table");
  const bool asks = std::count(s.sees_table.begin(), s.sees_table.end(), 1) > 0;
  if (asks != s.table.there())
    fail(asks ? "layers ask a memory table, but there is none"
              : "there is a memory table, but no layer asks it");
  if (s.experts.count != 0) ValidateExperts(s, where);
  if (s.latent != LatentShape{}) ValidateLatent(s, where);
  if (s.hybrid.count() != 0) ValidateHybrid(s, where);
  for (const auto* list : {&s.sliding, &s.rotated, &s.layer_norms, &s.experts.dense,
                           &s.hybrid.layers, &s.sees_table}) {
    if (!list->empty() && static_cast<int64_t>(list->size()) != s.layers)
      fail("a list of layers has another length than the model");
  }
  if (!FindFamily(s.family)) fail("unknown model family '" + s.family + "'");
  for (int32_t id : s.eos_tokens) {
    if (id < 0 || id >= s.vocab)
      fail("the end-of-sequence token " + std::to_string(id) + " is outside the vocabulary");
  }
}

ModelShape ReadModelConfig(const std::string& directory, int64_t longest) {
  const std::string path = directory + "/config.json";
  if (!RealFileSystem().Exists(path)) {
    const Place place = PlaceOf(directory);
    const bool unknown = place == Place::kNothing || place == Place::kFolder;
    throw Error(ErrorCode::kNotFound,
                unknown ? "is not a model folder: it has no config.json (models of a hub are not "
                          "fetched by name: download the folder; for a .gguf file: `plumb convert`)"
                        : NotWhatIsWanted(directory, "a model"),
                directory);
  }
  const ConfigJson whole = ReadJson(path);
  // A wrapper around a text model and, say, an eye: the text model is what is computed.
  const bool wrapped = whole.contains("text_config") && whole.at("text_config").is_object();
  const ConfigJson& j = wrapped ? whole.at("text_config") : whole;
  const ConfigKeys keys(j, path), outer(whole, path);
  ModelShape s;
  // Kimi K2 and the text part of Kimi K2.5 are DeepSeek V3 under other names.
  const bool kimi = outer.Text("model_type", "") == "kimi_k25";
  s.family = keys.Text("model_type", kimi ? "deepseek_v3" : "llama");
  if (s.family == "kimi_k2") s.family = "deepseek_v3";
  const Family* family = FindFamily(s.family);
  if (!family)
    keys.Unsupported("model_type '" + s.family +
                     "' is not computed here; known: " + KnownFamilies());
  const std::string act = keys.Text("hidden_activation", keys.Text("hidden_act", ""));
  const bool gelu = s.family == "gemma3_text";
  if (!act.empty() && act != (gelu ? "gelu_pytorch_tanh" : "silu") && !(act == "swish" && !gelu)) {
    keys.Unsupported("hidden_act '" + act + "' is not computed here for " + s.family + ", only " +
                     (gelu ? "gelu_pytorch_tanh" : "silu"));
  }
  if (outer.Has("quantization_config") || keys.Has("quantization_config")) {
    const ConfigKeys& by = outer.Has("quantization_config") ? outer : keys;
    const ConfigKeys quantised(by.At("quantization_config"), path);
    if (family->names.experts_by_input && quantised.Text("quant_method", "?") == "mxfp4") {
      LogWarningOnce(path +
                     ": the experts' weights are MXFP4; they are read as the numbers that they "
                     "stand for, trained as such, and written in the run's type without blocks");
    } else
      keys.Unsupported("quantization_config: weights quantised by '" +
                       quantised.Text("quant_method", "?") +
                       "' are not read here: take the model in bfloat16, or its .gguf file through "
                       "`plumb convert`");
  }
  ReadRope(keys, *family, s);
  if (outer.Has("architectures")) {
    const ConfigJson& names = outer.At("architectures");
    if (!names.is_array() || names.empty() || !names[0].is_string())
      keys.Fail("'architectures' is not a list of names");
    s.scalar_head = names[0].get<std::string>().ends_with("ForSequenceClassification");
  }
  if (s.scalar_head && outer.Has("id2label") && outer.At("id2label").size() != 1) {
    keys.Unsupported("classifies into " + std::to_string(outer.At("id2label").size()) +
                     " labels; a reward model or critic has one (num_labels = 1)");
  }
  s.layers = keys.Int("num_hidden_layers");
  if (s.layers < 1 || s.layers > 4096) {
    throw Error(ErrorCode::kInvalidArgument,
                "layers = " + std::to_string(s.layers) + " is out of range", path);
  }
  s.hidden = keys.Int("hidden_size");
  s.heads = keys.Int("num_attention_heads");
  // null: as many as query heads; a missing key: the class's own number.
  s.kv_heads = keys.Int(
      "num_key_value_heads",
      keys.Mentions("num_key_value_heads") || family->kv_heads == 0 ? s.heads : family->kv_heads);
  if (s.heads <= 0) keys.Fail("num_attention_heads is not positive");
  s.head_dim = keys.Int("head_dim", family->head_dim > 0 ? family->head_dim : s.hidden / s.heads);
  // Some files have another name for it; where all layers have experts, some say nothing of dense
  // ones.
  const char* ffn = "intermediate_size";
  for (const char* other : {"block_ff_dim", "moe_intermediate_size"}) {
    if (!keys.Has(ffn) && keys.Has(other)) ffn = other;
  }
  s.ffn = keys.Int(ffn);
  s.vocab = keys.Int("vocab_size");
  s.max_positions = keys.Int("max_position_embeddings", family->max_positions);
  if (s.rope.kind == RopeKind::kLongRope) {
    // Beyond the original length all positions turn otherwise, which a sequence that grows cannot.
    s.rope.stretched_positions = s.max_positions;
    if (longest <= s.rope.original_positions) {
      s.max_positions = std::min(s.max_positions, s.rope.original_positions);
    }
  }
  s.norm_eps = keys.Number("rms_norm_eps", family->norm_eps);
  // The wrapper's word counts: its class is the one that has the head.
  s.tied = outer.Bool("tie_word_embeddings", keys.Bool("tie_word_embeddings", family->tied));
  if (family->read) family->read(keys, s);
  s.experts.fused = s.experts.count > 0 && HasFusedExperts(directory);
  const auto token = [&](const char* key) {
    const int64_t id = keys.Int(key, outer.Int(key, -1));
    if (id < -1 || id >= s.vocab) keys.Fail(std::string("'") + key + "' is outside the vocabulary");
    return static_cast<int32_t>(id);
  };
  s.bos_token = token("bos_token_id");
  s.pad_token = token("pad_token_id");
  AddEos(j, path, s.eos_tokens);
  if (wrapped) AddEos(whole, path, s.eos_tokens);
  const std::string generation = directory + "/generation_config.json";
  if (RealFileSystem().Exists(generation)) AddEos(ReadJson(generation), generation, s.eos_tokens);
  Validate(s, path);
  if (s.tied && !s.scalar_head && HasAnotherHead(directory)) {
    LogWarningOnce(path +
                   " ties the head to the embedding, but the weights hold an lm_head.weight that "
                   "is another one: it is " +
                   "used, as transformers does; set \"tie_word_embeddings\": false there");
    s.tied = false;
  }
  return s;
}

void WriteModelConfig(const ModelShape& s, const std::string& directory,
                      const std::string& torch_dtype) {
  Validate(s, directory);
  const Family& family = FamilyOf(s);
  ConfigJson j = {{"architectures",
                   {family.architecture +
                    std::string(s.scalar_head ? "ForSequenceClassification" : "ForCausalLM")}},
                  {"model_type", s.family},
                  {"hidden_act", "silu"},
                  {"hidden_size", s.hidden},
                  {"intermediate_size", s.ffn},
                  {"num_hidden_layers", s.layers},
                  {"num_attention_heads", s.heads},
                  {"num_key_value_heads", s.kv_heads},
                  {"head_dim", s.head_dim},
                  {"vocab_size", s.vocab},
                  {"max_position_embeddings", s.max_positions},
                  {"rms_norm_eps", s.norm_eps},
                  {"tie_word_embeddings", s.tied},
                  {"torch_dtype", torch_dtype}};
  WriteRope(s, j);
  if (s.table.there()) CopyTable(s.table, directory);
  if (family.write) family.write(s, j);
  if (j.contains("hidden_activation")) j.erase("hidden_act");
  if (s.scalar_head) {  // the number of labels is the length of this map; the default would be two
    j["id2label"] = {{"0", "LABEL_0"}};
    j["label2id"] = {{"LABEL_0", 0}};
  }
  ConfigJson generation = {{"do_sample", true}};
  if (s.bos_token >= 0) j["bos_token_id"] = generation["bos_token_id"] = s.bos_token;
  if (s.pad_token >= 0) j["pad_token_id"] = generation["pad_token_id"] = s.pad_token;
  if (s.eos_tokens.size() == 1) j["eos_token_id"] = generation["eos_token_id"] = s.eos_tokens[0];
  else if (!s.eos_tokens.empty()) j["eos_token_id"] = generation["eos_token_id"] = s.eos_tokens;
  RealFileSystem().WriteFileAtomic(directory + "/config.json", j.dump(2) + "\n");
  RealFileSystem().WriteFileAtomic(directory + "/generation_config.json",
                                   generation.dump(2) + "\n");
}

}  // namespace plumb::policy_model
