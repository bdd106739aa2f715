#include "kernels/head/picked_logprob.h"

#include <algorithm>

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

// Log-probs of the picks, one row after the other.
std::vector<double> Reference(const std::vector<double>& x, const std::vector<int32_t>& ids,
                              size_t rows, double temperature) {
  const size_t vocab = x.size() / rows, picks = ids.size() / rows;
  std::vector<double> out;
  for (size_t r = 0; r < rows; ++r) {
    double top = -INFINITY, sum = 0;
    for (size_t j = 0; j < vocab; ++j) top = std::max(top, x[r * vocab + j] / temperature);
    for (size_t j = 0; j < vocab; ++j) sum += std::exp(x[r * vocab + j] / temperature - top);
    for (size_t i = 0; i < picks; ++i) {
      const int32_t id = ids[r * picks + i];
      out.push_back(id < 0 ? -INFINITY
                           : x[r * vocab + static_cast<size_t>(id)] / temperature - top -
                                 std::log(sum));
    }
  }
  return out;
}

PLUMB_KERNEL_SUITE(PickedLogprobTest);

TEST_P(PickedLogprobTest, ForwardIsTheReferenceAndARowDoesNotKnowItsBatch) {
  constexpr size_t kRows = 5, kVocab = 9001, kPicks = 4;
  constexpr float kTemperature = 0.7f;
  auto x = Normal(kRows * kVocab, 1, DType::kFloat32, 3.0f);
  x[7] = -INFINITY;  // a masked token
  std::vector<int32_t> ids;
  for (size_t i = 0; i < kRows * kPicks; ++i) ids.push_back(static_cast<int32_t>(i * 431 + 11));
  ids[2] = -1;
  const auto expected = Reference(ToDouble(x), ids, kRows, static_cast<double>(kTemperature));
  Array<float> logits(device(), x);
  Array<int32_t> dids(device(), ids);
  std::vector<float> whole;
  for (const size_t rows : {kRows, size_t{1}, size_t{3}}) {
    Array<float> logprob(device(), rows * kPicks), lse(device(), rows);
    Array<int32_t> best(device(), rows);
    Call(launch(), PickedLogprob{.logits = logits.data(),
                                 .ids = dids.data(),
                                 .rows = static_cast<int64_t>(rows),
                                 .vocab = kVocab,
                                 .picks = kPicks,
                                 .temperature = kTemperature,
                                 .logprob = logprob.data(),
                                 .lse = lse.data(),
                                 .best = best.data()});
    const auto got = logprob.Host();
    if (rows == kRows) whole = got;
    for (size_t i = 0; i < rows * kPicks; ++i) {
      EXPECT_EQ(got[i], whole[i]) << i;
      if (ids[i] < 0) EXPECT_EQ(got[i], -INFINITY);
      else EXPECT_NEAR(static_cast<double>(got[i]), expected[i], 200 * kEps) << i;
    }
    const auto most = best.Host();
    for (size_t r = 0; r < rows; ++r) {
      const auto row = x.begin() + static_cast<int64_t>(r * kVocab);
      EXPECT_EQ(most[r], std::max_element(row, row + kVocab) - row);
    }
  }
}

TEST_P(PickedLogprobTest, BackwardIsTheFiniteDifferenceAndIsAdded) {
  constexpr size_t kRows = 3, kVocab = 29, kPicks = 3;
  constexpr double kTemperature = 1.7;
  const auto x = Normal(kRows * kVocab, 2, DType::kFloat32, 2.0f);
  const std::vector<int32_t> ids = {4, 0, 28, 7, -1, 9, 1, 2, 3};
  const std::vector<float> g = {0.5f, -1.0f, 0.25f, 1.0f, 9.0f, -0.75f, 0.1f, 0.2f, -0.3f};
  auto xd = ToDouble(x);
  const auto loss = [&] {
    const auto lp = Reference(xd, ids, kRows, kTemperature);
    double sum = 0;
    for (size_t i = 0; i < lp.size(); ++i)
      sum += ids[i] < 0 ? 0 : lp[i] * static_cast<double>(g[i]);
    return sum;
  };
  std::vector<double> expected(x.size());
  for (size_t i = 0; i < x.size(); ++i) expected[i] = 0.5 + FiniteDifference(xd, i, loss);
  Array<float> logits(device(), x), logprob(device(), ids.size()), lse(device(), kRows),
      dg(device(), g);
  Array<int32_t> dids(device(), ids), best(device(), kRows);
  Call(launch(), PickedLogprob{.logits = logits.data(),
                               .ids = dids.data(),
                               .rows = kRows,
                               .vocab = kVocab,
                               .picks = kPicks,
                               .temperature = static_cast<float>(kTemperature),
                               .logprob = logprob.data(),
                               .lse = lse.data(),
                               .best = best.data()});
  Tensor dlogits(GetParam(), std::vector<float>(x.size(), 0.5f));
  Call(launch(), PickedLogprobBackward{.logits = logits.data(),
                                       .ids = dids.data(),
                                       .lse = lse.data(),
                                       .g = dg.data(),
                                       .rows = kRows,
                                       .vocab = kVocab,
                                       .picks = kPicks,
                                       .temperature = static_cast<float>(kTemperature),
                                       .dlogits = dlogits.data()});
  // Two additions into the element type near 0.5, and the finite difference's own error.
  ExpectClose(dlogits.Host(), expected, 0, dtype() == DType::kBFloat16 ? 6e-3 : 1e-5, "dlogits");
}

TEST(TopTokensTest, TheLargestFirstAndNoMaskedOne) {
  const std::vector<float> x = {1,         5,         -INFINITY, 5,         2,
                                0,         0,         0,         0,         0,  //
                                -INFINITY, -INFINITY, 3,         -INFINITY, -INFINITY};
  std::vector<int32_t> ids(9, 77);
  Call(Launch{},
       TopTokens{.logits = x.data(), .rows = 3, .vocab = 5, .count = 3, .ids = ids.data()});
  EXPECT_EQ(ids, (std::vector<int32_t>{1, 3, 4, 0, 1, 2, 2, -1, -1}));
}

}  // namespace
}  // namespace plumb::kernels
