// What config.json says about a transformer: the dimensions and switches of all families, in one
// plain struct.
//
// What a model computes from it is the family's business (family.h turns a shape into a ModelPlan).
// Thread safety: plain values. Errors: Validate throws kInvalidArgument with the place that it is
// given.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "policy_model/families/hybrid/state_layers.h"

namespace plumb::policy_model {

// Do not change the values of existing entries.
enum class RopeKind : uint8_t {
  kDefault = 0,
  kLinear = 1,
  kDynamic = 2,
  kLlama3 = 3,
  kYarn = 4,
  kLongRope = 5
};

// How the frequencies of rotary positions are stretched for longer contexts; keys of `rope_scaling`
// / `rope_parameters`.
struct RopeScaling {
  RopeKind kind = RopeKind::kDefault;
  double factor = 1;  // longrope: 0: stretched / original positions
  // llama3, yarn, longrope: length of the pretraining; 0: max_positions
  int64_t original_positions = 0;
  double low_freq = 1, high_freq = 4;     // llama3
  double beta_fast = 32, beta_slow = 1;   // yarn
  double attention_factor = 0;            // yarn, longrope; 0: follows from factor (and mscale)
  double mscale = 0, mscale_all_dim = 0;  // yarn
  bool truncate = true;                   // yarn: whole dimensions at the ends of the ramp
  // longrope: a divisor for each frequency, in a model that computes nothing longer than
  // original_positions and in one that does; the config's max_position_embeddings
  std::vector<double> short_factor, long_factor;
  int64_t stretched_positions = 0;
  // ministral3: queries at position p are scaled by 1 + query_beta ln(1 + floor(p / original));
  // 0: they are not
  double query_beta = 0;
  bool operator==(const RopeScaling&) const = default;
};

// Feed-forward parts as mixtures of experts (ExpertsSpec of layer_spec.h has what a layer
// computes).
struct ExpertsShape {
  int64_t count = 0;            // a layer; 0: the model is dense
  std::vector<int64_t> widths;  // of the experts in order, repeated from the first
  int64_t per_token = 0;
  std::vector<uint8_t> dense;  // [L] 1: the layer has none; empty: all have
  bool sigmoid = false;        // scores; else softmax
  bool renormalize = true;
  double temperature = 1;
  double scale = 1;  // of a token's weights (routed_scaling_factor)
  int64_t groups = 1, groups_per_token = 1;
  int64_t group_best = 2;  // 1: a group counts as its best expert does, 2: as its two best
  bool bias = false;
  bool biased = false;  // as ExpertsSpec, as the next two
  double glu_alpha = 0, glu_limit = 0;
  int64_t shared_ffn = 0;
  bool shared_gate = false;
  // The files hold one tensor for all experts of a layer ([experts, rows, columns]), not one each.
  bool fused = false;
  double aux_coef = 0;  // of the balancing loss: router_aux_loss_coef, kept for other readers
  // Of a share of the model (experts/expert_share.h): the experts whose matrices are here; 0: all.
  int64_t first_here = 0, here = 0;
  bool operator==(const ExpertsShape&) const = default;

  bool of(int64_t layer) const {
    return count > 0 && (dense.empty() || dense[static_cast<size_t>(layer)] == 0);
  }
  int64_t width(int64_t expert) const {
    return widths[static_cast<size_t>(expert) % widths.size()];
  }
};

// Attention whose keys and values follow from one vector a token, the latent
// (kernels/latent/latent_heads.h). A head of queries and keys is `nope` elements without positions
// and `rope` with them.
struct LatentShape {
  int64_t kv_rank = 0;     // of that vector; 0: keys and values are products of the hidden state
  int64_t query_rank = 0;  // queries go through as many numbers; 0: they do not
  int64_t nope = 0, rope = 0, value = 0;
  bool interleaved = true;  // elements 2 i and 2 i + 1 turn together
  double norm_eps = 1e-6;   // of the norms of both vectors
  bool operator==(const LatentShape&) const = default;

  bool there() const { return kv_rank > 0; }
  // Elements of a head as packed attention sees it, filled up with zeros.
  int64_t head() const { return ((nope + rope > value ? nope + rope : value) + 1) / 2 * 2; }
  int64_t cached() const { return kv_rank + rope; }  // numbers that are kept of a token
};

// A table of keys and values that layers attend to besides (memory/key_table.h). Where it lies is
// not what it is: the digest says that.
inline constexpr char kTableFile[] = "memory_table.safetensors";  // in a model's folder
struct KeyTableShape {
  std::string path;
  int64_t rows = 0;    // 0: there is none
  std::string digest;  // SHA-256 of the file
  bool operator==(const KeyTableShape& other) const {
    return rows == other.rows && digest == other.digest;
  }

  bool there() const { return rows > 0; }
};

// Dimensions: L layers, H hidden, Nq/Nkv query and KV heads, D head_dim, F ffn, V vocabulary.
struct ModelShape {
  std::string family = "llama";  // the config's model_type; the table in family.cc
  int64_t layers = 0;            // L
  int64_t hidden = 0;            // H
  int64_t heads = 0;             // Nq
  int64_t kv_heads = 0;          // Nkv, divides heads
  int64_t head_dim = 0;          // D, even
  int64_t ffn = 0;               // F
  int64_t vocab = 0;             // V
  int64_t max_positions = 0;
  double rope_theta = 10000;
  double norm_eps = 1e-5;
  bool tied = true;             // LM head is the embedding
  bool attention_bias = false;  // q, k, v have biases
  bool output_bias = false;     // so has o
  bool qk_norm = false;         // glm4_moe: q and k are normed head by head
  bool mlp_bias = false;        // gate, up and down have biases
  bool sinks = false;           // a learned logit a head in every softmax of attention
  bool scalar_head = false;     // one number a row (reward model, critic) instead of an LM head
  RopeScaling rope;
  double rotated_share = 1;     // of a head's dimensions (partial_rotary_factor)
  double local_rope_theta = 0;  // of sliding layers, unscaled; 0: they turn as the others do
  double attention_scale = 0;   // of the scores; 0: D^-1/2
  double embedding_scale = 1;   // granite: of the embedding's rows,
  double residual_scale = 1;    // of what a branch adds to the residual stream,
  double logit_divisor = 1;     // and what the logits are divided by
  // tokens that a sliding layer sees, the own included; 0: no layer slides
  int64_t window = 0;
  // [L] 1: the layer sees `window` tokens; empty: all do when window > 0
  std::vector<uint8_t> sliding;
  int64_t global_every = 0;  // plumb: of sliding layers, as LayerSpec::global_every
  int64_t gate_top_k = 0;    // plumb: of sliding layers, as LayerSpec::gate_top_k
  KeyTableShape table;       // plumb
  // plumb: [L] 1: the layer sees the table; empty: none does
  std::vector<uint8_t> sees_table;
  // plumb: [L] 1: the layer's norms are LayerNorms; empty: none is
  std::vector<uint8_t> layer_norms;
  bool final_layer_norm = false;  // plumb: so is the one in front of the head
  std::vector<uint8_t> rotated;   // [L] 0: the layer has no positions; empty: all have
  ExpertsShape experts;
  LatentShape latent;           // where it is there, kv_heads is heads and head_dim latent.head()
  HybridShape hybrid;           // layers with states in the place of attention
  bool attention_gate = false;  // LayerSpec::attention_gate of all others
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
  // Of the pages: heads, and numbers of each; of latent attention there is one vector a token,
  // which is key and value.
  int64_t cache_heads() const { return latent.there() ? 1 : kv_heads; }
  int64_t cache_dim() const { return latent.there() ? latent.cached() : head_dim; }
  // Numbers that a layer keeps of a token.
  int64_t cache_width() const { return (latent.there() ? 1 : 2) * cache_heads() * cache_dim(); }
  // Layers that have keys and values.
  int64_t paged_layers() const { return layers - hybrid.count(); }
  // Dimensions of a head that rotate; even.
  int64_t rotated_dims() const {
    if (latent.there()) return latent.rope;
    return static_cast<int64_t>(static_cast<double>(head_dim) * rotated_share) / 2 * 2;
  }
  // Where a model with a scalar head scores a sequence: at the last token that is not pad_token, as
  // transformers does; the end token is none where a folder pads with it. The first of nothing but
  // padding. REQUIRES: not empty.
  int32_t ScoredPosition(std::span<const int32_t> tokens) const;
  bool slides(int64_t layer) const {
    return window > 0 && (sliding.empty() || sliding[static_cast<size_t>(layer)] != 0);
  }
  bool rotates(int64_t layer) const {
    return rotated.empty() || rotated[static_cast<size_t>(layer)] != 0;
  }
};

// Throws unless the family is known, every dimension is positive, heads divide, head_dim is even,
// sizes do not overflow.
void Validate(const ModelShape& shape, const std::string& where);

}  // namespace plumb::policy_model
