#include <algorithm>
#include <array>
#include <bit>
#include <cfloat>
#include <cmath>

#include "common/base/rng.h"
#include "kernels/device/cpu_common.h"
#include "kernels/update/adamw_compact.h"

namespace plumb::kernels {
namespace {

constexpr int kFraction = 4;               // bits
constexpr int kDrawBits = 23 - kFraction;  // of a float's fraction that are rounded away
constexpr uint32_t kDrawMask = (1u << kDrawBits) - 1;
constexpr float kLargest = 31.0f / 16.0f;  // before it is scaled to 1

// A floating-point number of 8 bits or, under a sign, of 7: exponents up to 0.
template <int kExponent>
struct Code {
  static constexpr int kTop = (1 << kExponent) - 1;  // the exponent that means 0
  static constexpr uint32_t kMost = (1u << (kExponent + kFraction)) - 1;
  static constexpr float kSmallestNormal = 1.0f / static_cast<float>(1u << (kTop - 1));

  static constexpr float Value(uint32_t code) {
    const uint32_t e = code >> kFraction, f = code & ((1u << kFraction) - 1);
    const float at_top = e == 0
                             ? 2.0f * static_cast<float>(f) / 16.0f
                             : (1.0f + static_cast<float>(f) / 16.0f) * static_cast<float>(1u << e);
    return at_top / static_cast<float>(1u << kTop) / kLargest;
  }
  static constexpr auto kValues = [] {
    std::array<float, kMost + 1> values{};
    for (uint32_t c = 0; c <= kMost; ++c) values[c] = Value(c);
    return values;
  }();

  // Of x in [0, 1], with kDrawBits random bits.
  static uint32_t Round(float x, uint32_t draw) {
    const float r = x * kLargest;
    const uint32_t normal = ((std::bit_cast<uint32_t>(r) + draw) >> kDrawBits) -
                            (static_cast<uint32_t>(127 - kTop) << kFraction);
    constexpr float kSteps = 16.0f / kSmallestNormal * static_cast<float>(1u << kDrawBits);
    const uint32_t even =
        (static_cast<uint32_t>(std::min(r, kSmallestNormal) * kSteps) + draw) >> kDrawBits;
    return std::min(r < kSmallestNormal ? even : normal, kMost);
  }
};
using CodeM = Code<3>;
using CodeV = Code<4>;
static_assert(CodeM::kMost == 127 && CodeV::kMost == 255);

constexpr uint8_t kSign = 0x80;

float ValueOfM(uint8_t code) {
  const float x = CodeM::kValues[code & CodeM::kMost];
  return (code & kSign) != 0 ? -x : x;
}

// The bits are those of a finite number or not one; what is finite stays so.
BFloat16 RoundAtRandom(float x, uint32_t draw) {
  constexpr uint32_t kExponent = 0x7F800000u;
  const auto bits = std::bit_cast<uint32_t>(x);
  if ((bits & kExponent) == kExponent) return ToBFloat16(x);
  const uint32_t up = bits + (draw & 0xFFFFu);
  return {static_cast<uint16_t>(((up & kExponent) == kExponent ? bits : up) >> 16)};
}

struct Draws {
  uint32_t of_m[kMomentBlock], of_v[kMomentBlock], of_weight[kMomentBlock];
};

// 64 bits an element: 19 for each moment, 16 of the rest for the weight.
void Draw(const AdamwCompact& a, int64_t first, int64_t count, Draws& out) {
#pragma omp simd
  for (int64_t i = 0; i < count; i += 2) {
    const auto pair = static_cast<uint64_t>(a.first + first + i) / 2;
    const Random4 bits = RandomAt(a.seed, pair, a.set, a.draw_step);
    for (int k = 0; k < 2; ++k) {
      const uint32_t one = bits.x[2 * k], two = bits.x[2 * k + 1];
      out.of_m[i + k] = one >> (32 - kDrawBits);
      out.of_v[i + k] = two >> (32 - kDrawBits);
      out.of_weight[i + k] = ((one & 0x1FFFu) << 3) | (two & 7u);
    }
  }
}

template <class T>
void Update(const AdamwCompact& a, T* param) {
  const AdamwOptions& o = a.options;
  const auto step = static_cast<double>(o.step);
  const auto correct1 =
      static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(o.beta1), step)));
  const auto correct2 =
      static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(o.beta2), step)));
  const float keep = a.decay ? 1.0f - o.learning_rate * o.weight_decay : 1.0f;
  const int64_t blocks = MomentBlocks(a.n);
#pragma omp parallel for schedule(static) if (a.n > kParallelElements)
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = b * kMomentBlock, count = std::min(kMomentBlock, a.n - begin);
    float m[kMomentBlock], v[kMomentBlock], w[kMomentBlock];
    Draws draws;
    if (a.m.codes || a.v.codes || !a.master) Draw(a, begin, count, draws);
    for (int64_t i = 0; i < count; ++i) {
      m[i] = a.m.codes ? ValueOfM(a.m.codes[begin + i]) * a.m.scales[b] : a.m.exact[begin + i];
      v[i] =
          a.v.codes ? CodeV::kValues[a.v.codes[begin + i]] * a.v.scales[b] : a.v.exact[begin + i];
      w[i] = a.master ? a.master[begin + i] : ToFloat(param[begin + i]);
    }
    float largest_m = 0, largest_v = 0;
    const float* grad = a.grad + begin;
#pragma omp simd reduction(max : largest_m, largest_v)
    for (int64_t i = 0; i < count; ++i) {
      const float g = grad[i] * o.grad_scale;
      m[i] = o.beta1 * m[i] + (1.0f - o.beta1) * g;
      v[i] = std::min(o.beta2 * v[i] + (1.0f - o.beta2) * g * g, FLT_MAX);
      w[i] =
          w[i] * keep - o.learning_rate * (m[i] * correct1) / (std::sqrt(v[i] * correct2) + o.eps);
      largest_m = std::max(largest_m, std::abs(m[i]));
      largest_v = std::max(largest_v, v[i]);
    }
    for (int64_t i = 0; i < count; ++i) {
      if (a.master) {
        a.master[begin + i] = w[i];
        if (param) param[begin + i] = FromFloat<T>(w[i]);
      } else if constexpr (std::is_same_v<T, BFloat16>) {
        param[begin + i] = RoundAtRandom(w[i], draws.of_weight[i]);
      }
    }
    if (a.m.codes) {
      a.m.scales[b] = largest_m;
      for (int64_t i = 0; i < count; ++i) {
        const float x = largest_m > 0 ? std::abs(m[i]) / largest_m : 0.0f;
        const auto code = static_cast<uint8_t>(CodeM::Round(x, draws.of_m[i]));
        a.m.codes[begin + i] = std::signbit(m[i]) ? code | kSign : code;
      }
    } else {
      std::copy_n(m, count, a.m.exact + begin);
    }
    if (a.v.codes) {
      a.v.scales[b] = largest_v;
      for (int64_t i = 0; i < count; ++i) {
        const float x = largest_v > 0 ? v[i] / largest_v : 0.0f;
        const uint32_t code = CodeV::Round(x, draws.of_v[i]);
        a.v.codes[begin + i] = static_cast<uint8_t>(v[i] > 0 ? std::max(code, 1u) : code);
      }
    } else {
      std::copy_n(v, count, a.v.exact + begin);
    }
  }
}

}  // namespace

void AdamwCompact::Cpu(const Launch& launch) const {
  PLUMB_CHECK(first % 2 == 0, "draws are made for two elements at a time");
  PLUMB_CHECK(master || launch.dtype == DType::kBFloat16, "weights that are their own masters");
  ForDType(launch.dtype, [&]<class T>(T) { Update(*this, static_cast<T*>(param)); });
}

void DecodeMoment::Cpu(const Launch&) const {
#pragma omp parallel for schedule(static) if (n > kParallelElements)
  for (int64_t i = 0; i < n; ++i) {
    out[i] = !from.codes ? from.exact[i]
                         : from.scales[i / kMomentBlock] *
                               (negative ? ValueOfM(from.codes[i]) : CodeV::kValues[from.codes[i]]);
  }
}

}  // namespace plumb::kernels
