// kernels/sparse/table_attention.h over attention_varlen.h, from the definition in double.
#include "kernels/sparse/table_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/attention_varlen.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

constexpr int32_t kHeads = 3, kDim = 10, kLength = 12, kWidth = 3 * kHeads * kDim;
constexpr int64_t kEntries = 23;
constexpr float kScale = 0.3f;

struct Case {
  DType dtype;
  std::vector<float> qkv, q, keys, values, out, lse;

  explicit Case(DType type)
      : dtype(type),
        qkv(Normal(kLength * kWidth, 1, type)),
        q(Normal(kLength * kHeads * kDim, 2, type)),
        keys(Normal(kEntries * kDim, 3)),
        values(Normal(kEntries * kDim, 4)),
        lse(kHeads * kLength) {
    const Target target{Device::kCpu, dtype};
    Tensor bqkv(target, qkv), bq(target, q), bout(target, std::vector<float>(q.size()));
    Call(launch(),
         AttentionVarlen{
             .shape = Sequence(), .qkv = bqkv.data(), .out = bout.data(), .lse = lse.data()});
    Call(launch(),
         TableAttention{.shape = Table(), .q = bq.data(), .out = bout.data(), .lse = lse.data()});
    out = bout.Host();
  }
  Launch launch() const { return {.stream = Device::kCpu, .dtype = dtype}; }
  static VarlenShape Sequence() {
    static const std::vector<int32_t> cu = {0, kLength};
    return {.tokens = kLength,
            .sequences = 1,
            .cu_seqlens = cu.data(),
            .max_seqlen = kLength,
            .heads = kHeads,
            .kv_heads = kHeads,
            .head_dim = kDim,
            .scale = kScale,
            .window = 5};
  }
  TableShape Table() const {
    return {.rows = kLength,
            .heads = kHeads,
            .head_dim = kDim,
            .scale = kScale,
            .keys = keys.data(),
            .values = values.data(),
            .entries = kEntries};
  }
  // sum g . out as a function of the queries that the table sees.
  double Objective(const std::vector<double>& asked, const std::vector<float>& g,
                   std::vector<double>* outputs = nullptr) const {
    double value = 0;
    for (int32_t t = 0; t < kLength; ++t) {
      for (int32_t h = 0; h < kHeads; ++h) {
        const auto at = [&](int32_t token, int32_t head, int32_t i) {
          return static_cast<double>(qkv[static_cast<size_t>(token * kWidth + head * kDim + i)]);
        };
        double all = 0;
        std::vector<double> mixed(kDim);
        const auto add = [&](double score, const auto& value_of) {
          const double p = std::exp(static_cast<double>(kScale) * score);
          all += p;
          for (int32_t i = 0; i < kDim; ++i) mixed[static_cast<size_t>(i)] += p * value_of(i);
        };
        for (int32_t j = std::max(0, t - 4); j <= t; ++j) {
          double s = 0;
          for (int32_t i = 0; i < kDim; ++i) s += at(t, h, i) * at(j, kHeads + h, i);
          add(s, [&](int32_t i) { return at(j, 2 * kHeads + h, i); });
        }
        for (int64_t n = 0; n < kEntries; ++n) {
          const auto row = [&](const std::vector<float>& x, int32_t i) {
            return static_cast<double>(x[static_cast<size_t>(n * kDim + i)]);
          };
          double s = 0;
          for (int32_t i = 0; i < kDim; ++i)
            s += asked[static_cast<size_t>((t * kHeads + h) * kDim + i)] * row(keys, i);
          add(s, [&](int32_t i) { return row(values, i); });
        }
        for (int32_t i = 0; i < kDim; ++i) {
          if (outputs) outputs->push_back(mixed[static_cast<size_t>(i)] / all);
          value += mixed[static_cast<size_t>(i)] / all *
                   static_cast<double>(g[static_cast<size_t>((t * kHeads + h) * kDim + i)]);
        }
      }
    }
    return value;
  }
};

TEST(TableAttention, JoinsTheSoftmaxOfTheSequence) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    WithThreads([&](int) {
      const Case c(dtype);
      std::vector<double> want;
      c.Objective(ToDouble(c.q), std::vector<float>(c.q.size()), &want);
      // The sequence's part is rounded before it is joined.
      ExpectClose(c.out, want, 2 * OutputRounding(dtype) + 1e-5, OutputRounding(dtype), "output");
    });
  }
}

TEST(TableAttention, GradientsOfTheQueriesAreThoseOfFiniteDifferences) {
  const Case c(DType::kFloat32);
  const auto g = Normal(c.q.size(), 9);
  std::vector<float> dq(c.q.size(), kPoison);
  Call(c.launch(), TableAttentionBackward{.shape = c.Table(),
                                          .dout = g.data(),
                                          .q = c.q.data(),
                                          .out = c.out.data(),
                                          .lse = c.lse.data(),
                                          .dq = dq.data()});
  std::vector<double> q = ToDouble(c.q);
  for (size_t i = 0; i < q.size(); ++i)
    EXPECT_NEAR(dq[i], FiniteDifference(q, i, [&] { return c.Objective(q, g); }), 2e-6) << i;
}

}  // namespace
}  // namespace plumb::kernels
