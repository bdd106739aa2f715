// A packed batch in bfloat16 for tests of attention's backward, with the gradients that it should
// have, in double, and how far bfloat16 may be from them.
//
// Thread safety: none. Ownership: of its memory. Shapes: attention_varlen.h.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/attention/gradient_work.h"
#include "kernels/rope.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {

struct PackedShape {
  int32_t heads, kv_heads, d;
  std::vector<int32_t> lengths;
  std::vector<int32_t> parents = {};  // empty: none goes on from another
  int32_t window = 0;
  int32_t turned = 0;  // elements of a head; 0: none
  bool interleaved = false;
  float Scale() const { return 1 / std::sqrt(static_cast<float>(d)); }
  std::string Name() const {
    std::string name = std::to_string(heads) + "/" + std::to_string(kv_heads) + " heads of " +
                       std::to_string(d) + ", window " + std::to_string(window) + ", " +
                       std::to_string(turned) + " turned, lengths";
    for (const int32_t n : lengths) name += " " + std::to_string(n);
    return name + (parents.empty() ? "" : ", with prefixes");
  }
};

class PackedScene {
 public:
  // `rounded`: `out`, which the gradients depend on, as bfloat16 has it.
  explicit PackedScene(const PackedShape& s, bool rounded = true) : shape(s) {
    for (size_t b = 0; b < s.lengths.size(); ++b) {
      const int32_t parent = s.parents.empty() ? -1 : s.parents[b];
      for (int32_t i = 0; i < s.lengths[b]; ++i) {
        owner.push_back(b);
        position.push_back(i + (parent < 0 ? 0 : s.lengths[static_cast<size_t>(parent)]));
      }
      cu.push_back(cu.back() + s.lengths[b]);
    }
    qkv = Normal(tokens() * width(), 7, DType::kBFloat16);
    dout = Normal(tokens() * mixed(), 8, DType::kBFloat16);
    if (s.turned > 0) {
      std::vector<double> frequencies;
      for (int32_t i = 0; i < s.turned / 2; ++i) frequencies.push_back(std::pow(0.7, i));
      const int64_t most = 1 + *std::max_element(position.begin(), position.end());
      cos_sin.resize(static_cast<size_t>(most * s.turned));
      RopeTable(most, frequencies, 1.0, cos_sin.data());
    }
    Compute(rounded);
  }

  size_t tokens() const { return static_cast<size_t>(cu.back()); }
  size_t width() const { return static_cast<size_t>((shape.heads + 2 * shape.kv_heads) * shape.d); }
  size_t mixed() const { return static_cast<size_t>(shape.heads * shape.d); }

  VarlenShape Varlen() const {
    return {.tokens = cu.back(),
            .sequences = static_cast<int32_t>(shape.lengths.size()),
            .cu_seqlens = cu.data(),
            .parents = shape.parents.empty() ? nullptr : shape.parents.data(),
            .max_seqlen = cu.back(),
            .heads = shape.heads,
            .kv_heads = shape.kv_heads,
            .head_dim = shape.d,
            .scale = shape.Scale(),
            .window = shape.window};
  }
  TurnTable Turn() const {
    return {position.data(), cos_sin.data(), shape.turned, shape.interleaved};
  }

  // Every element within what it may be off: `outer` roundings of the result, and of what was
  // summed for it one of bfloat16 each.
  void ExpectGradient(const std::vector<float>& actual, const std::string& what) const {
    ASSERT_EQ(actual.size(), dqkv.size()) << what;
    double worst = 0;
    size_t at = 0;
    for (size_t i = 0; i < actual.size(); ++i) {
      const double error = std::abs(static_cast<double>(actual[i]) - dqkv[i]) /
                           (kHalfBf16 * std::abs(dqkv[i]) + off[i] + 1e-30);
      if (!(error <= worst)) {
        worst = error;
        at = i;
        if (std::isnan(error)) break;
      }
    }
    EXPECT_LE(worst, 1.0) << what << ", " << shape.Name() << ": token " << at / width()
                          << ", element " << at % width() << " is " << actual[at] << ", expected "
                          << dqkv[at] << " within " << off[at];
  }

  PackedShape shape;
  std::vector<int32_t> cu = {0}, position;
  std::vector<size_t> owner;
  std::vector<float> qkv, dout, cos_sin;
  std::vector<float> out, lse;  // of the forward, rounded as it gives them
  std::vector<double> dqkv, off;

 private:
  // The tokens that a token sees.
  std::vector<int32_t> Seen(size_t t) const {
    std::vector<int32_t> seen;
    const size_t b = owner[t];
    if (!shape.parents.empty() && shape.parents[b] >= 0) {
      const auto parent = static_cast<size_t>(shape.parents[b]);
      for (int32_t j = cu[parent]; j < cu[parent + 1]; ++j) seen.push_back(j);
    }
    for (int32_t j = cu[b]; j <= static_cast<int32_t>(t); ++j) seen.push_back(j);
    if (shape.window > 0 && static_cast<int32_t>(seen.size()) > shape.window)
      seen.erase(seen.begin(), seen.end() - shape.window);
    return seen;
  }

  void Compute(bool rounded) {
    const auto d = static_cast<size_t>(shape.d),
               group = static_cast<size_t>(shape.heads) / static_cast<size_t>(shape.kv_heads);
    const auto scale = static_cast<double>(shape.Scale());
    out.assign(tokens() * mixed(), 0);
    lse.assign(tokens() * static_cast<size_t>(shape.heads), 0);
    dqkv.assign(qkv.size(), 0);
    off.assign(qkv.size(), 0);
    const auto value = [](float x) { return static_cast<double>(x); };
    for (size_t t = 0; t < tokens(); ++t) {
      const auto seen = Seen(t);
      for (size_t head = 0; head < static_cast<size_t>(shape.heads); ++head) {
        const size_t q = t * width() + head * d, own = t * mixed() + head * d;
        const auto key = [&](int32_t j) {
          return static_cast<size_t>(j) * width() +
                 (static_cast<size_t>(shape.heads) + head / group) * d;
        };
        const size_t to_value = static_cast<size_t>(shape.kv_heads) * d;
        std::vector<double> p;
        double top = -INFINITY, sum = 0, delta = 0;
        for (const int32_t j : seen) {
          double s = 0;
          for (size_t c = 0; c < d; ++c) s += value(qkv[q + c]) * value(qkv[key(j) + c]);
          p.push_back(s * scale);
          top = std::max(top, p.back());
        }
        for (double& x : p) sum += x = std::exp(x - top);
        lse[head * tokens() + t] = static_cast<float>(top + std::log(sum));
        for (size_t c = 0; c < d; ++c) {
          double o = 0;
          for (size_t j = 0; j < seen.size(); ++j)
            o += p[j] / sum * value(qkv[key(seen[j]) + to_value + c]);
          out[own + c] = static_cast<float>(o);
          if (rounded) out[own + c] = ToFloat(ToBFloat16(out[own + c]));
          delta += value(dout[own + c]) * value(out[own + c]);
        }
        for (size_t j = 0; j < seen.size(); ++j) {
          const size_t k = key(seen[j]), v = k + to_value;
          double dp = 0, size = std::abs(delta);
          for (size_t c = 0; c < d; ++c) {
            dp += value(dout[own + c]) * value(qkv[v + c]);
            size += std::abs(value(dout[own + c]) * value(qkv[v + c]));
          }
          const double weight = p[j] / sum, ds = weight * (dp - delta) * scale,
                       // float32 within ds, and its own rounding
              ds_off = 1e-6 * weight * size * scale + kHalfBf16 * std::abs(ds);
          for (size_t c = 0; c < d; ++c) {
            Add(v + c, weight * value(dout[own + c]),
                kHalfBf16 * weight * std::abs(value(dout[own + c])));
            Add(k + c, ds * value(qkv[q + c]), ds_off * std::abs(value(qkv[q + c])));
            Add(q + c, ds * value(qkv[k + c]), ds_off * std::abs(value(qkv[k + c])));
          }
        }
      }
    }
    TurnAllBack();
  }
  void Add(size_t at, double x, double by) {
    dqkv[at] += x;
    off[at] += by + 1e-6 * std::abs(x);
  }

  void TurnAllBack() {
    const auto half = static_cast<size_t>(shape.turned / 2);
    for (size_t t = 0; t < tokens() && half > 0; ++t) {
      const float* cs = cos_sin.data() + position[t] * shape.turned;
      for (size_t head = 0; head < static_cast<size_t>(shape.heads + shape.kv_heads); ++head) {
        const size_t at = t * width() + head * static_cast<size_t>(shape.d);
        for (size_t i = 0; i < half; ++i) {
          const size_t a = at + (shape.interleaved ? 2 * i : i),
                       b = at + (shape.interleaved ? 2 * i + 1 : i + half);
          const auto c = static_cast<double>(cs[i]), s = static_cast<double>(cs[half + i]);
          const double x = dqkv[a], y = dqkv[b], x_off = off[a], y_off = off[b];
          dqkv[a] = x * c + y * s;
          dqkv[b] = y * c - x * s;
          off[a] = x_off * std::abs(c) + y_off * std::abs(s);
          off[b] = y_off * std::abs(c) + x_off * std::abs(s);
        }
      }
    }
  }
};

}  // namespace plumb::kernels
