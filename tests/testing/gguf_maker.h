// GGUF files put together piece by piece, for tests.
// Thread safety: values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace plumb::testing {

// Types of values in the file.
inline constexpr uint32_t kGgufU32 = 4, kGgufI32 = 5, kGgufF32 = 6, kGgufString = 8, kGgufArray = 9;

template <class T>
std::string Raw(T v) {
  return std::string(reinterpret_cast<const char*>(&v), sizeof v);
}
inline std::string GgufText(const std::string& s) { return Raw<uint64_t>(s.size()) + s; }

// Puts a file together piece by piece.
struct GgufMaker {
  std::string values, infos, data;
  uint64_t value_count = 0, tensor_count = 0;

  void Value(const std::string& key, uint32_t type, const std::string& bytes) {
    values += GgufText(key) + Raw(type) + bytes;
    ++value_count;
  }
  void Integer(const std::string& key, uint32_t v) { Value(key, kGgufU32, Raw(v)); }
  void Word(const std::string& key, const std::string& v) { Value(key, kGgufString, GgufText(v)); }
  void Words(const std::string& key, const std::vector<std::string>& list) {
    std::string bytes = Raw(kGgufString) + Raw<uint64_t>(list.size());
    for (const std::string& s : list) bytes += GgufText(s);
    Value(key, kGgufArray, bytes);
  }
  void Tensor(const std::string& name, std::vector<uint64_t> dimensions, uint32_t type,
              const std::string& bytes) {
    infos += GgufText(name) + Raw<uint32_t>(static_cast<uint32_t>(dimensions.size()));
    for (uint64_t d : dimensions) infos += Raw(d);
    infos += Raw(type) + Raw<uint64_t>(data.size());
    data += bytes;
    data.resize((data.size() + 31) / 32 * 32);
    ++tensor_count;
  }
  std::string File() const {
    std::string out =
        "GGUF" + Raw<uint32_t>(3) + Raw(tensor_count) + Raw(value_count) + values + infos;
    out.resize((out.size() + 31) / 32 * 32);
    return out + data;
  }
};

inline std::string Floats(size_t n, float start) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += Raw(start + static_cast<float>(i));
  return out;
}

// One layer, H = 8, two query heads and one KV head of 4, ffn 6; all bytes of the byte-level
// alphabet and two tags.
inline GgufMaker TinyGguf(const std::string& arch = "llama", bool by_scores = false) {
  GgufMaker m;
  m.Word("general.architecture", arch);
  m.Integer(arch + ".block_count", 1);
  m.Integer(arch + ".context_length", 64);
  m.Integer(arch + ".embedding_length", 8);
  m.Integer(arch + ".feed_forward_length", 6);
  m.Integer(arch + ".attention.head_count", 2);
  m.Integer(arch + ".attention.head_count_kv", 1);
  m.Value(arch + ".rope.freq_base", kGgufF32, Raw(5000.0f));
  m.Value(arch + ".attention.layer_norm_rms_epsilon", kGgufF32, Raw(1e-5f));
  m.Word("tokenizer.ggml.model", by_scores ? "llama" : "gpt2");
  if (!by_scores) m.Word("tokenizer.ggml.pre", "smollm");
  m.Words("tokenizer.ggml.tokens", {"<s>", "<e>", "a", "b", "ab", "\u0120", "1"});
  m.Value("tokenizer.ggml.token_type", kGgufArray, [] {
    std::string out = Raw(kGgufI32) + Raw<uint64_t>(7);
    for (int32_t type : {3, 3, 1, 1, 1, 1, 1}) out += Raw(type);
    return out;
  }());
  if (by_scores) {
    std::string scores = Raw(kGgufF32) + Raw<uint64_t>(7);
    for (int i = 0; i < 7; ++i) scores += Raw(static_cast<float>(-i));
    m.Value("tokenizer.ggml.scores", kGgufArray, scores);
  } else {
    m.Words("tokenizer.ggml.merges", {"a b"});
  }
  m.Integer("tokenizer.ggml.bos_token_id", 0);
  m.Integer("tokenizer.ggml.eos_token_id", 1);
  m.Word("tokenizer.chat_template", "{{ bos_token }}{{ messages[0].content }}");
  m.Tensor("token_embd.weight", {8, 7}, 0, Floats(56, 0));
  m.Tensor("blk.0.attn_norm.weight", {8}, 0, Floats(8, 1));
  m.Tensor("blk.0.attn_q.weight", {8, 8}, 0, Floats(64, 100));
  m.Tensor("blk.0.attn_k.weight", {8, 4}, 0, Floats(32, 200));
  m.Tensor("blk.0.attn_v.weight", {8, 4}, 0, Floats(32, 300));
  m.Tensor("blk.0.attn_output.weight", {8, 8}, 0, Floats(64, 400));
  m.Tensor("blk.0.ffn_norm.weight", {8}, 0, Floats(8, 2));
  m.Tensor("blk.0.ffn_gate.weight", {8, 6}, 0, Floats(48, 500));
  m.Tensor("blk.0.ffn_up.weight", {8, 6}, 0, Floats(48, 600));
  m.Tensor("blk.0.ffn_down.weight", {6, 8}, 0, Floats(48, 700));
  m.Tensor("output_norm.weight", {8}, 0, Floats(8, 3));
  if (arch == "qwen2") {
    m.Tensor("blk.0.attn_q.bias", {8}, 0, Floats(8, 10));
    m.Tensor("blk.0.attn_k.bias", {4}, 0, Floats(4, 20));
    m.Tensor("blk.0.attn_v.bias", {4}, 0, Floats(4, 30));
  }
  return m;
}
// The same with SentencePiece's kind of tokenizer.
inline GgufMaker TinySentencePieceGguf() { return TinyGguf("llama", true); }

}  // namespace plumb::testing
