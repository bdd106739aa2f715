// Shape of a transformer, as `config.json` says it.
//
// Thread safety: plain values. Errors: kInvalidArgument / kCorruption with file and key.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace plumb::policy_model {

// Dense Llama-type decoder. Dimensions: L layers, H hidden, Nq/Nkv query and KV heads, D head_dim, F ffn, V vocabulary.
struct ModelShape {
  std::string family = "llama";   // "llama" | "qwen2" (attention_bias)
  int64_t layers = 0;             // L
  int64_t hidden = 0;             // H
  int64_t heads = 0;              // Nq
  int64_t kv_heads = 0;           // Nkv, divides heads
  int64_t head_dim = 0;           // D, even
  int64_t ffn = 0;                // F
  int64_t vocab = 0;              // V
  int64_t max_positions = 0;
  double rope_theta = 10000;
  double norm_eps = 1e-5;
  bool tied = true;               // LM head is the embedding
  bool attention_bias = false;    // q, k, v have biases
  bool scalar_head = false;       // one number a row (reward model, critic) instead of an LM head
  int32_t bos_token = -1;
  std::vector<int32_t> eos_tokens;
  int32_t pad_token = -1;
  // Rows of the head that are no token (ascending; from the tokenizer, config.json does not say):
  // they are never sampled, and log-probs are over the others. Embeddings are often padded to a
  // round number of rows.
  std::vector<int32_t> unused_tokens;
  bool operator==(const ModelShape&) const = default;

  int64_t qkv_width() const { return (heads + 2 * kv_heads) * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
  // Where a model with a scalar head scores a sequence: at the last token that is not pad_token, as transformers does; the end
  // token is none where a folder pads with it. The first of nothing but padding. REQUIRES: not empty.
  int32_t ScoredPosition(std::span<const int32_t> tokens) const;
};

// Throws unless every dimension is positive, heads divide, head_dim is even, sizes do not overflow.
void Validate(const ModelShape& shape, const std::string& where);

// `directory`/config.json (and generation_config.json for end tokens when present). Refuses
// rope_scaling, sliding windows, activation functions and architectures that this build does not
// compute, by name. What a file leaves out is what transformers takes for its model_type. Where the
// config ties the head to the embedding and the folder's weights hold another head, the shape is
// untied, with a warning, as transformers does.
ModelShape ReadModelConfig(const std::string& directory);
// Writes config.json (and generation_config.json) that transformers reads; atomic.
void WriteModelConfig(const ModelShape& shape, const std::string& directory, const std::string& torch_dtype);

}  // namespace plumb::policy_model
