#include "kernels/delta/short_conv.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

class ShortConvTest : public KernelTest {
 protected:
  Target target() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Cpu, ShortConvTest,
                         ::testing::Values(Target{Device::kCpu, DType::kFloat32},
                                           Target{Device::kCpu, DType::kBFloat16}),
                         TargetName);

// Sequences shorter and longer than the taps; the third and fourth go on from the second.
const std::vector<int32_t> kCuSeqlens = {0, 5, 7, 8, 14, 15, 35};
const std::vector<int32_t> kParents = {-1, -1, 1, 1, -1, -1};
constexpr int64_t kTokens = 35;

ShortConvShape Shape(bool silu, int32_t taps = 4, bool shared = true) {
  return {.tokens = kTokens,
          .sequences = 6,
          .cu_seqlens = kCuSeqlens.data(),
          .parents = shared ? kParents.data() : nullptr,
          .channels = 19,
          .taps = taps,
          .silu = silu,
          .x_stride = 23,
          .y_stride = 21};
}

std::vector<double> Reference(const ShortConvShape& s, const std::vector<double>& x,
                              const std::vector<double>& w) {
  std::vector<double> y(static_cast<size_t>(s.tokens * s.y_stride), static_cast<double>(kPoison));
  for (int32_t b = 0; b < s.sequences; ++b) {
    std::vector<int64_t> tokens;
    if (s.parents && s.parents[b] >= 0) {
      for (int64_t t = s.cu_seqlens[s.parents[b]]; t < s.cu_seqlens[s.parents[b] + 1]; ++t)
        tokens.push_back(t);
    }
    const auto before = static_cast<int64_t>(tokens.size());
    for (int64_t t = s.cu_seqlens[b]; t < s.cu_seqlens[b + 1]; ++t) tokens.push_back(t);
    for (auto i = before; i < static_cast<int64_t>(tokens.size()); ++i) {
      for (int64_t c = 0; c < s.channels; ++c) {
        double sum = 0;
        for (int32_t k = 0; k < s.taps; ++k) {
          const int64_t from = i - s.taps + 1 + k;
          if (from >= 0)
            sum += w[static_cast<size_t>(c * s.taps + k)] *
                   x[static_cast<size_t>(tokens[static_cast<size_t>(from)] * s.x_stride + c)];
        }
        y[static_cast<size_t>(tokens[static_cast<size_t>(i)] * s.y_stride + c)] =
            s.silu ? sum / (1 + std::exp(-sum)) : sum;
      }
    }
  }
  return y;
}

TEST_P(ShortConvTest, SumsTheTapsOfItsOwnSequence) {
  for (const bool silu : {false, true}) {
    for (const int32_t taps : {1, 3, 4}) {
      const ShortConvShape s = Shape(silu, taps);
      const auto x = ToDouble(Normal(kTokens * 23, 1, dtype())),
                 w = ToDouble(Normal(static_cast<size_t>(19 * taps), 2, dtype()));
      Tensor tx(target(), Floats(x)), tw(target(), Floats(w)),
          ty(target(), std::vector<float>(kTokens * 21, kPoison));
      Call(launch(), ShortConv{.shape = s, .x = tx.data(), .w = tw.data(), .y = ty.data()});
      auto want = Reference(s, x, w);
      for (double& v : want) {
        if (v == static_cast<double>(kPoison) && dtype() == DType::kBFloat16)
          v = static_cast<double>(ToFloat(ToBFloat16(kPoison)));
      }
      // Four products of values up to 4 x 4, an exp and a division.
      ExpectClose(ty.Host(), want, OutputRounding(dtype()) + 8 * kEps, 64 * kEps, "y");
    }
  }
}

TEST_P(ShortConvTest, BackwardMatchesFiniteDifferences) {
  for (const bool silu : {false, true}) {
    const ShortConvShape s = Shape(silu);
    const auto x = ToDouble(Normal(kTokens * 23, 1, dtype())),
               w = ToDouble(Normal(19 * 4, 2, dtype())),
               d = ToDouble(Normal(kTokens * 21, 3, dtype()));
    const auto loss = [&](const std::vector<double>& y) {
      double sum = 0;
      for (size_t i = 0; i < y.size(); ++i)
        sum += static_cast<int64_t>(i) % 21 < 19 ? y[i] * d[i] : 0;
      return sum;
    };
    auto dx = Gradient([&](const auto& v) { return loss(Reference(s, v, w)); }, x);
    auto dw = Gradient([&](const auto& v) { return loss(Reference(s, x, v)); }, w);
    Tensor tx(target(), Floats(x)), tw(target(), Floats(w)), td(target(), Floats(d)),
        tdx(target(), std::vector<float>(x.size(), 0.5f));
    Array<float> tdw(device(), std::vector<float>(w.size(), 1.0f));
    Call(launch(), ShortConvBackward{.shape = s,
                                     .dy = td.data(),
                                     .x = tx.data(),
                                     .w = tw.data(),
                                     .dx = tdx.data(),
                                     .dw = tdw.data()});
    for (size_t i = 0; i < dx.size(); ++i) {
      if (i % 23 >= 19) dx[i] = 0.5;  // columns of others
    }
    for (double& v : dw) v += 1;
    ExpectClose(tdx.Host(), dx, OutputRounding(dtype()), 1e-5, "dx");
    ExpectClose(tdw.Host(), dw, kEps, 2e-5, "dw");
  }
}

TEST_P(ShortConvTest, StepsAreThePackedForwardBitForBit) {
  const ShortConvShape s = Shape(true, 4, false);
  const std::vector<float> x = Normal(kTokens * 23, 1, dtype()), w = Normal(19 * 4, 2, dtype());
  Tensor tx(target(), x), tw(target(), w), ty(target(), kTokens * 21),
      stepped(target(), std::vector<float>(kTokens * 21, kPoison));
  Call(launch(), ShortConv{.shape = s, .x = tx.data(), .w = tw.data(), .y = ty.data()});
  const int64_t stride = 3 * 19 + 9;
  std::vector<float> memory(static_cast<size_t>(6 * stride), NAN);
  // The first two tokens of each sequence at once, then one by one.
  const size_t element = ElementSize(dtype());
  for (int32_t b = 0; b < s.sequences; ++b) {
    const int32_t begin = kCuSeqlens[static_cast<size_t>(b)],
                  tokens = kCuSeqlens[static_cast<size_t>(b) + 1] - begin;
    for (int32_t first = 0, end = std::min(2, tokens); first < tokens; first = end++) {
      std::vector<int32_t> slot(static_cast<size_t>(end - first), b), position;
      for (int32_t i = first; i < end; ++i) position.push_back(i);
      const auto row = static_cast<size_t>(begin + first);
      Call(launch(),
           ShortConvStep{
               .shape = s,
               .rows = {.rows = end - first, .slot = slot.data(), .position = position.data()},
               .x = static_cast<std::byte*>(tx.data()) + row * 23 * element,
               .w = tw.data(),
               .states = {memory.data(), stride},
               .offset = 4,
               .y = static_cast<std::byte*>(stepped.data()) + row * 21 * element});
    }
  }
  const auto want = ty.Host(), got = stepped.Host();
  for (size_t i = 0; i < want.size(); ++i) {
    if (i % 21 < 19) {
      ASSERT_EQ(std::bit_cast<uint32_t>(want[i]), std::bit_cast<uint32_t>(got[i])) << i;
    }
  }
}

}  // namespace
}  // namespace plumb::kernels
