// What a model computes, layer by layer: the only form in which stages see a family.
//
// A layer is two branches on the residual stream x, attention and feed-forward, each of the form
//   x += behind(f(before(x)))
// where `before` and `behind` are norms that a family has or has not, and what is added may be
// scaled. Layers of one model may differ in all of it; head counts and head size are the model's,
// because all layers share the pages of one KV cache. Thread safety: plain values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "policy_model/families/hybrid/state_layers.h"

namespace plumb::policy_model {

enum class QkNorm : uint8_t {
  kNone,
  kPerHead,    // weights of one head's size, each head by itself
  kFullWidth,  // weights of all heads' size, all heads together
};

enum class NormKind : uint8_t {
  kRms,    // weights
  kLayer,  // weights and biases; only before a branch and in front of the head
};

enum class FfnActivation : uint8_t { kSilu, kGeluTanh };

// What makes scores of the router's logits.
enum class RouterScore : uint8_t { kSoftmax, kSigmoid };

// A feed-forward part as a mixture of experts: a token goes through `per_token` of them.
struct ExpertsSpec {
  std::vector<int64_t> widths;  // [experts]; empty: the layer is dense
  int64_t per_token = 0;
  RouterScore score = RouterScore::kSoftmax;
  bool renormalize = true;  // the weights of a token's experts add up to 1
  double temperature = 1;   // of the logits
  double scale = 1;         // of the weights
  // of experts, one behind the other; a token's experts come from groups_per_token of them
  int64_t groups = 1, groups_per_token = 1;
  int64_t group_best = 2;    // its best experts, by whose scores a group is chosen: 1 or 2
  bool bias = false;         // is added to the scores by which experts are chosen
  int64_t shared_ffn = 0;    // of what every token goes through besides; 0: nothing
  bool shared_gate = false;  // that is weighed by sigmoid(gate x)
  // The router's logits, gate and up, and down have biases.
  bool biased = false;
  // gpt-oss' gated unit (kernels/experts.h); 0: act(gate) * up
  double glu_alpha = 0, glu_limit = 0;
  // Those whose matrices are here, where ranks share them out; 0: all.
  int64_t first_here = 0, some_here = 0;

  int64_t count() const { return static_cast<int64_t>(widths.size()); }
  int64_t here() const { return some_here > 0 ? some_here : count(); }
  bool there() const { return !widths.empty(); }
  int64_t widest() const { return there() ? *std::max_element(widths.begin(), widths.end()) : 0; }
  bool equal() const { return std::equal(widths.begin() + 1, widths.end(), widths.begin()); }
};

struct LayerSpec {
  // Norms of both branches.
  NormKind norm = NormKind::kRms;
  bool norm_before = true;
  bool norm_behind = false;
  double residual_scale = 1;  // of what either branch adds
  // Attention.
  bool latent = false;         // of the kind and sizes of ModelShape::latent
  double attention_scale = 0;  // of the scores
  int64_t window = 0;          // tokens that a token sees, itself included; 0: all before it
  int64_t global_every = 0;    // under a window: positions divided by it are seen by all; 0: none
  // Under a window: so many tokens before it, which a learned gate chooses, are seen besides.
  int64_t gate_top_k = 0;
  bool table = false;  // the rows of ModelShape::table are seen besides
  // Keys and values outside the window are never read again.
  bool GivesPagesBack() const { return window > 0 && global_every == 0 && gate_top_k == 0; }
  int rotary = 0;  // index into ModelPlan::rotary; -1: no positions
  bool qkv_bias = false, o_bias = false;
  QkNorm qk_norm = QkNorm::kNone;
  bool sinks = false;           // a learned logit a head in every softmax of attention
  bool attention_gate = false;  // what is mixed is multiplied by sigmoid of a second half of q
  // In the place of attention, where it is there: no keys and values, but a state.
  DeltaSpec delta;
  ConvSpec conv;
  bool KeepsPages() const { return !delta.there() && !conv.there(); }
  int64_t state() const {                                // floats
    if (gate_top_k > 0) return window + 2 * gate_top_k;  // kernels/sparse/token_gate.h
    return delta.there() ? delta.state() : conv.there() ? conv.state() : 0;
  }
  // Feed-forward: down(act(gate x) * up x).
  int64_t ffn = 0;
  FfnActivation activation = FfnActivation::kSilu;
  bool ffn_bias = false;
  ExpertsSpec experts;  // instead, where there are any
};

// Frequencies of one rotary table, after any scaling.
struct RotarySpec {
  std::vector<double> frequencies;  // [dims / 2], radians a position
  double factor = 1;                // of cosines and sines
  bool interleaved = false;         // elements 2 i and 2 i + 1 are a pair, not i and dims / 2 + i
  // queries at position p are scaled by 1 + query_beta ln(1 + floor(p / query_step))
  double query_beta = 0;
  double query_step = 1;
};

struct ModelPlan {
  std::vector<LayerSpec> layers;  // [L]
  std::vector<RotarySpec> rotary;
  NormKind final_norm = NormKind::kRms;
  double norm_offset = 0;              // all RMS norms multiply by norm_offset + w
  double embedding_scale = 1;          // of the rows of the embedding
  bool round_embedding_scale = false;  // to the weights' type before use
  double logit_divisor = 1;

  // Floats of one sequence's states, all layers together.
  int64_t state() const {
    int64_t sum = 0;
    for (const LayerSpec& layer : layers) sum += layer.state();
    return sum;
  }
};

}  // namespace plumb::policy_model
