#include "policy_model/gguf/shape_keys.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "common/base/error.h"
#include "policy_model/families/rope_frequencies.h"

namespace plumb::policy_model {
namespace {

constexpr GgufArchitecture kArchitectures[] = {
    {"llama", "llama", true},         {"qwen2", "qwen2", false},    {"qwen3", "qwen3", false},
    {"gemma3", "gemma3_text", false}, {"smollm3", "smollm3", true}, {"olmo2", "olmo3", false},
    {"phi3", "phi3", false},          {"granite", "granite", true}, {"glm4", "glm4", false},
    {"mistral3", "ministral3", true},
};
constexpr const char* kRotaryTensors[] = {"rope_freqs.weight", "rope_factors_long.weight",
                                          "rope_factors_short.weight"};

// The double that the shortest decimal text of the float stands for: 1e-5f was written as 1e-05,
// not 9.99999974e-06.
double Decimal(double stored) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, static_cast<float>(stored)).ptr;
  double out = stored;
  std::from_chars(text, end, out);
  return out;
}

class Keys {
 public:
  Keys(const GgufReader& in, const GgufArchitecture& arch)
      : in_(in), prefix_(std::string(arch.name) + ".") {}
  const GgufReader& in() const { return in_; }
  bool Has(const std::string& key) const { return in_.Has(prefix_ + key); }
  int64_t Integer(const std::string& key, std::optional<int64_t> otherwise = {}) const {
    return in_.Integer(prefix_ + key, otherwise);
  }
  double Number(const std::string& key, std::optional<double> otherwise = {}) const {
    return Has(key) || !otherwise ? Decimal(in_.Number(prefix_ + key)) : *otherwise;
  }
  std::string Text(const std::string& key, const std::string& otherwise) const {
    return in_.Text(prefix_ + key, otherwise);
  }
  bool IsList(const std::string& key) const { return in_.IsList(prefix_ + key); }
  std::vector<int64_t> Integers(const std::string& key) const {
    return in_.Integers(prefix_ + key);
  }
  bool HasTensor(const std::string& name) const { return in_.tensors().count(name) != 0; }
  [[noreturn]] void Unsupported(const std::string& what) const {
    throw Error(ErrorCode::kUnsupported, what, in_.path());
  }
  [[noreturn]] void Corrupt(const std::string& what) const {
    throw Error(ErrorCode::kCorruption, what, in_.path());
  }
  // The values of a tensor of frequencies, one for each pair of dimensions that turns.
  std::vector<double> Factors(const std::string& name, int64_t count) const {
    const GgufTensor& t = in_.tensors().at(name);
    if (t.type != GgufType::kF32 || t.shape != std::vector<int64_t>{count})
      Corrupt("tensor " + name + " is not " + std::to_string(count) + " numbers in F32");
    std::vector<float> raw(static_cast<size_t>(count));
    Dequantize(t.type, t.bytes, raw);
    std::vector<double> out;
    for (const float f : raw) {
      if (!(f > 0 && std::isfinite(f)))
        Corrupt("tensor " + name + " holds something else than positive numbers");
      out.push_back(Decimal(f));
    }
    return out;
  }

 private:
  const GgufReader& in_;
  const std::string prefix_;
};

// Whether `scaling` divides the frequencies by these factors, to what a float can tell.
bool Divides(const RopeScaling& scaling, const ModelShape& s, const std::vector<double>& factors) {
  const RotarySpec plain = RotaryOf({}, s.rope_theta, s.rotated_dims(), s.max_positions),
                   scaled = RotaryOf(scaling, s.rope_theta, s.rotated_dims(), s.max_positions);
  for (size_t i = 0; i < factors.size(); ++i) {
    const double factor = plain.frequencies[i] / scaled.frequencies[i];
    if (!(std::abs(factor - factors[i]) <= 2e-6 * factors[i])) return false;
  }
  return true;
}

// The file has only the divisors of the frequencies. Those of Llama 3.1 and later come from four
// numbers, which config.json wants: the factor is the largest divisor, and how a mixed one lies
// between gives a line in the frequency, whose slope and height are the other three but for a
// common measure; Llama's own low factor is 1. Divisors of another form become those of longrope,
// which may be any.
void ReadDivisors(const Keys& keys, ModelShape& s) {
  const std::vector<double> factors = keys.Factors("rope_freqs.weight", s.rotated_dims() / 2);
  const double factor = *std::max_element(factors.begin(), factors.end());
  if (std::all_of(factors.begin(), factors.end(), [](double f) { return f == 1; })) return;
  if (s.rope.kind != RopeKind::kDefault)
    keys.Unsupported("has rope_freqs.weight besides rope.scaling.type: not computed here");
  RopeScaling llama{.kind = RopeKind::kLlama3, .factor = factor, .original_positions = 8192};
  llama.original_positions = keys.Integer("rope.scaling.original_context_length", 8192);
  if (factor > 1 && llama.original_positions > 0 && Divides(llama, s, factors)) {
    s.rope = llama;
    return;
  }
  const RotarySpec plain = RotaryOf({}, s.rope_theta, s.rotated_dims(), s.max_positions);
  std::vector<size_t> mixed;
  for (size_t i = 0; i < factors.size(); ++i) {
    if (factors[i] > 1 && factors[i] < factor) mixed.push_back(i);
  }
  if (factor > 1 && mixed.size() > 1) {
    // share = (original f / 2 pi - low) / (high - low), where 1 / divisor = (1 - share) / factor +
    // share
    const auto share = [&](size_t i) { return (1 / factors[i] - 1 / factor) / (1 - 1 / factor); };
    const auto turns = [&](size_t i) { return plain.frequencies[i] / 6.283185307179586; };
    const size_t a = mixed.front(), b = mixed.back();
    const double slope = (share(a) - share(b)) / (turns(a) - turns(b)),
                 height = share(a) - slope * turns(a);
    llama.high_freq = 1 - 1 / height;
    const double original = -slope / height;
    llama.original_positions =
        original > 0 && original < 1e9 ? static_cast<int64_t>(std::llround(original)) : 0;
    llama.high_freq = std::round(llama.high_freq * 1e4) / 1e4;
    if (llama.original_positions > 0 && llama.high_freq > llama.low_freq &&
        Divides(llama, s, factors)) {
      s.rope = llama;
      return;
    }
  }
  s.rope = {.kind = RopeKind::kLongRope,
            .factor = 1,
            .original_positions = s.max_positions,
            .attention_factor = 1,
            .short_factor = factors,
            .long_factor = factors,
            .stretched_positions = s.max_positions};
}

// Phi 3: a divisor for each frequency, in short sequences and in long ones. As ReadModelConfig,
// the shape is that of sequences up to the original length.
void ReadLongRope(const Keys& keys, ModelShape& s) {
  const int64_t count = s.rotated_dims() / 2;
  s.rope.kind = RopeKind::kLongRope;
  s.rope.factor = 0;
  s.rope.short_factor = keys.Factors("rope_factors_short.weight", count);
  s.rope.long_factor = keys.Factors("rope_factors_long.weight", count);
  s.rope.original_positions = keys.Integer("rope.scaling.original_context_length");
  s.rope.stretched_positions = s.max_positions;
  s.max_positions = std::min(s.max_positions, s.rope.original_positions);
  const double given = keys.Number("rope.scaling.attn_factor", 0),
               ratio = static_cast<double>(s.rope.stretched_positions) /
                       static_cast<double>(std::max<int64_t>(s.rope.original_positions, 1));
  const double follows =
      ratio > 1 ? std::sqrt(1 + std::log(ratio) /
                                    std::log(static_cast<double>(s.rope.original_positions)))
                : 1;
  if (given > 0 && std::abs(given - follows) > 1e-5 * follows) s.rope.attention_factor = given;
}

void ReadYarn(const Keys& keys, ModelShape& s) {
  s.rope.kind = RopeKind::kYarn;
  s.rope.original_positions = keys.Integer("rope.scaling.original_context_length", 0);
  s.rope.beta_fast = keys.Number("rope.scaling.yarn_beta_fast", 32);
  s.rope.beta_slow = keys.Number("rope.scaling.yarn_beta_slow", 1);
  if (keys.Number("rope.scaling.yarn_ext_factor", 1) != 1)
    keys.Unsupported("rope.scaling.yarn_ext_factor other than 1 is not computed here");
  if (const double all = keys.Number("rope.scaling.yarn_log_multiplier", 0); all > 0) {
    s.rope.mscale = 1;
    s.rope.mscale_all_dim = all;
  }
  // In the file a factor of what follows from the stretching; in config.json the whole.
  const double attention =
      keys.Number("rope.scaling.attn_factor", 1) * keys.Number("rope.scaling.yarn_attn_factor", 1);
  if (attention != 1) s.rope.attention_factor = attention * (0.1 * std::log(s.rope.factor) + 1);
}

void ReadRope(const Keys& keys, ModelShape& s) {
  s.rope_theta = keys.Number("rope.freq_base", 10000.0);
  const int64_t turning = keys.Integer("rope.dimension_count", s.head_dim);
  if (turning < 2 || turning > s.head_dim || turning % 2 != 0)
    keys.Corrupt("rope.dimension_count is " + std::to_string(turning) + " of a head of " +
                 std::to_string(s.head_dim));
  if (turning != s.head_dim) {
    if (s.family != "phi3" && s.family != "glm4")
      keys.Unsupported("rotary positions on a part of a head are not computed here for " +
                       s.family);
    s.rotated_share = static_cast<double>(turning) / static_cast<double>(s.head_dim);
    // The share is rounded down to whole dimensions where it is read.
    while (s.rotated_dims() < turning) s.rotated_share = std::nextafter(s.rotated_share, 2);
  }
  if (keys.Has("rope.dimension_sections"))
    keys.Unsupported("rotary positions in sections (of pictures) are not computed here");
  const std::string type =
      keys.Text("rope.scaling.type", keys.Has("rope.scale_linear") ? "linear" : "none");
  s.rope.factor = keys.Number("rope.scaling.factor", keys.Number("rope.scale_linear", 1));
  if (!(s.rope.factor >= 1 && std::isfinite(s.rope.factor)))
    keys.Corrupt("rope.scaling.factor stretches nothing");
  if (type == "linear") {
    if (s.rope.factor > 1) s.rope.kind = RopeKind::kLinear;
  } else if (type == "yarn") {
    ReadYarn(keys, s);
  } else if (type != "none" && type != "longrope") {
    keys.Unsupported("rope.scaling.type '" + type +
                     "' is not computed here: none, linear, yarn and longrope are");
  }
  if (keys.HasTensor("rope_factors_long.weight") || keys.HasTensor("rope_factors_short.weight")) {
    if (s.family != "phi3" || type == "yarn" || type == "linear")
      keys.Unsupported("rope_factors_long.weight is read for phi3 only");
    if (!keys.HasTensor("rope_factors_long.weight") || !keys.HasTensor("rope_factors_short.weight"))
      keys.Corrupt("has one of rope_factors_long.weight and rope_factors_short.weight only");
    ReadLongRope(keys, s);
  } else if (type == "longrope") {
    keys.Corrupt("rope.scaling.type is longrope, but there is no tensor rope_factors_long.weight");
  }
  if (keys.HasTensor("rope_freqs.weight")) ReadDivisors(keys, s);
  if (s.rope.kind == RopeKind::kDefault) s.rope = {};
}

// Layers that see a window: a list, or one in so many that sees all, as the architecture has it.
std::vector<uint8_t> Sliding(const Keys& keys, const ModelShape& s, int64_t every) {
  const char* key = "attention.sliding_window_pattern";
  std::vector<uint8_t> out;
  if (keys.IsList(key)) {
    const std::vector<int64_t> list = keys.Integers(key);
    if (static_cast<int64_t>(list.size()) != s.layers)
      keys.Corrupt("attention.sliding_window_pattern is not a value for each layer");
    for (const int64_t slides : list) out.push_back(slides != 0 ? 1 : 0);
    return out;
  }
  every = keys.Integer(key, every);
  if (every < 1) keys.Corrupt("attention.sliding_window_pattern is not positive");
  for (int64_t l = 0; l < s.layers; ++l) out.push_back((l + 1) % every != 0 ? 1 : 0);
  return out;
}

void ReadWindow(const Keys& keys, ModelShape& s) {
  const int64_t window = keys.Integer("attention.sliding_window", 0);
  if (s.family == "gemma3_text" || s.family == "olmo3") {
    // Without a window all layers see all: config.json still has one, which no layer uses.
    s.window = window > 0 ? window : 4096;
    s.sliding = window > 0 ? Sliding(keys, s, s.family == "olmo3" ? 4 : 6)
                           : std::vector<uint8_t>(static_cast<size_t>(s.layers), 0);
    const double otherwise = s.family == "olmo3" ? s.rope_theta : 10000;
    s.local_rope_theta = keys.Number("rope.freq_base_swa", otherwise);
    if (s.family == "olmo3" && s.local_rope_theta != s.rope_theta)
      keys.Unsupported("rope.freq_base_swa other than rope.freq_base is not computed for olmo3");
    return;
  }
  if (window == 0) return;
  if (s.family == "llama") s.family = "mistral";  // which is Llama with a window
  if (s.family != "mistral" && s.family != "ministral3" && s.family != "phi3")
    keys.Unsupported("attention.sliding_window is not computed here for " + s.family);
  s.window = window;
}

void ReadMultipliers(const Keys& keys, ModelShape& s) {
  const double plain = 1 / std::sqrt(static_cast<double>(s.head_dim));
  if (s.family == "granite") {
    s.attention_scale = keys.Number("attention.scale", plain);
    s.embedding_scale = keys.Number("embedding_scale", 1);
    s.residual_scale = keys.Number("residual_scale", 1);
    s.logit_divisor = keys.Number("logit_scale", 1);
  }
  if (s.family == "gemma3_text") {
    // Only the 27B model scales by another size than the head's: it is known by its layers.
    const double size =
        s.layers == 62 ? static_cast<double>(s.hidden / s.heads) : static_cast<double>(s.head_dim);
    s.attention_scale = keys.Number("attention.scale", 1 / std::sqrt(size));
  }
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    if (keys.Has(key) && keys.Number(key) != 0)
      keys.Unsupported(std::string(key) + " is not computed here");
  }
}

void ReadBiases(const Keys& keys, ModelShape& s) {
  const auto has = [&](const char* name) { return keys.HasTensor(std::string("blk.0.") + name); };
  s.attention_bias = has("attn_q.bias") || s.family == "qwen2";
  s.output_bias = has("attn_output.bias");
  s.mlp_bias = has("ffn_down.bias");
  const bool q_alone = s.family == "qwen2" || s.family == "glm4";  // whose o never has one
  const bool none = s.family == "phi3" || s.family == "mistral" || s.family == "ministral3";
  if (s.output_bias != (s.attention_bias && !q_alone) ||
      (none && (s.attention_bias || s.mlp_bias)) ||
      (s.mlp_bias && s.family != "llama" && s.family != "granite" && s.family != "smollm3"))
    keys.Unsupported("biases as this file has them are not computed here for " + s.family);
}

}  // namespace

bool IsRotaryTensor(const std::string& name) {
  return std::find(std::begin(kRotaryTensors), std::end(kRotaryTensors), name) !=
         std::end(kRotaryTensors);
}

const GgufArchitecture& ArchitectureOf(const GgufReader& in) {
  const std::string name = in.Text("general.architecture");
  std::string known;
  for (const GgufArchitecture& arch : kArchitectures) {
    if (name == arch.name) return arch;
    known += (known.empty() ? "" : ", ") + std::string(arch.name);
  }
  throw Error(ErrorCode::kUnsupported,
              "architecture '" + name + "' is not computed here; known: " + known, in.path());
}

ModelShape ShapeOf(const GgufReader& in) {
  const GgufArchitecture& arch = ArchitectureOf(in);
  const Keys keys(in, arch);
  if (keys.Integer("expert_count", 0) > 0)
    keys.Unsupported("mixtures of experts are not computed here");
  ModelShape s;
  s.family = arch.family;
  // Mistral Small 3 stands under the same name, without what makes a Ministral.
  const bool ministral = keys.Has("attention.temperature_scale");
  if (s.family == "ministral3" && !ministral) s.family = "mistral";
  s.layers = keys.Integer("block_count");
  s.hidden = keys.Integer("embedding_length");
  s.heads = keys.Integer("attention.head_count");
  s.kv_heads = keys.Integer("attention.head_count_kv", s.heads);
  if (s.heads <= 0 || s.hidden <= 0) keys.Corrupt("head_count or embedding_length is not positive");
  if (s.layers < 1 || s.layers > 4096)
    keys.Corrupt("block_count = " + std::to_string(s.layers) + " is out of range");
  s.head_dim = keys.Integer("attention.key_length", s.hidden / s.heads);
  if (s.head_dim < 2 || s.head_dim > 1024 || s.head_dim % 2 != 0)
    keys.Corrupt("attention.key_length = " + std::to_string(s.head_dim) + " is out of range");
  if (keys.Integer("attention.value_length", s.head_dim) != s.head_dim)
    keys.Unsupported("keys and values of different sizes are not computed here");
  s.ffn = keys.Integer("feed_forward_length");
  s.max_positions = keys.Integer("context_length");
  s.norm_eps = keys.Number("attention.layer_norm_rms_epsilon");
  const auto embedding = in.tensors().find("token_embd.weight");
  if (embedding == in.tensors().end()) keys.Corrupt("has no tensor token_embd.weight");
  s.vocab = embedding->second.shape.front();
  s.tied = !keys.HasTensor("output.weight");
  ReadRope(keys, s);
  if (ministral && s.family == "ministral3") {
    s.rope.query_beta = keys.Number("attention.temperature_scale");
    s.rope.original_positions = keys.Integer("rope.scaling.original_context_length");
    if (s.rope.original_positions < 1)
      keys.Corrupt("rope.scaling.original_context_length is not positive");
  }
  if (s.family == "smollm3") {
    for (int64_t l = 0; l < s.layers; ++l) s.rotated.push_back((l + 1) % 4 != 0 ? 1 : 0);
  }
  ReadWindow(keys, s);
  ReadMultipliers(keys, s);
  ReadBiases(keys, s);
  const auto token = [&](const std::string& key) {
    const int64_t id = in.Integer("tokenizer.ggml." + key, -1);
    if (id < -1 || id >= s.vocab) keys.Corrupt("'" + key + "' is outside the vocabulary");
    return static_cast<int32_t>(id);
  };
  s.bos_token = token("bos_token_id");
  s.pad_token = token("padding_token_id");
  for (const char* key : {"eos_token_id", "eot_token_id", "eom_token_id"}) {
    const int32_t id = token(key);
    if (id >= 0 && std::count(s.eos_tokens.begin(), s.eos_tokens.end(), id) == 0)
      s.eos_tokens.push_back(id);
  }
  Validate(s, in.path());
  return s;
}

}  // namespace plumb::policy_model
