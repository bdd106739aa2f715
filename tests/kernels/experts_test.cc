#include "kernels/experts.h"

#include <algorithm>
#include <numeric>

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

const Launch kFloat = {.stream = Device::kCpu, .dtype = DType::kFloat32};

std::vector<double> ScoresOf(const RouterShape& s, const double* logits) {
  std::vector<double> p(static_cast<size_t>(s.experts));
  double sum = 0;
  for (int32_t e = 0; e < s.experts; ++e) {
    const double u = logits[e] / static_cast<double>(s.temperature);
    p[static_cast<size_t>(e)] = s.sigmoid ? 1 / (1 + std::exp(-u)) : std::exp(u);
    sum += p[static_cast<size_t>(e)];
  }
  for (double& x : p) x /= s.sigmoid ? 1 : sum;
  return p;
}

// What a row chooses, by sorting; groups by their best or two best.
std::vector<int32_t> Chosen(const RouterShape& s, std::vector<double> choice) {
  const int32_t size = s.experts / s.groups;
  std::vector<std::pair<double, int32_t>> groups;
  for (int32_t g = 0; g < s.groups; ++g) {
    std::vector<double> in(choice.begin() + g * size, choice.begin() + (g + 1) * size);
    std::sort(in.rbegin(), in.rend());
    groups.emplace_back(-(in[0] + (size > 1 && s.group_best > 1 ? in[1] : 0)), g);
  }
  std::sort(groups.begin(), groups.end());
  std::vector<std::pair<double, int32_t>> experts;
  for (int32_t i = 0; i < s.groups_per_token; ++i) {
    const int32_t g = groups[static_cast<size_t>(i)].second;
    for (int32_t e = g * size; e < (g + 1) * size; ++e)
      experts.emplace_back(-choice[static_cast<size_t>(e)], e);
  }
  std::sort(experts.begin(), experts.end());
  std::vector<int32_t> out;
  for (int32_t k = 0; k < s.per_token; ++k) out.push_back(experts[static_cast<size_t>(k)].second);
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<RouterShape> Routers(int64_t rows) {
  std::vector<RouterShape> out;
  for (const bool sigmoid : {false, true}) {
    for (const bool renormalize : {false, true}) {
      for (const int32_t groups : {1, 3}) {
        out.push_back({.rows = rows,
                       .experts = 12,
                       .per_token = 3,
                       .sigmoid = sigmoid,
                       .renormalize = renormalize,
                       .temperature = groups == 1 ? 1.0f : 0.6f,
                       .scale = groups == 1 ? 1.0f : 2.5f,
                       .groups = groups,
                       .groups_per_token = groups == 1 ? 1 : 2,
                       .group_best = sigmoid ? 2 : 1});
      }
    }
  }
  return out;
}

TEST(ExpertsKernelTest, ChoosesTheBestOfTheBestGroupsAndWeighsThemByTheirScores) {
  constexpr int64_t kRows = 57;
  for (const RouterShape& s : Routers(kRows)) {
    const auto logits = ToDouble(Normal(kRows * s.experts, 1, DType::kFloat32, 2.0f)),
               bias = ToDouble(Normal(s.experts, 2, DType::kFloat32, 0.2f));
    const std::vector<float> in = Floats(logits), b = Floats(bias);
    std::vector<int32_t> expert(static_cast<size_t>(kRows * s.per_token));
    std::vector<float> weight(expert.size());
    Call(kFloat, RouteTokens{.shape = s,
                             .logits = in.data(),
                             .bias = b.data(),
                             .expert = expert.data(),
                             .weight = weight.data()});
    for (int64_t r = 0; r < kRows; ++r) {
      const auto score = ScoresOf(s, logits.data() + r * s.experts);
      std::vector<double> choice = score;
      for (size_t e = 0; e < choice.size(); ++e) choice[e] += bias[e];
      const auto want = Chosen(s, choice);
      double sum = 0;
      for (const int32_t e : want) sum += score[static_cast<size_t>(e)];
      for (size_t k = 0; k < want.size(); ++k) {
        const size_t at = static_cast<size_t>(r * s.per_token) + k;
        ASSERT_EQ(expert[at], want[k]) << r;
        EXPECT_NEAR(weight[at],
                    static_cast<double>(s.scale) * score[static_cast<size_t>(want[k])] /
                        (s.renormalize ? sum : 1),
                    5e-6);
      }
    }
    // Choosing again what is given, also something else than the best.
    std::vector<int32_t> given = expert, again(expert.size());
    given[0] = -1;
    given[3] = 0, given[4] = 5, given[5] = 11;
    Call(kFloat, RouteTokens{.shape = s,
                             .logits = in.data(),
                             .bias = b.data(),
                             .given = given.data(),
                             .given_stride = s.per_token,
                             .expert = again.data(),
                             .weight = weight.data()});
    given[0] = expert[0];
    EXPECT_EQ(again, given);
  }
}

TEST(ExpertsKernelTest, GivenExpertsThatWouldNotBeChosenAreCounted) {
  const RouterShape s = {.rows = 3, .experts = 4, .per_token = 2};
  const std::vector<float> logits = {4, 3, 2, 1, 4, 3, 2, 1, 4, 3, 2, 1};
  const std::vector<int32_t> given = {0, 1, -1, -1, 1, 3};
  std::vector<int32_t> expert(6);
  std::vector<float> weight(6);
  int64_t otherwise = 10;
  Call(kFloat, RouteTokens{.shape = s,
                           .logits = logits.data(),
                           .given = given.data(),
                           .given_stride = 2,
                           .otherwise = &otherwise,
                           .expert = expert.data(),
                           .weight = weight.data()});
  EXPECT_EQ(expert, (std::vector<int32_t>{0, 1, 0, 1, 1, 3}));
  EXPECT_EQ(otherwise, 11) << "expert 3 of the last row, added";
  EXPECT_NEAR(weight[4], std::exp(2.0) / (1 + std::exp(2.0)), 1e-6) << "over those that are taken";
}

TEST(ExpertsKernelTest, AClampedUnitAndItsBackwardAreTheDefinition) {
  constexpr int64_t kRows = 3, kFfn = 20;
  constexpr double kAlpha = 1.702, kLimit = 0.8;
  const auto x = ToDouble(Normal(kRows * 2 * kFfn, 31, DType::kFloat32)),
             g = ToDouble(Normal(kRows * kFfn, 32, DType::kFloat32));
  const auto value = [&](const std::vector<double>& in) {
    double out = 0;
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t i = 0; i < kFfn; ++i) {
        const double gate = std::min(in[static_cast<size_t>(r * 2 * kFfn + i)], kLimit),
                     up = std::clamp(in[static_cast<size_t>(r * 2 * kFfn + kFfn + i)], -kLimit,
                                     kLimit);
        out +=
            g[static_cast<size_t>(r * kFfn + i)] * (up + 1) * gate / (1 + std::exp(-kAlpha * gate));
      }
    }
    return out;
  };
  std::vector<float> in = Floats(x), out(kRows * kFfn);
  const std::vector<float> dout = Floats(g);
  Call(kFloat, ClampedGlu{.gate_up = in.data(),
                          .rows = kRows,
                          .ffn = kFfn,
                          .alpha = static_cast<float>(kAlpha),
                          .limit = static_cast<float>(kLimit),
                          .out = out.data()});
  double got = 0;
  for (size_t i = 0; i < out.size(); ++i) got += static_cast<double>(out[i]) * g[i];
  EXPECT_NEAR(got, value(x), 1e-5);
  Call(kFloat, ClampedGluBackward{.dout = dout.data(),
                                  .gate_up = in.data(),
                                  .rows = kRows,
                                  .ffn = kFfn,
                                  .alpha = static_cast<float>(kAlpha),
                                  .limit = static_cast<float>(kLimit),
                                  .dgate_up = in.data()});
  const auto want = Gradient(value, x);
  int cut = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_NEAR(in[i], want[i], 2e-5) << i;
    cut += in[i] == 0;
  }
  EXPECT_GT(cut, 5) << "some lie beyond the limits";
}

TEST(ExpertsKernelTest, TheBackwardOfABiasIsThatOfTheWeighedSum) {
  constexpr int64_t kSlots = 4, kWidth = 9;
  const auto dy = Normal(kSlots * kWidth, 33, DType::kFloat32),
             bias = Normal(kWidth, 34, DType::kFloat32),
             weight = Normal(kSlots, 35, DType::kFloat32);
  std::vector<float> dweight(kSlots, 2.0f), dbias(kWidth, 3.0f);
  Call(kFloat, ExpertBiasBackward{.dy = dy.data(),
                                  .bias = bias.data(),
                                  .weight = weight.data(),
                                  .slots = kSlots,
                                  .width = kWidth,
                                  .dweight = dweight.data(),
                                  .dbias = dbias.data()});
  for (size_t k = 0; k < kSlots; ++k) {
    double want = 2;
    for (size_t i = 0; i < kWidth; ++i)
      want += static_cast<double>(dy[k * kWidth + i]) * static_cast<double>(bias[i]);
    EXPECT_NEAR(dweight[k], want, 1e-5);
  }
  for (size_t i = 0; i < kWidth; ++i) {
    double want = 3;
    for (size_t k = 0; k < kSlots; ++k)
      want += static_cast<double>(weight[k]) * static_cast<double>(dy[k * kWidth + i]);
    EXPECT_NEAR(dbias[i], want, 1e-5);
  }
}

TEST(ExpertsKernelTest, OfEqualScoresTheFirstAreChosenAndNanChoosesSomething) {
  const RouterShape s = {.rows = 3, .experts = 5, .per_token = 2};
  const std::vector<float> logits = {1, 1, 1, 1, 1, 0, 3, 3, 3, 0, NAN, NAN, NAN, NAN, NAN};
  std::vector<int32_t> expert(6);
  std::vector<float> weight(6);
  Call(kFloat,
       RouteTokens{
           .shape = s, .logits = logits.data(), .expert = expert.data(), .weight = weight.data()});
  EXPECT_EQ(std::vector<int32_t>(expert.begin(), expert.begin() + 4),
            (std::vector<int32_t>{0, 1, 1, 2}));
  EXPECT_TRUE(expert[4] >= 0 && expert[4] < expert[5] && expert[5] < 5);
}

TEST(ExpertsKernelTest, BackwardIsThatOfFiniteDifferences) {
  constexpr int64_t kRows = 5;
  for (const RouterShape& s : Routers(kRows)) {
    const auto logits = ToDouble(Normal(kRows * s.experts, 3, DType::kFloat32, 2.0f)),
               dw = ToDouble(Normal(kRows * s.per_token, 4, DType::kFloat32)),
               share = ToDouble(Normal(s.experts, 5, DType::kFloat32));
    const std::vector<float> in = Floats(logits), dweight = Floats(dw), dshare = Floats(share);
    std::vector<int32_t> expert(static_cast<size_t>(kRows * s.per_token));
    std::vector<float> weight(expert.size()), dlogits(in.size());
    Call(kFloat,
         RouteTokens{
             .shape = s, .logits = in.data(), .expert = expert.data(), .weight = weight.data()});
    constexpr double kZ = 0.3;
    const auto value = [&](const std::vector<double>& x) {
      double out = 0;
      for (int64_t r = 0; r < kRows; ++r) {
        const double* row = x.data() + r * s.experts;
        const auto score = ScoresOf(s, row);
        double sum = 0, all = 0, lse = 0;
        for (int32_t k = 0; k < s.per_token; ++k)
          sum += score[static_cast<size_t>(expert[static_cast<size_t>(r * s.per_token + k)])];
        for (int32_t k = 0; k < s.per_token; ++k) {
          const auto at = static_cast<size_t>(r * s.per_token + k);
          out += static_cast<double>(s.scale) * dw[at] * score[static_cast<size_t>(expert[at])] /
                 (s.renormalize ? sum : 1);
        }
        for (const double p : score) all += p;
        for (size_t e = 0; e < score.size(); ++e) out += share[e] * score[e] / all;
        for (int32_t e = 0; e < s.experts; ++e) lse += std::exp(row[e]);
        out += kZ * std::log(lse) * std::log(lse);
      }
      return out;
    };
    Call(kFloat, RouteTokensBackward{.shape = s,
                                     .logits = in.data(),
                                     .expert = expert.data(),
                                     .dweight = dweight.data(),
                                     .dshare = dshare.data(),
                                     .z = static_cast<float>(kZ),
                                     .dlogits = dlogits.data()});
    const auto want = Gradient(value, logits);
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(dlogits[i], want[i], 2e-5) << i;
  }
}

TEST(ExpertsKernelTest, SumsAreThoseOfTheRows) {
  constexpr int64_t kRows = 9;
  for (const RouterShape& s : Routers(kRows)) {
    const auto logits = ToDouble(Normal(kRows * s.experts, 6, DType::kFloat32, 2.0f));
    const std::vector<float> in = Floats(logits);
    std::vector<double> share(static_cast<size_t>(s.experts), 1.0), want = share;
    double entropy = 2, lse_squared = 3, want_entropy = 2, want_lse = 3;
    for (int64_t r = 0; r < kRows; ++r) {
      const auto score = ScoresOf(s, logits.data() + r * s.experts);
      const double all = std::accumulate(score.begin(), score.end(), 0.0);
      double lse = 0;
      for (size_t e = 0; e < score.size(); ++e) {
        want[e] += score[e] / all;
        want_entropy -= score[e] / all * std::log(score[e] / all);
        lse += std::exp(logits[static_cast<size_t>(r * s.experts) + e]);
      }
      want_lse += std::log(lse) * std::log(lse);
    }
    Call(kFloat, RouterSums{.shape = s,
                            .logits = in.data(),
                            .share = share.data(),
                            .entropy = &entropy,
                            .lse_squared = &lse_squared});
    for (size_t e = 0; e < share.size(); ++e) EXPECT_NEAR(share[e], want[e], 1e-5);
    EXPECT_NEAR(entropy, want_entropy, 1e-4);
    EXPECT_NEAR(lse_squared, want_lse, 1e-4);
    // What a load adds up: the same, who chose whom, and the two along each other.
    std::vector<int32_t> expert;
    std::vector<int64_t> tokens(share.size(), 2), want_tokens = tokens;
    for (int64_t i = 0; i < s.rows * s.per_token; ++i) {
      expert.push_back(static_cast<int32_t>(i * i % s.experts));
      ++want_tokens[static_cast<size_t>(expert.back())];
    }
    const std::vector<int64_t> capacity(share.size(), 1);
    double load_entropy = 0, load_lse = 0, aux = 5, want_aux = 0;
    int64_t dropped = 1, want_dropped = 1;
    for (size_t e = 0; e < share.size(); ++e) {
      want_aux += static_cast<double>(want_tokens[e] - 2) * (share[e] - 1);
      want_dropped += std::max<int64_t>(0, want_tokens[e] - 2 - 1);
    }
    Call(kFloat, RouterLoad{.shape = s,
                            .logits = in.data(),
                            .expert = expert.data(),
                            .capacity = capacity.data(),
                            .tokens = tokens.data(),
                            .dropped = &dropped,
                            .entropy = &load_entropy,
                            .lse_squared = &load_lse,
                            .aux = &aux});
    EXPECT_EQ(tokens, want_tokens);
    EXPECT_EQ(dropped, want_dropped);
    EXPECT_NEAR(load_entropy, entropy - 2, 1e-9);
    EXPECT_NEAR(load_lse, lse_squared - 3, 1e-9);
    EXPECT_NEAR(aux, 5 + s.experts * want_aux / static_cast<double>(s.rows), 1e-9);
  }
}

TEST(ExpertsKernelTest, DispatchLaysTokensByExpertAndDropsTheLightestBeyondACapacity) {
  //                      token 0  1     2     3
  const std::vector<int32_t> expert = {0, 2, 0, 1, 0, 2, 0, 2};
  const std::vector<float> weight = {0.3f, 0.7f, 0.5f, 0.5f, 0.4f, 0.6f, 0.5f, 0.5f};
  std::vector<int32_t> begin(4), slot(8), token(8);
  std::vector<float> slot_weight(8);
  DispatchTokens dispatch = {.rows = 4,
                             .experts = 3,
                             .per_token = 2,
                             .expert = expert.data(),
                             .weight = weight.data(),
                             .begin = begin.data(),
                             .slot = slot.data(),
                             .token = token.data(),
                             .slot_weight = slot_weight.data()};
  Call(kFloat, dispatch);
  EXPECT_EQ(begin, (std::vector<int32_t>{0, 4, 5, 8}));
  EXPECT_EQ(slot, (std::vector<int32_t>{0, 5, 1, 4, 2, 6, 3, 7}));
  EXPECT_EQ(token, (std::vector<int32_t>{0, 1, 2, 3, 1, 0, 2, 3}));
  EXPECT_EQ(slot_weight[2], 0.4f);
  const std::vector<int64_t> capacity = {2, 0, 9};
  dispatch.capacity = capacity.data();
  Call(kFloat, dispatch);
  EXPECT_EQ(begin, (std::vector<int32_t>{0, 2, 2, 5}));
  EXPECT_EQ(slot, (std::vector<int32_t>{-1, 2, 0, -1, -1, 3, 1, 4}));
  EXPECT_EQ(token[0], 1);
  EXPECT_EQ(token[1], 3);
}

TEST(ExpertsKernelTest, CombineAddsWeightedSlotsAndWeighIsItsBackward) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Launch launch = {.stream = Device::kCpu, .dtype = dtype};
    constexpr int64_t kRows = 3, kWidth = 700, kSlots = 5;
    const auto y = ToDouble(Normal(kSlots * kWidth, 7, dtype)),
               before = ToDouble(Normal(kRows * kWidth, 8, dtype));
    const std::vector<int32_t> slot = {4, 0, -1, 2, 1, 3};
    const std::vector<float> weight = {0.5f, 0.25f, 9.0f, 2.0f, 1.0f, 0.125f};
    for (const bool accumulate : {false, true}) {
      Tensor ty({Device::kCpu, dtype}, Floats(y)), out({Device::kCpu, dtype}, Floats(before));
      Call(launch, CombineExperts{.y = ty.data(),
                                  .slot = slot.data(),
                                  .weight = weight.data(),
                                  .rows = kRows,
                                  .width = kWidth,
                                  .per_token = 2,
                                  .accumulate = accumulate,
                                  .out = out.data()});
      std::vector<double> want(static_cast<size_t>(kRows * kWidth));
      for (int64_t i = 0; i < kRows * kWidth; ++i) {
        const int64_t r = i / kWidth, j = i % kWidth;
        double sum = accumulate ? before[static_cast<size_t>(i)] : 0;
        for (int64_t k = 2 * r; k < 2 * r + 2; ++k) {
          if (slot[static_cast<size_t>(k)] >= 0)
            sum += static_cast<double>(weight[static_cast<size_t>(k)]) *
                   y[static_cast<size_t>(slot[static_cast<size_t>(k)] * kWidth + j)];
        }
        want[static_cast<size_t>(i)] = sum;
      }
      ExpectClose(out.Host(), want, OutputRounding(dtype), 8 * kEps * 4, "out");
    }
    const auto dact = ToDouble(Normal(kSlots * kWidth, 9, dtype));
    Tensor ta({Device::kCpu, dtype}, Floats(y)), td({Device::kCpu, dtype}, Floats(dact));
    std::vector<float> dweight(kSlots);
    Call(launch, WeighSlots{.weight = weight.data(),
                            .slots = kSlots,
                            .width = kWidth,
                            .act = ta.data(),
                            .dact = td.data(),
                            .dweight = dweight.data()});
    std::vector<double> weighed(y.size());
    for (size_t i = 0; i < y.size(); ++i)
      weighed[i] = y[i] * static_cast<double>(weight[i / kWidth]);
    ExpectClose(ta.Host(), weighed, OutputRounding(dtype), 4 * kEps, "act");
    for (size_t s = 0; s < kSlots; ++s) {
      double dot = 0;
      for (size_t i = s * kWidth; i < (s + 1) * kWidth; ++i) dot += y[i] * dact[i];
      EXPECT_NEAR(dweight[s], dot, 1e-3);
    }
  }
}

}  // namespace
}  // namespace plumb::kernels
