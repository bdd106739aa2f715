#include "policy_model/families/gguf.h"

#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/text/template/chat_template.h"
#include "common/text/tokenizer/tokenizer.h"
#include "common/text/unicode.h"
#include "policy_model/families/model_config.h"
#include "policy_model/files/gguf_reader.h"
#include "policy_model/files/safetensors.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::ordered_json;

// The double that the shortest decimal text of the float stands for: 1e-5f was written as 1e-05,
// not 9.99999974e-06.
double Decimal(double stored) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, static_cast<float>(stored)).ptr;
  double out = stored;
  std::from_chars(text, end, out);
  return out;
}

ModelShape ShapeOf(const GgufReader& in) {
  const std::string arch = in.Text("general.architecture");
  if (arch != "llama" && arch != "qwen2") {
    throw Error(ErrorCode::kUnsupported,
                "architecture '" + arch + "' is not computed here; known: llama, qwen2", in.path());
  }
  if (in.Text(arch + ".rope.scaling.type", "none") != "none" ||
      in.tensors().count("rope_freqs.weight")) {
    throw Error(ErrorCode::kUnsupported, "scaled rotary positions are not computed here",
                in.path());
  }
  if (in.Integer(arch + ".expert_count", 0) > 0)
    throw Error(ErrorCode::kUnsupported, "mixtures of experts are not computed here", in.path());
  ModelShape s;
  s.family = arch;
  s.attention_bias = arch == "qwen2";
  s.layers = in.Integer(arch + ".block_count");
  s.hidden = in.Integer(arch + ".embedding_length");
  s.heads = in.Integer(arch + ".attention.head_count");
  s.kv_heads = in.Integer(arch + ".attention.head_count_kv", s.heads);
  if (s.heads <= 0 || s.hidden <= 0)
    throw Error(ErrorCode::kCorruption, "head_count or embedding_length is not positive",
                in.path());
  s.head_dim = in.Integer(arch + ".attention.key_length", s.hidden / s.heads);
  s.ffn = in.Integer(arch + ".feed_forward_length");
  s.max_positions = in.Integer(arch + ".context_length");
  s.rope_theta = Decimal(in.Number(arch + ".rope.freq_base", 10000.0));
  s.norm_eps = Decimal(in.Number(arch + ".attention.layer_norm_rms_epsilon"));
  if (in.Integer(arch + ".rope.dimension_count", s.head_dim) != s.head_dim) {
    throw Error(ErrorCode::kUnsupported,
                "rotary positions on a part of a head are not computed here", in.path());
  }
  const auto embedding = in.tensors().find("token_embd.weight");
  if (embedding == in.tensors().end())
    throw Error(ErrorCode::kCorruption, "has no tensor token_embd.weight", in.path());
  s.vocab = embedding->second.shape.front();
  s.tied = !in.tensors().count("output.weight");
  const auto token = [&](const std::string& key) {
    const int64_t id = in.Integer("tokenizer.ggml." + key, -1);
    if (id < -1 || id >= s.vocab)
      throw Error(ErrorCode::kCorruption, "'" + key + "' is outside the vocabulary", in.path());
    return static_cast<int32_t>(id);
  };
  s.bos_token = token("bos_token_id");
  s.pad_token = token("padding_token_id");
  for (const char* key : {"eos_token_id", "eot_token_id"}) {
    const int32_t id = token(key);
    if (id >= 0 && (s.eos_tokens.empty() || s.eos_tokens[0] != id)) s.eos_tokens.push_back(id);
  }
  Validate(s, in.path());
  return s;
}

struct Source {
  const GgufTensor* tensor;
  int64_t heads;  // of a matrix whose rows were permuted, 0 for the others
};

class TensorList {
 public:
  TensorList(const GgufReader& in, DType dtype) : in_(in), dtype_(dtype) {}

  void Add(const std::string& from, const std::string& to, std::vector<int64_t> shape,
           int64_t heads = 0) {
    const auto it = in_.tensors().find(from);
    if (it == in_.tensors().end())
      throw Error(ErrorCode::kCorruption, "has no tensor " + from, in_.path());
    if (it->second.shape != shape)
      throw Error(ErrorCode::kCorruption, "tensor " + from + " has another shape than the keys say",
                  in_.path());
    ++used_;
    const Source source{&it->second, heads};
    out_.push_back(
        {to, dtype_, std::move(shape),
         [source, dtype = dtype_](std::span<std::byte> bytes) { Fill(source, dtype, bytes); }});
  }
  const std::vector<TensorToWrite>& Done() const {
    if (used_ != in_.tensors().size()) {
      throw Error(ErrorCode::kUnsupported,
                  "has " + std::to_string(in_.tensors().size() - used_) +
                      " tensors that a dense Llama-type decoder does not have",
                  in_.path());
    }
    return out_;
  }

 private:
  static void Fill(const Source& source, DType dtype, std::span<std::byte> out) {
    const GgufTensor& t = *source.tensor;
    const int64_t columns = t.shape.back();
    const int64_t rows = t.shape.size() == 1 ? 1 : t.shape[0];
    const auto row_bytes = static_cast<size_t>(static_cast<int64_t>(t.bytes.size()) / rows);
    std::vector<float> row(static_cast<size_t>(columns));
    for (int64_t r = 0; r < rows; ++r) {
      Dequantize(t.type, t.bytes.subspan(static_cast<size_t>(r) * row_bytes, row_bytes), row);
      // The file interleaves the two halves of a head that rotate together: row (j, half) of a head
      // is (half, j) in HF.
      int64_t to = r;
      if (source.heads > 0) {
        const int64_t dim = rows / source.heads, within = r % dim;
        to = r - within + within % 2 * (dim / 2) + within / 2;
      }
      const size_t at = static_cast<size_t>(to * columns);
      if (dtype == DType::kFloat32) {
        std::memcpy(out.data() + at * 4, row.data(), row.size() * 4);
      } else {
        for (size_t i = 0; i < row.size(); ++i) {
          const BFloat16 v = ToBFloat16(row[i]);
          std::memcpy(out.data() + (at + i) * 2, &v, 2);
        }
      }
    }
  }

  const GgufReader& in_;
  DType dtype_;
  size_t used_ = 0;
  std::vector<TensorToWrite> out_;
};

void AddTensors(const ModelShape& s, TensorList& list) {
  const int64_t q = s.heads * s.head_dim, kv = s.kv_width();
  const bool permuted = s.family == "llama";
  list.Add("token_embd.weight", "model.embed_tokens.weight", {s.vocab, s.hidden});
  for (int64_t l = 0; l < s.layers; ++l) {
    const std::string from = "blk." + std::to_string(l) + ".",
                      to = "model.layers." + std::to_string(l) + ".";
    list.Add(from + "attn_norm.weight", to + "input_layernorm.weight", {s.hidden});
    list.Add(from + "attn_q.weight", to + "self_attn.q_proj.weight", {q, s.hidden},
             permuted ? s.heads : 0);
    list.Add(from + "attn_k.weight", to + "self_attn.k_proj.weight", {kv, s.hidden},
             permuted ? s.kv_heads : 0);
    list.Add(from + "attn_v.weight", to + "self_attn.v_proj.weight", {kv, s.hidden});
    if (s.attention_bias) {
      list.Add(from + "attn_q.bias", to + "self_attn.q_proj.bias", {q});
      list.Add(from + "attn_k.bias", to + "self_attn.k_proj.bias", {kv});
      list.Add(from + "attn_v.bias", to + "self_attn.v_proj.bias", {kv});
    }
    list.Add(from + "attn_output.weight", to + "self_attn.o_proj.weight", {s.hidden, q});
    list.Add(from + "ffn_norm.weight", to + "post_attention_layernorm.weight", {s.hidden});
    list.Add(from + "ffn_gate.weight", to + "mlp.gate_proj.weight", {s.ffn, s.hidden});
    list.Add(from + "ffn_up.weight", to + "mlp.up_proj.weight", {s.ffn, s.hidden});
    list.Add(from + "ffn_down.weight", to + "mlp.down_proj.weight", {s.hidden, s.ffn});
  }
  list.Add("output_norm.weight", "model.norm.weight", {s.hidden});
  if (!s.tied) list.Add("output.weight", "lm_head.weight", {s.vocab, s.hidden});
}

Json PreTokenizerJson(const std::string& name, const std::string& where) {
  const auto byte_level = [](bool use_regex) {
    return Json{{"type", "ByteLevel"},
                {"add_prefix_space", false},
                {"trim_offsets", true},
                {"use_regex", use_regex}};
  };
  const auto sequence = [](Json first, Json second) {
    return Json{{"type", "Sequence"},
                {"pretokenizers", Json::array({std::move(first), std::move(second)})}};
  };
  const auto split = [](const char* digits) {
    const std::string regex = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)" +
                              std::string(digits) +
                              R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    return Json{{"type", "Split"},
                {"pattern", {{"Regex", regex}}},
                {"behavior", "Isolated"},
                {"invert", false}};
  };
  if (name == "smollm")
    return sequence(Json{{"type", "Digits"}, {"individual_digits", true}}, byte_level(true));
  if (name == "gpt-2") return byte_level(true);
  if (name == "qwen2") return sequence(split(R"(\p{N})"), byte_level(false));
  if (name == "llama-bpe" || name == "llama3")
    return sequence(split(R"(\p{N}{1,3})"), byte_level(false));
  throw Error(
      ErrorCode::kUnsupported,
      "pre-tokenizer '" + name + "' is not known here; smollm, gpt-2, qwen2 and llama-bpe are",
      where);
}

std::string TokenizerJson(const GgufReader& in, const ModelShape& s) {
  if (in.Text("tokenizer.ggml.model") != "gpt2") {
    throw Error(ErrorCode::kUnsupported,
                "tokenizer '" + in.Text("tokenizer.ggml.model") +
                    "' is not known here, only gpt2 (byte-level BPE)",
                in.path());
  }
  const std::string pre = in.Text("tokenizer.ggml.pre");
  const auto& tokens = in.Texts("tokenizer.ggml.tokens");
  const auto& types = in.Integers("tokenizer.ggml.token_type");
  if (tokens.size() != types.size() || static_cast<int64_t>(tokens.size()) > s.vocab) {
    throw Error(ErrorCode::kCorruption, "the tokenizer's lists and the embedding differ in length",
                in.path());
  }
  constexpr int64_t kControl = 3, kUserDefined = 4, kUnused = 5;
  Json vocab = Json::object(), added = Json::array();
  // appended: a look-up an entry would be quadratic
  auto& entries = vocab.get_ref<Json::object_t&>();
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!IsUtf8(tokens[id]))
      throw Error(ErrorCode::kCorruption, "token " + std::to_string(id) + " is not valid UTF-8",
                  in.path());
    if (types[id] != kUnused) entries.Json::object_t::Container::emplace_back(tokens[id], Json(id));
    if (types[id] == kControl || types[id] == kUserDefined) {
      added.push_back({{"id", id},
                       {"content", tokens[id]},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", types[id] == kControl}});
    }
  }
  for (const std::string& merge : in.Texts("tokenizer.ggml.merges")) {
    if (!IsUtf8(merge))
      throw Error(ErrorCode::kCorruption, "a merge is not valid UTF-8", in.path());
  }
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  const Json j = {{"version", "1.0"},
                  {"truncation", nullptr},
                  {"padding", nullptr},
                  {"added_tokens", added},
                  {"normalizer", pre == "qwen2" ? Json{{"type", "NFC"}} : Json(nullptr)},
                  {"pre_tokenizer", PreTokenizerJson(pre, in.path())},
                  {"post_processor", byte_level},
                  {"decoder", byte_level},
                  {"model",
                   {{"type", "BPE"},
                    {"dropout", nullptr},
                    {"unk_token", nullptr},
                    {"continuing_subword_prefix", nullptr},
                    {"end_of_word_suffix", nullptr},
                    {"fuse_unk", false},
                    {"byte_fallback", false},
                    {"ignore_merges", pre == "llama-bpe" || pre == "llama3"},
                    {"vocab", std::move(vocab)},
                    {"merges", in.Texts("tokenizer.ggml.merges")}}}};
  return j.dump(1) + "\n";
}

std::string TokenizerConfigJson(const GgufReader& in, const ModelShape& s) {
  const auto& tokens = in.Texts("tokenizer.ggml.tokens");
  const auto text = [&](int64_t id) {
    return id >= 0 && id < static_cast<int64_t>(tokens.size())
               ? Json(tokens[static_cast<size_t>(id)])
               : Json(nullptr);
  };
  const Json j = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                  {"clean_up_tokenization_spaces", false},
                  {"model_max_length", s.max_positions},
                  {"bos_token", text(s.bos_token)},
                  {"eos_token", text(s.eos_tokens.empty() ? -1 : s.eos_tokens[0])},
                  {"pad_token", text(s.pad_token)},
                  {"unk_token", text(in.Integer("tokenizer.ggml.unknown_token_id", -1))}};
  return j.dump(2) + "\n";
}

}  // namespace

void ConvertGguf(const std::string& gguf, const std::string& directory, DType dtype,
                 bool overwrite) {
  if (dtype != DType::kFloat32 && dtype != DType::kBFloat16) {
    throw Error(ErrorCode::kInvalidArgument, "weights are written as float32 or bfloat16", gguf);
  }
  // All of the input is read and checked before the first file is written or removed;
  // config.json, which makes the folder a model, comes last.
  const auto in = GgufReader::Open(gguf);
  const ModelShape shape = ShapeOf(*in);
  TensorList list(*in, dtype);
  AddTensors(shape, list);
  const auto& tensors = list.Done();
  const std::string tokenizer = TokenizerJson(*in, shape);
  Tokenizer::Parse(tokenizer, gguf + ": its tokenizer");
  const std::string chat = in->Text("tokenizer.chat_template", "");
  if (!IsUtf8(chat))
    throw Error(ErrorCode::kCorruption, "the chat template is not valid UTF-8", gguf);
  if (!chat.empty()) ChatTemplate::Parse(chat, "", "");
  FileSystem& files = RealFileSystem();
  for (const char* name :
       {"/config.json", "/model.safetensors", "/model.safetensors.index.json", "/tokenizer.json"}) {
    if (!files.Exists(directory + name)) continue;
    if (!overwrite)
      throw Error(ErrorCode::kConflict,
                  "there is a model already: choose another folder or ask for overwriting",
                  directory);
    files.Remove(directory + name);
  }
  files.CreateDirectories(directory);
  WriteSafetensors(directory + "/model.safetensors", tensors, {{"format", "pt"}});
  files.WriteFileAtomic(directory + "/tokenizer.json", tokenizer);
  files.WriteFileAtomic(directory + "/tokenizer_config.json", TokenizerConfigJson(*in, shape));
  if (in->Has("tokenizer.chat_template")) {
    files.WriteFileAtomic(directory + "/chat_template.jinja", chat);
  }
  WriteModelConfig(shape, directory, dtype == DType::kFloat32 ? "float32" : "bfloat16");
}

}  // namespace plumb::policy_model
