#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>

#include "common/base/rng.h"
#include "kernels/device/cpu_common.h"
#include "kernels/update/adamw_compact.h"
#include "kernels/update/moment_codes.h"

namespace plumb::kernels {
namespace {

float ValueOfM(uint8_t code) {
  const float x = CodeM::kValues[code & CodeM::kMost];
  return (code & kCodeSign) != 0 ? -x : x;
}

struct Draws {
  uint32_t of_m[kMomentBlock], of_v[kMomentBlock], of_weight[kMomentBlock];
};

void Draw(const AdamwCompact& a, int64_t first, int64_t count, Draws& out) {
#pragma omp simd
  for (int64_t i = 0; i < count; i += 2) {
    const auto pair = static_cast<uint64_t>(a.first + first + i) / 2;
    const Random4 bits = RandomAt(a.seed, pair, a.set, a.draw_step);
    for (int k = 0; k < 2; ++k) {
      const ElementDraws draws = DrawsOf(bits.x[2 * k], bits.x[2 * k + 1]);
      out.of_m[i + k] = draws.of_m;
      out.of_v[i + k] = draws.of_v;
      out.of_weight[i + k] = draws.of_weight;
    }
  }
}

template <class T, class G>
void Update(const AdamwCompact& a, T* param, const G* all_gradients) {
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
    const G* grad = all_gradients + begin;
#pragma omp simd reduction(max : largest_m, largest_v)
    for (int64_t i = 0; i < count; ++i) {
      const float g = ToFloat(grad[i]) * o.grad_scale;
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
        a.m.codes[begin + i] =
            StoredM(m[i], largest_m > 0 ? std::abs(m[i]) / largest_m : 0.0f, draws.of_m[i]);
      }
    } else {
      std::copy_n(m, count, a.m.exact + begin);
    }
    if (a.v.codes) {
      a.v.scales[b] = largest_v;
      for (int64_t i = 0; i < count; ++i) {
        a.v.codes[begin + i] =
            StoredV(v[i], largest_v > 0 ? v[i] / largest_v : 0.0f, draws.of_v[i]);
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
  ForDType(launch.dtype, [&]<class T>(T) {
    ForDType(grad_dtype, [&]<class G>(G) {
      Update(*this, static_cast<T*>(param), static_cast<const G*>(grad));
    });
  });
}

void AdamwCompactSet::Cpu(const Launch& launch) const {
  const auto size = static_cast<int64_t>(ElementSize(launch.dtype)),
             grad_size = static_cast<int64_t>(ElementSize(all.grad_dtype));
  const auto moment = [](const MomentState& from, const CompactTensor& of) {
    return MomentState{.exact = from.exact ? from.exact + of.at : nullptr,
                       .codes = from.codes ? from.codes + of.at : nullptr,
                       .scales = from.scales ? from.scales + of.first_block : nullptr};
  };
  for (int64_t i = 0; i < count; ++i) {
    const CompactTensor& of = tensors[i];
    AdamwCompact one = all;
    one.param = all.param ? static_cast<std::byte*>(all.param) + of.at * size : nullptr;
    one.master = all.master ? all.master + of.at : nullptr;
    one.m = moment(all.m, of);
    one.v = moment(all.v, of);
    one.grad = static_cast<const std::byte*>(all.grad) + of.at * grad_size;
    one.decay = of.decay != 0;
    one.n = of.n;
    one.first = all.first + of.at;
    one.Cpu(launch);
  }
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
