// Layers that carry a state of constant size from token to token in the place of keys and values:
// gated delta nets (kernels/delta/gated_delta.h) and gated short convolutions.
//
// Thread safety: plain values. Units: floats.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace plumb::policy_model {

// A gated delta net: a short convolution over queries, keys and values, then the delta rule.
struct DeltaSpec {
  int64_t k_heads = 0, v_heads = 0;  // k_heads divides v_heads; 0: the layer is none
  int64_t k_dim = 0, v_dim = 0;
  int64_t taps = 0;        // of the convolution
  bool by_k_head = false;  // the files interleave what comes of a token by heads of keys

  bool there() const { return v_heads > 0; }
  int64_t key_width() const { return k_heads * k_dim; }
  int64_t value_width() const { return v_heads * v_dim; }
  int64_t conv_width() const { return 2 * key_width() + value_width(); }
  // What comes of a token: queries, keys, values; output gate; strength and decay of each head.
  int64_t in_width() const { return conv_width() + value_width() + 2 * v_heads; }
  int64_t conv_state() const { return (taps - 1) * conv_width(); }
  // Rows of values are padded to whole vectors.
  int64_t state() const { return conv_state() + v_heads * k_dim * ((v_dim + 15) / 16 * 16); }
};

// out(c * conv(b * x)) where b, c and x come of a token.
struct ConvSpec {
  int64_t taps = 0;  // 0: the layer is none
  int64_t channels = 0;

  bool there() const { return taps > 0; }
  int64_t state() const { return (taps - 1) * channels; }
};

// What config.json says about them.
struct HybridShape {
  std::vector<uint8_t> layers;  // [L] 1: the layer has a state; empty: none has
  int64_t taps = 0;
  int64_t k_heads = 0, v_heads = 0, k_dim = 0, v_dim = 0;  // 0: convolutions alone
  bool operator==(const HybridShape&) const = default;

  bool of(int64_t layer) const {
    return !layers.empty() && layers[static_cast<size_t>(layer)] != 0;
  }
  int64_t count() const {
    return std::count_if(layers.begin(), layers.end(), [](uint8_t l) { return l != 0; });
  }
};

}  // namespace plumb::policy_model
