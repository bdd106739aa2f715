// kernels/sparse/chosen_attention.h over attention_varlen.h, and as attention_paged.h has it, from
// the definition in double.
#include "kernels/sparse/chosen_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/attention_paged.h"
#include "kernels/sparse/token_gate.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

constexpr int32_t kHeads = 4, kKvHeads = 2, kDim = 6, kWindow = 4, kCount = 3, kTokens = 40;
constexpr int32_t kWidth = (kHeads + 2 * kKvHeads) * kDim;
constexpr float kScale = 0.4f;
const Launch kFloat = {.stream = Device::kCpu, .dtype = DType::kFloat32};
// A sequence of 19, and one of 9 that two go on from.
const std::vector<int32_t> kBegins = {0, 19, 28, 34, 40}, kParents = {-1, -1, 1, 1};

VarlenShape Shape() {
  return {.tokens = kTokens,
          .sequences = 4,
          .cu_seqlens = kBegins.data(),
          .parents = kParents.data(),
          .max_seqlen = 19,
          .heads = kHeads,
          .kv_heads = kKvHeads,
          .head_dim = kDim,
          .scale = kScale,
          .window = kWindow};
}

struct Result {
  std::vector<float> out, lse;
  std::vector<int32_t> chosen;
};

Result Forward(const std::vector<float>& qkv, const std::vector<float>& gate) {
  Result r{std::vector<float>(kTokens * kHeads * kDim), std::vector<float>(kHeads * kTokens),
           std::vector<int32_t>(kTokens * kCount)};
  Call(kFloat,
       ChooseTokens{
           .shape = Shape(), .gate = gate.data(), .count = kCount, .chosen = r.chosen.data()});
  Call(kFloat, AttentionVarlen{
                   .shape = Shape(), .qkv = qkv.data(), .out = r.out.data(), .lse = r.lse.data()});
  Call(kFloat, ChosenAttention{.shape = Shape(),
                               .qkv = qkv.data(),
                               .gate = gate.data(),
                               .chosen = r.chosen.data(),
                               .count = kCount,
                               .out = r.out.data(),
                               .lse = r.lse.data()});
  return r;
}

// Tokens that each token sees: of its window, and the chosen ones; from the sequences alone.
std::vector<std::pair<int32_t, bool>> SeenBy(int32_t token, const std::vector<int32_t>& chosen) {
  std::vector<std::pair<int32_t, bool>> seen;
  size_t b = 0;
  while (kBegins[b + 1] <= token) ++b;
  std::vector<int32_t> places;
  if (kParents[b] >= 0) {
    const auto of = static_cast<size_t>(kParents[b]);
    for (int32_t t = kBegins[of]; t < kBegins[of + 1]; ++t) places.push_back(t);
  }
  for (int32_t t = kBegins[b]; t <= token; ++t) places.push_back(t);
  for (size_t i = places.size() - std::min<size_t>(places.size(), kWindow); i < places.size(); ++i)
    seen.emplace_back(places[i], false);
  for (int32_t c = 0; c < kCount; ++c) {
    const int32_t j = chosen[static_cast<size_t>(token * kCount + c)];
    if (j >= 0) seen.emplace_back(j, true);
  }
  return seen;
}

// sum g . out, with the sets given.
double Objective(const std::vector<double>& qkv, const std::vector<double>& gate,
                 const std::vector<float>& g, const std::vector<int32_t>& chosen,
                 std::vector<double>* outputs = nullptr) {
  double value = 0;
  for (int32_t t = 0; t < kTokens; ++t) {
    const auto seen = SeenBy(t, chosen);
    for (int32_t h = 0; h < kHeads; ++h) {
      const int32_t kv = h / (kHeads / kKvHeads);
      const auto at = [&](int32_t token, int32_t head, int32_t i) {
        return qkv[static_cast<size_t>(token * kWidth + head * kDim + i)];
      };
      double all = 0;
      std::vector<double> p;
      for (const auto& [j, far] : seen) {
        double s = 0;
        for (int32_t i = 0; i < kDim; ++i) s += at(t, h, i) * at(j, kHeads + kv, i);
        s *= static_cast<double>(kScale);
        p.push_back(std::exp(s) * (far ? 1 / (1 + std::exp(-gate[static_cast<size_t>(j)])) : 1.0));
        all += p.back();
      }
      for (int32_t i = 0; i < kDim; ++i) {
        double mixed = 0;
        for (size_t n = 0; n < seen.size(); ++n)
          mixed += p[n] / all * at(seen[n].first, kHeads + kKvHeads + kv, i);
        if (outputs) outputs->push_back(mixed);
        value += mixed * static_cast<double>(g[static_cast<size_t>((t * kHeads + h) * kDim + i)]);
      }
    }
  }
  return value;
}

TEST(ChosenAttention, JoinsTheSoftmaxOfTheWindow) {
  const auto qkv = Normal(kTokens * kWidth, 1), gate = Normal(kTokens, 2);
  WithThreads([&](int) {
    const Result got = Forward(qkv, gate);
    std::vector<double> want;
    Objective(ToDouble(qkv), ToDouble(gate), std::vector<float>(got.out.size()), got.chosen, &want);
    ExpectClose(got.out, want, 1e-5, 2e-6, "output");
  });
}

TEST(ChosenAttention, GradientsAreThoseOfFiniteDifferences) {
  const auto qkv = Normal(kTokens * kWidth, 3), gate = Normal(kTokens, 4),
             g = Normal(kTokens * kHeads * kDim, 5);
  const Result r = Forward(qkv, gate);
  WithThreads([&](int) {
    std::vector<float> dqkv(qkv.size()), dgate(gate.size(), kPoison);
    std::vector<float> scratch(static_cast<size_t>(
        std::max(AttentionVarlenScratch(Shape()), ChosenAttentionScratch(Shape()))));
    Call(kFloat, AttentionVarlenBackward{.shape = Shape(),
                                         .dout = g.data(),
                                         .qkv = qkv.data(),
                                         .out = r.out.data(),
                                         .lse = r.lse.data(),
                                         .dqkv = dqkv.data(),
                                         .scratch = scratch.data()});
    Call(kFloat, ChosenAttentionBackward{.shape = Shape(),
                                         .dout = g.data(),
                                         .qkv = qkv.data(),
                                         .out = r.out.data(),
                                         .lse = r.lse.data(),
                                         .gate = gate.data(),
                                         .chosen = r.chosen.data(),
                                         .count = kCount,
                                         .dqkv = dqkv.data(),
                                         .dgate = dgate.data(),
                                         .scratch = scratch.data()});
    // The sets stay: they are not part of what is differentiated.
    std::vector<double> x = ToDouble(qkv), y = ToDouble(gate);
    const auto loss = [&] { return Objective(x, y, g, r.chosen); };
    for (size_t i = 0; i < x.size(); i += 7)
      EXPECT_NEAR(dqkv[i], FiniteDifference(x, i, loss), 2e-5) << i;
    for (size_t i = 0; i < y.size(); ++i)
      EXPECT_NEAR(dgate[i], FiniteDifference(y, i, loss), 2e-5) << i;
  });
}

TEST(ChosenAttention, PagedRowsAreThePackedOnes) {
  const auto qkv = Normal(kTokens * kWidth, 6), gate = Normal(kTokens, 7);
  const Result packed = Forward(qkv, gate);
  constexpr int32_t kLength = 19;
  PagedKv kv{.dtype = DType::kFloat32,
             .layers = 1,
             .num_pages = 5,
             .page_tokens = 4,
             .kv_heads = kKvHeads,
             .head_dim = kDim};
  std::vector<float> pages(static_cast<size_t>(kv.layer_stride()), NAN);
  kv.pages = pages.data();
  const std::vector<int32_t> table = {4, 1, 3, 0, 2};
  std::vector<int32_t> slot, position;
  for (int32_t t = 0; t < kLength; ++t) {
    slot.push_back(0), position.push_back(t);
    for (int32_t which = 0; which < 2; ++which) {
      for (int32_t h = 0; h < kKvHeads; ++h) {
        std::copy_n(qkv.begin() + t * kWidth + (kHeads + which * kKvHeads + h) * kDim, kDim,
                    pages.begin() + table[static_cast<size_t>(t / 4)] * kv.page_stride() +
                        which * kv.kv_stride() + h * kv.head_stride() + t % 4 * kv.row_stride());
      }
    }
  }
  std::vector<float> state(static_cast<size_t>(ChoiceState(kWindow, kCount))),
      weight(kLength * kCount), out(kLength * kHeads * kDim), lse(kHeads * kLength);
  std::vector<int32_t> chosen(kLength * kCount);
  const PagedRows rows{kLength, slot.data(), position.data(), table.data(), 5};
  Call(kFloat, ChooseTokensStep{.rows = rows,
                                .states = {state.data(), ChoiceState(kWindow, kCount)},
                                .window = kWindow,
                                .count = kCount,
                                .gate = gate.data(),
                                .chosen = chosen.data(),
                                .weight = weight.data()});
  Call(kFloat, AttentionPaged{.q = qkv.data(),
                              .q_stride = kWidth,
                              .rows = rows,
                              .heads = kHeads,
                              .kv = kv,
                              .scale = kScale,
                              .window = kWindow,
                              .chosen = chosen.data(),
                              .chosen_weight = weight.data(),
                              .chosen_count = kCount,
                              .out = out.data(),
                              .lse = lse.data()});
  for (size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], packed.out[i], 3e-6) << i;
  for (size_t h = 0; h < kHeads; ++h) {
    for (size_t t = 0; t < kLength; ++t)
      EXPECT_NEAR(lse[h * kLength + t], packed.lse[h * kTokens + t], 3e-6);
  }
}

}  // namespace
}  // namespace plumb::kernels
