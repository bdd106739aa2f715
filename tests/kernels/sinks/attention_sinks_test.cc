// kernels/sinks/attention_sinks.h: by itself, over attention_varlen.h, and as attention_paged.h has
// it.
#include "kernels/sinks/attention_sinks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/attention_paged.h"
#include "kernels/attention_varlen.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

constexpr int32_t kHeads = 4, kKvHeads = 2, kDim = 8, kLength = 11, kWindow = 6;
constexpr int32_t kWidth = (kHeads + 2 * kKvHeads) * kDim;
const Launch kFloat = {.stream = Device::kCpu, .dtype = DType::kFloat32};

VarlenShape Shape() {
  static const std::vector<int32_t> cu = {0, kLength};
  return {.tokens = kLength,
          .sequences = 1,
          .cu_seqlens = cu.data(),
          .max_seqlen = kLength,
          .heads = kHeads,
          .kv_heads = kKvHeads,
          .head_dim = kDim,
          .scale = 0.4f,
          .window = kWindow};
}

struct Result {
  std::vector<float> out, lse;
};

Result Forward(const std::vector<float>& qkv, const std::vector<float>& sinks) {
  Result r{std::vector<float>(kLength * kHeads * kDim), std::vector<float>(kHeads * kLength)};
  Call(kFloat, AttentionVarlen{
                   .shape = Shape(), .qkv = qkv.data(), .out = r.out.data(), .lse = r.lse.data()});
  Call(kFloat, AttentionSinks{.sinks = sinks.data(),
                              .tokens = kLength,
                              .heads = kHeads,
                              .head_dim = kDim,
                              .out = r.out.data(),
                              .lse = r.lse.data()});
  return r;
}

// sum g . out in double, from the definition.
double Objective(const std::vector<float>& qkv, const std::vector<float>& sinks,
                 const std::vector<float>& g, std::vector<double>* outputs = nullptr) {
  double value = 0;
  for (int32_t t = 0; t < kLength; ++t) {
    for (int32_t h = 0; h < kHeads; ++h) {
      const int32_t kv = h / (kHeads / kKvHeads), first = std::max(0, t - kWindow + 1);
      const auto at = [&](int32_t token, int32_t head, int32_t i) {
        return static_cast<double>(qkv[static_cast<size_t>(token * kWidth + head * kDim + i)]);
      };
      double all = std::exp(static_cast<double>(sinks[static_cast<size_t>(h)]));
      std::vector<double> p;
      for (int32_t j = first; j <= t; ++j) {
        double s = 0;
        for (int32_t i = 0; i < kDim; ++i) s += at(t, h, i) * at(j, kHeads + kv, i);
        p.push_back(std::exp(static_cast<double>(0.4f) * s));
        all += p.back();
      }
      for (int32_t i = 0; i < kDim; ++i) {
        double mixed = 0;
        for (int32_t j = first; j <= t; ++j)
          mixed += p[static_cast<size_t>(j - first)] / all * at(j, kHeads + kKvHeads + kv, i);
        if (outputs) outputs->push_back(mixed);
        value += mixed * static_cast<double>(g[static_cast<size_t>((t * kHeads + h) * kDim + i)]);
      }
    }
  }
  return value;
}

TEST(AttentionSinks, TakeAShareOfEverySoftmax) {
  const auto qkv = Normal(kLength * kWidth, 1, DType::kFloat32);
  const std::vector<float> sinks = {0.3f, -2, 5, -60};
  std::vector<double> want;
  Objective(qkv, sinks, std::vector<float>(kLength * kHeads * kDim), &want);
  const Result got = Forward(qkv, sinks);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got.out[i], want[i], 3e-6) << i;
}

TEST(AttentionSinks, GradientsAreThoseOfFiniteDifferences) {
  auto qkv = Normal(kLength * kWidth, 2, DType::kFloat32);
  std::vector<float> sinks = {0.3f, -2, 3, 1};
  const auto g = Normal(kLength * kHeads * kDim, 3, DType::kFloat32);
  const Result r = Forward(qkv, sinks);
  std::vector<float> dsinks(kHeads, 0.25f), dqkv(qkv.size());
  Call(kFloat, AttentionSinksBackward{.sinks = sinks.data(),
                                      .dout = g.data(),
                                      .out = r.out.data(),
                                      .lse = r.lse.data(),
                                      .tokens = kLength,
                                      .heads = kHeads,
                                      .head_dim = kDim,
                                      .dsinks = dsinks.data()});
  std::vector<float> scratch(static_cast<size_t>(AttentionVarlenScratch(Shape())));
  Call(kFloat, AttentionVarlenBackward{.shape = Shape(),
                                       .dout = g.data(),
                                       .qkv = qkv.data(),
                                       .out = r.out.data(),
                                       .lse = r.lse.data(),
                                       .dqkv = dqkv.data(),
                                       .scratch = scratch.data()});
  const auto slope = [&](float& x) {
    const float keep = x;
    constexpr float kStep = 1e-3f;
    x = keep + kStep;
    const double above = Objective(qkv, sinks, g), wide = static_cast<double>(x);
    x = keep - kStep;
    const double below = Objective(qkv, sinks, g), width = wide - static_cast<double>(x);
    x = keep;
    return (above - below) / width;
  };
  for (size_t h = 0; h < kHeads; ++h)
    EXPECT_NEAR(dsinks[h] - 0.25f, slope(sinks[h]), 2e-4) << "added to what was there, head " << h;
  for (size_t i = 0; i < qkv.size(); i += 3) EXPECT_NEAR(dqkv[i], slope(qkv[i]), 2e-4) << i;
}

TEST(AttentionSinks, PagedRowsAreThePackedOnes) {
  const auto qkv = Normal(kLength * kWidth, 4, DType::kFloat32);
  const std::vector<float> sinks = {0.3f, -2, 5, -60};
  const Result packed = Forward(qkv, sinks);
  PagedKv kv{.dtype = DType::kFloat32,
             .layers = 1,
             .num_pages = 3,
             .page_tokens = 4,
             .kv_heads = kKvHeads,
             .head_dim = kDim};
  std::vector<float> pages(static_cast<size_t>(kv.layer_stride()), NAN);
  kv.pages = pages.data();
  std::vector<int32_t> table = {0, 1, 2}, slot, position;
  for (int32_t t = 0; t < kLength; ++t) {
    slot.push_back(0), position.push_back(t);
    for (int32_t which = 0; which < 2; ++which) {
      for (int32_t h = 0; h < kKvHeads; ++h) {
        std::copy_n(qkv.begin() + t * kWidth + (kHeads + which * kKvHeads + h) * kDim, kDim,
                    pages.begin() + t / 4 * kv.page_stride() + which * kv.kv_stride() +
                        h * kv.head_stride() + t % 4 * kv.row_stride());
      }
    }
  }
  std::vector<float> out(packed.out.size());
  Call(kFloat, AttentionPaged{.q = qkv.data(),
                              .q_stride = kWidth,
                              .rows = {kLength, slot.data(), position.data(), table.data(), 3},
                              .heads = kHeads,
                              .kv = kv,
                              .scale = 0.4f,
                              .window = kWindow,
                              .sinks = sinks.data(),
                              .out = out.data()});
  for (size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], packed.out[i], 3e-6) << i;
}

}  // namespace
}  // namespace plumb::kernels
