// kernels/sparse/token_gate.h: sets from the definition, packed and in steps, and the gate's
// gradient.
#include "kernels/sparse/token_gate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

const Launch kFloat = {.stream = Device::kCpu, .dtype = DType::kFloat32};

// By sorting all tokens before the window of place i: the highest, of equal ones the earlier.
std::vector<int32_t> Set(const std::vector<float>& gate, const std::vector<int32_t>& tokens,
                         int32_t i, int32_t window, int32_t count) {
  std::vector<int32_t> places;
  for (int32_t j = 0; j + window <= i; ++j) places.push_back(j);
  std::stable_sort(places.begin(), places.end(), [&](int32_t a, int32_t b) {
    return gate[static_cast<size_t>(tokens[static_cast<size_t>(a)])] >
           gate[static_cast<size_t>(tokens[static_cast<size_t>(b)])];
  });
  places.resize(std::min(places.size(), static_cast<size_t>(count)));
  std::sort(places.begin(), places.end());
  std::vector<int32_t> out;
  for (const int32_t j : places) out.push_back(tokens[static_cast<size_t>(j)]);
  out.resize(static_cast<size_t>(count), -1);
  return out;
}

// Few values, so that many gates are equal.
std::vector<float> Gates(size_t n) {
  std::vector<float> gate = Normal(n, 5);
  for (float& g : gate) g = std::round(2 * g) / 2;
  return gate;
}

TEST(TokenGate, SetsAreTheHighestGatesBeforeTheWindow) {
  // A sequence of 40; one of 17 that two go on from.
  const std::vector<int32_t> cu = {0, 40, 57, 70, 90}, parents = {-1, -1, 1, 1};
  const std::vector<float> gate = Gates(90);
  for (const auto& [window, count] : {std::pair{4, 5}, {1, 1}, {30, 3}, {3, 60}}) {
    const VarlenShape shape{.tokens = 90,
                            .sequences = 4,
                            .cu_seqlens = cu.data(),
                            .parents = parents.data(),
                            .window = window};
    std::vector<int32_t> chosen(static_cast<size_t>(90 * count), -7);
    Call(kFloat, ChooseTokens{
                     .shape = shape, .gate = gate.data(), .count = count, .chosen = chosen.data()});
    for (size_t b = 0; b < parents.size(); ++b) {
      std::vector<int32_t> tokens;
      const auto add = [&](size_t of) {
        for (int32_t t = cu[of]; t < cu[of + 1]; ++t) tokens.push_back(t);
      };
      if (parents[b] >= 0) add(static_cast<size_t>(parents[b]));
      const auto base = static_cast<int32_t>(tokens.size());
      add(b);
      for (int32_t i = base; i < static_cast<int32_t>(tokens.size()); ++i) {
        const auto at = chosen.begin() + int64_t{tokens[static_cast<size_t>(i)]} * count;
        EXPECT_EQ(std::vector<int32_t>(at, at + count), Set(gate, tokens, i, window, count))
            << "place " << i << " of sequence " << b << ", window " << window;
      }
    }
  }
}

TEST(TokenGate, StepsGoThroughThePackedSetsHoweverTheyAreCut) {
  constexpr int32_t kTokens = 50, kWindow = 6, kCount = 4;
  const std::vector<float> gate = Gates(kTokens);
  const std::vector<int32_t> cu = {0, kTokens};
  std::vector<int32_t> want(kTokens * kCount);
  Call(kFloat,
       ChooseTokens{
           .shape = {.tokens = kTokens, .sequences = 1, .cu_seqlens = cu.data(), .window = kWindow},
           .gate = gate.data(),
           .count = kCount,
           .chosen = want.data()});
  for (const std::vector<int32_t>& ends :
       {std::vector<int32_t>{50}, {1, 2, 3, 20, 21, 50}, {6, 7, 13, 14, 15, 16, 17, 50}}) {
    // Nothing is cleared before a sequence begins.
    std::vector<float> memory(2 * (3 + ChoiceState(kWindow, kCount)), NAN);
    const SequenceStates states{memory.data(), 3 + ChoiceState(kWindow, kCount)};
    int32_t begin = 0;
    for (const int32_t end : ends) {
      const auto n = static_cast<size_t>(end - begin);
      std::vector<int32_t> slot(n, 1), position, chosen(n * kCount);
      std::vector<float> weight(n * kCount);
      for (int32_t i = begin; i < end; ++i) position.push_back(i);
      Call(kFloat, ChooseTokensStep{.rows = {end - begin, slot.data(), position.data()},
                                    .states = states,
                                    .offset = 3,
                                    .window = kWindow,
                                    .count = kCount,
                                    .gate = gate.data() + begin,
                                    .chosen = chosen.data(),
                                    .weight = weight.data()});
      for (size_t i = 0; i < chosen.size(); ++i) {
        const size_t at = static_cast<size_t>(begin) * kCount + i;
        ASSERT_EQ(chosen[i], want[at]) << at;
        ASSERT_EQ(weight[i], want[at] < 0 ? 0 : LogSigmoid(gate[static_cast<size_t>(want[at])]));
      }
      begin = end;
    }
    for (int64_t i = 0; i < states.stride + 3; ++i)
      EXPECT_TRUE(std::isnan(memory[static_cast<size_t>(i)])) << "what is not this layer's: " << i;
  }
}

TEST(TokenGate, AGateThatIsNoNumberIsNeverChosenOverOne) {
  std::vector<float> gate = {NAN, 1, NAN, -5, 2, 0, 0, 0};
  const std::vector<int32_t> cu = {0, 8};
  std::vector<int32_t> chosen(8 * 2);
  Call(kFloat,
       ChooseTokens{.shape = {.tokens = 8, .sequences = 1, .cu_seqlens = cu.data(), .window = 1},
                    .gate = gate.data(),
                    .count = 2,
                    .chosen = chosen.data()});
  EXPECT_EQ((std::vector<int32_t>(chosen.begin() + 4, chosen.begin() + 16)),
            (std::vector<int32_t>{0, 1, 0, 1, 1, 3, 1, 4, 1, 4, 1, 4}));
}

TEST(TokenGate, GradientsAreThoseOfTheDefinition) {
  constexpr size_t kRows = 7, kWidth = 19;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const auto x = Normal(kRows * kWidth, 1, dtype), w = Normal(kWidth, 2, dtype),
               d = Normal(kRows, 3, DType::kFloat32), before = Normal(kRows * kWidth, 4, dtype);
    const Target target{Device::kCpu, dtype};
    Tensor bx(target, x), bw(target, w), dx(target, before);
    std::vector<float> gate(kRows), dw(kWidth, 0.5f);
    const Launch launch{.stream = Device::kCpu, .dtype = dtype};
    Call(launch,
         TokenGate{
             .x = bx.data(), .w = bw.data(), .rows = kRows, .width = kWidth, .gate = gate.data()});
    Call(launch, TokenGateBackward{.dgate = d.data(),
                                   .x = bx.data(),
                                   .w = bw.data(),
                                   .rows = kRows,
                                   .width = kWidth,
                                   .dw = dw.data(),
                                   .dx = dx.data()});
    const std::vector<float> got = dx.Host();
    for (size_t i = 0; i < kWidth; ++i) {
      double sum = 0.5;
      for (size_t r = 0; r < kRows; ++r) {
        sum += static_cast<double>(d[r]) * static_cast<double>(x[r * kWidth + i]);
        EXPECT_NEAR(got[r * kWidth + i], before[r * kWidth + i] + d[r] * w[i],
                    dtype == DType::kFloat32 ? 1e-5 : 0.05);
      }
      EXPECT_NEAR(dw[i], sum, 1e-5);
    }
    for (size_t r = 0; r < kRows; ++r) {
      double sum = 0;
      for (size_t i = 0; i < kWidth; ++i)
        sum += static_cast<double>(x[r * kWidth + i]) * static_cast<double>(w[i]);
      EXPECT_NEAR(gate[r], sum, 1e-5);
    }
  }
}

}  // namespace
}  // namespace plumb::kernels
