#include "policy_model/files/model_config.h"

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "common/file.h"
#include "common/log.h"
#include "policy_model/files/safetensors.h"
#include "policy_model/files/strict_json.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::ordered_json;
constexpr size_t kMaxConfigBytes = size_t{1} << 20;
constexpr int64_t kMaxDimension = int64_t{1} << 24;

Json ReadJson(const std::string& path) {
  Json j = ReadStrictJson(path, kMaxConfigBytes);
  if (!j.is_object()) throw Error(ErrorCode::kCorruption, "is not a JSON object", path);
  return j;
}

class Fields {
 public:
  Fields(const Json& j, std::string path) : j_(j), path_(std::move(path)) {}
  bool Has(const char* key) const { return j_.contains(key) && !j_.at(key).is_null(); }
  int64_t Int(const char* key) const {
    if (!Has(key)) throw Error(ErrorCode::kCorruption, std::string("has no '") + key + "'", path_);
    if (!j_.at(key).is_number_integer()) throw Error(ErrorCode::kCorruption, std::string("'") + key + "' is not a whole number", path_);
    return j_.at(key).get<int64_t>();
  }
  int64_t Int(const char* key, int64_t otherwise) const { return Has(key) ? Int(key) : otherwise; }
  double Number(const char* key, double otherwise) const {
    if (!Has(key)) return otherwise;
    if (!j_.at(key).is_number()) throw Error(ErrorCode::kCorruption, std::string("'") + key + "' is not a number", path_);
    return j_.at(key).get<double>();
  }
  bool Bool(const char* key, bool otherwise) const {
    if (!Has(key)) return otherwise;
    if (!j_.at(key).is_boolean()) throw Error(ErrorCode::kCorruption, std::string("'") + key + "' is not true or false", path_);
    return j_.at(key).get<bool>();
  }
  std::string Text(const char* key, const std::string& otherwise) const {
    if (!Has(key)) return otherwise;
    if (!j_.at(key).is_string()) throw Error(ErrorCode::kCorruption, std::string("'") + key + "' is not a text", path_);
    return j_.at(key).get<std::string>();
  }

 private:
  const Json& j_;
  std::string path_;
};

void AddEos(const Json& j, const std::string& path, std::vector<int32_t>& out) {
  if (!j.contains("eos_token_id") || j.at("eos_token_id").is_null()) return;
  const Json& eos = j.at("eos_token_id");
  const auto add = [&](const Json& id) {
    if (!id.is_number_integer()) throw Error(ErrorCode::kCorruption, "'eos_token_id' is not a token id", path);
    const auto value = id.get<int64_t>();
    if (value < 0 || value > kMaxDimension) throw Error(ErrorCode::kCorruption, "'eos_token_id' is out of range", path);
    for (int32_t known : out) {
      if (known == value) return;
    }
    out.push_back(static_cast<int32_t>(value));
  };
  if (eos.is_array()) {
    for (const Json& id : eos) add(id);
  } else {
    add(eos);
  }
}

// The folder's weights hold a head and an embedding that are not the same numbers. Only bytes are
// compared: types that differ are two tensors.
bool HasAnotherHead(const std::string& directory) {
  FileSystem& files = RealFileSystem();
  const std::string single = directory + "/model.safetensors";
  if (!files.Exists(single) && !files.Exists(single + ".index.json")) return false;
  const auto reader = SafetensorsReader::OpenDirectory(directory);
  const auto head = reader->tensors().find("lm_head.weight"),
             embedding = reader->tensors().find("model.embed_tokens.weight");
  if (head == reader->tensors().end() || embedding == reader->tensors().end()) return false;
  const TensorView &a = head->second, &b = embedding->second;
  return a.dtype != b.dtype || a.shape != b.shape ||
         std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) != 0;
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
      throw Error(ErrorCode::kInvalidArgument, std::string(name) + " = " + std::to_string(v) + " is out of range", where);
    }
  };
  if (!s.scalar_head || s.layers != 0) positive("layers", s.layers);  // a head of its own has none (weights.h)
  positive("hidden", s.hidden);
  positive("heads", s.heads);
  positive("kv_heads", s.kv_heads);
  positive("head_dim", s.head_dim);
  positive("ffn", s.ffn);
  positive("vocab", s.vocab);
  positive("max_positions", s.max_positions);
  const auto fail = [&](const std::string& what) { throw Error(ErrorCode::kInvalidArgument, what, where); };
  if (s.heads % s.kv_heads != 0) fail("kv_heads has to divide heads");
  if (s.head_dim % 2 != 0) fail("head_dim has to be even");
  if (s.head_dim > 1024 || s.heads > 4096 || s.layers > 4096) fail("the shape is larger than any model this computes");
  if (!(s.rope_theta > 0 && s.norm_eps > 0 && std::isfinite(s.rope_theta) && std::isfinite(s.norm_eps))) {
    fail("rope_theta and norm_eps have to be positive, finite numbers");
  }
  if (s.family != "llama" && s.family != "qwen2") fail("unknown model family '" + s.family + "'");
  for (int32_t id : s.eos_tokens) {
    if (id < 0 || id >= s.vocab) fail("the end-of-sequence token " + std::to_string(id) + " is outside the vocabulary");
  }
}

ModelShape ReadModelConfig(const std::string& directory) {
  const std::string path = directory + "/config.json";
  if (!RealFileSystem().Exists(path)) {
    throw Error(ErrorCode::kNotFound, "is not a model folder: it has no config.json (for a .gguf file: plumb convert)", directory);
  }
  const Json j = ReadJson(path);
  const Fields f(j, path);
  ModelShape s;
  const std::string type = f.Text("model_type", "llama");
  if (type == "llama" || type == "mistral") s.family = "llama";
  else if (type == "qwen2") s.family = "qwen2";
  else throw Error(ErrorCode::kUnsupported, "model_type '" + type + "' is not computed here; known: llama, mistral, qwen2", path);
  if (f.Text("hidden_act", "silu") != "silu") throw Error(ErrorCode::kUnsupported, "hidden_act '" + f.Text("hidden_act", "") + "' is not computed here, only silu", path);
  s.rope_theta = f.Number("rope_theta", 10000);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!f.Has(key)) continue;
    const Json& rope = j.at(key);
    std::string kind = rope.is_object() ? "default" : "?";
    for (const char* name : {"type", "rope_type"}) {
      if (rope.is_object() && rope.contains(name)) kind = rope.at(name).is_string() ? rope.at(name).get<std::string>() : "?";
    }
    if (kind != "default") throw Error(ErrorCode::kUnsupported, std::string(key) + " of type '" + kind + "' is not computed here", path);
    if (rope.contains("rope_theta") && rope.at("rope_theta").is_number()) s.rope_theta = rope.at("rope_theta").get<double>();
  }
  if (type == "mistral" && f.Has("sliding_window")) throw Error(ErrorCode::kUnsupported, "sliding_window is not computed here", path);
  if (f.Bool("use_sliding_window", false)) throw Error(ErrorCode::kUnsupported, "sliding windows are not computed here", path);
  if (f.Bool("mlp_bias", false)) throw Error(ErrorCode::kUnsupported, "mlp_bias is not computed here", path);
  if (type == "llama" && f.Bool("attention_bias", false)) throw Error(ErrorCode::kUnsupported, "attention_bias of llama models is not computed here", path);
  s.attention_bias = type == "qwen2";
  if (f.Has("architectures")) {
    const Json& names = j.at("architectures");
    if (!names.is_array() || names.empty() || !names[0].is_string()) {
      throw Error(ErrorCode::kCorruption, "'architectures' is not a list of names", path);
    }
    s.scalar_head = names[0].get<std::string>().ends_with("ForSequenceClassification");
  }
  if (s.scalar_head && f.Has("id2label") && j.at("id2label").size() != 1) {
    throw Error(ErrorCode::kUnsupported, "classifies into " + std::to_string(j.at("id2label").size()) +
                                             " labels; a reward model or critic has one (num_labels = 1)", path);
  }
  s.layers = f.Int("num_hidden_layers");
  if (s.layers < 1) throw Error(ErrorCode::kInvalidArgument, "layers = " + std::to_string(s.layers) + " is out of range", path);
  s.hidden = f.Int("hidden_size");
  s.heads = f.Int("num_attention_heads");
  // null: as many as heads; a missing key: the class's own number.
  const int64_t default_kv_heads = type == "mistral" ? 8 : type == "qwen2" ? 32 : s.heads;
  s.kv_heads =
      f.Int("num_key_value_heads", j.contains("num_key_value_heads") ? s.heads : default_kv_heads);
  if (s.heads <= 0) throw Error(ErrorCode::kCorruption, "num_attention_heads is not positive", path);
  s.head_dim = f.Int("head_dim", s.hidden / s.heads);
  s.ffn = f.Int("intermediate_size");
  s.vocab = f.Int("vocab_size");
  s.max_positions = f.Int("max_position_embeddings", type == "mistral" ? 131072
                                                     : type == "qwen2" ? 32768
                                                                       : 2048);
  s.norm_eps = f.Number("rms_norm_eps", 1e-6);
  s.tied = f.Bool("tie_word_embeddings", false);  // the default of each family's class
  const auto token = [&](const char* key) {
    const int64_t id = f.Int(key, -1);
    if (id < -1 || id >= s.vocab) throw Error(ErrorCode::kCorruption, std::string("'") + key + "' is outside the vocabulary", path);
    return static_cast<int32_t>(id);
  };
  s.bos_token = token("bos_token_id");
  s.pad_token = token("pad_token_id");
  AddEos(j, path, s.eos_tokens);
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

void WriteModelConfig(const ModelShape& s, const std::string& directory, const std::string& torch_dtype) {
  Validate(s, directory);
  const bool qwen = s.family == "qwen2";
  const std::string head = s.scalar_head ? "ForSequenceClassification" : "ForCausalLM";
  Json j = {{"architectures", {(qwen ? "Qwen2" : "Llama") + head}},
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
            {"rope_theta", s.rope_theta},
            {"tie_word_embeddings", s.tied},
            {"torch_dtype", torch_dtype}};
  if (s.scalar_head) {  // the number of labels is the length of this map; the default would be two
    j["id2label"] = {{"0", "LABEL_0"}};
    j["label2id"] = {{"LABEL_0", 0}};
  }
  Json generation = {{"do_sample", true}};
  if (s.bos_token >= 0) j["bos_token_id"] = generation["bos_token_id"] = s.bos_token;
  if (s.pad_token >= 0) j["pad_token_id"] = generation["pad_token_id"] = s.pad_token;
  if (s.eos_tokens.size() == 1) j["eos_token_id"] = generation["eos_token_id"] = s.eos_tokens[0];
  else if (!s.eos_tokens.empty()) j["eos_token_id"] = generation["eos_token_id"] = s.eos_tokens;
  RealFileSystem().WriteFileAtomic(directory + "/config.json", j.dump(2) + "\n");
  RealFileSystem().WriteFileAtomic(directory + "/generation_config.json", generation.dump(2) + "\n");
}

}  // namespace plumb::policy_model
