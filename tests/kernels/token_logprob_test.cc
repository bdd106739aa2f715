#include "kernels/token_logprob.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

struct Expected {
  std::vector<double> logprob, entropy, lse;
};

Expected Reference(const std::vector<double>& x, const std::vector<int32_t>& target, size_t vocab,
                   double temperature) {
  Expected e;
  for (size_t r = 0; r < target.size(); ++r) {
    double top = -INFINITY, sum = 0, weighted = 0;
    for (size_t j = 0; j < vocab; ++j) top = std::max(top, x[r * vocab + j] / temperature);
    for (size_t j = 0; j < vocab; ++j) {
      const double z = x[r * vocab + j] / temperature - top;
      sum += std::exp(z);
      if (std::exp(z) > 0) weighted += std::exp(z) * z;
    }
    e.lse.push_back(std::log(sum) + top);
    e.logprob.push_back(x[r * vocab + static_cast<size_t>(target[r])] / temperature - e.lse.back());
    e.entropy.push_back(std::log(sum) - weighted / sum);
  }
  return e;
}

std::vector<int32_t> Targets(size_t rows, size_t vocab) {
  std::vector<int32_t> target(rows);
  for (size_t r = 0; r < rows; ++r)
    target[r] = static_cast<int32_t>((r * 7919 + vocab - 1) % vocab);
  return target;
}

PLUMB_KERNEL_SUITE(TokenLogprobTest);

TEST_P(TokenLogprobTest, ForwardIsTheReference) {
  for (const auto& [rows, vocab] :
       std::vector<std::pair<size_t, size_t>>{{1, 1}, {5, 26}, {3, 1000}, {2, 49152}, {33, 257}}) {
    for (const double temperature : {1.0, 0.6}) {
      auto x = Normal(rows * vocab, vocab, DType::kFloat32, 4.0f);
      const auto target = Targets(rows, vocab);
      if (vocab > 1) x[static_cast<size_t>(target[0]) == 3 ? 4 : 3] = -INFINITY;  // a masked token
      const auto e = Reference(ToDouble(x), target, vocab, temperature);
      Array<float> logits(device(), x), logprob(device(), rows), entropy(device(), rows),
          lse(device(), rows);
      Array<int32_t> dtarget(device(), target);
      Call(launch(), TokenLogprob{.logits = logits.data(),
                                  .target = dtarget.data(),
                                  .rows = static_cast<int64_t>(rows),
                                  .vocab = static_cast<int64_t>(vocab),
                                  .temperature = static_cast<float>(temperature),
                                  .logprob = logprob.data(),
                                  .entropy = entropy.data(),
                                  .lse = lse.data()});
      // Values up to ~40: their own rounding and that of x / temperature (three of 40 eps), a sum
      // of positive terms whose relative error stays below 100 eps with sums in blocks.
      const double absolute = 3 * 40 * kEps + 100 * kEps;
      const std::string what = std::to_string(rows) + "x" + std::to_string(vocab);
      ExpectClose(logprob.Host(), e.logprob, 0, absolute, "logprob " + what);
      ExpectClose(lse.Host(), e.lse, 0, absolute, "lse " + what);
      ExpectClose(entropy.Host(), e.entropy, 100 * kEps, absolute, "entropy " + what);
      Array<float> again(device(), rows), other(device(), rows);
      Call(launch(), TokenLogprob{.logits = logits.data(),
                                  .target = dtarget.data(),
                                  .rows = static_cast<int64_t>(rows),
                                  .vocab = static_cast<int64_t>(vocab),
                                  .temperature = static_cast<float>(temperature),
                                  .logprob = again.data(),
                                  .lse = other.data()});
      ExpectSameBits(again.Host(), logprob.Host(), "without entropy");
    }
  }
}

TEST_P(TokenLogprobTest, ARowDoesNotKnowItsBatch) {
  constexpr size_t kVocab = 1003;
  const auto x = Normal(32 * kVocab, 1, DType::kFloat32, 3.0f);
  Array<float> logits(device(), x);
  Array<int32_t> target(device(), Targets(32, kVocab));
  std::vector<float> expected;
  for (const int64_t rows : {32, 1, 2, 3, 5}) {
    WithThreads([&](int) {
      Array<float> logprob(device(), static_cast<size_t>(rows)),
          lse(device(), static_cast<size_t>(rows));
      Call(launch(), TokenLogprob{.logits = logits.data(),
                                  .target = target.data(),
                                  .rows = rows,
                                  .vocab = kVocab,
                                  .temperature = 1.0f,
                                  .logprob = logprob.data(),
                                  .lse = lse.data()});
      if (expected.empty()) expected = logprob.Host();
      else
        ExpectSameBits(logprob.Host(), {expected.begin(), expected.begin() + rows},
                       std::to_string(rows));
    });
  }
}

TEST_P(TokenLogprobTest, BackwardIsTheFiniteDifference) {
  constexpr size_t kRows = 3, kVocab = 41;
  constexpr double kTemperature = 0.7;
  const auto x = Normal(kRows * kVocab, 2, DType::kFloat32, 2.0f);
  const auto target = Targets(kRows, kVocab);
  const std::vector<float> g = {1.0f, -0.5f, 0.25f}, h = {0.3f, 0.0f, -0.7f};
  Array<float> logits(device(), x), logprob(device(), kRows), entropy(device(), kRows),
      lse(device(), kRows);
  Array<float> dg(device(), g), dh(device(), h);
  Array<int32_t> dtarget(device(), target);
  Call(launch(), TokenLogprob{.logits = logits.data(),
                              .target = dtarget.data(),
                              .rows = kRows,
                              .vocab = kVocab,
                              .temperature = kTemperature,
                              .logprob = logprob.data(),
                              .entropy = entropy.data(),
                              .lse = lse.data()});
  for (const bool with_entropy : {true, false}) {
    auto xd = ToDouble(x);
    const auto loss = [&] {
      const auto e = Reference(xd, target, kVocab, kTemperature);
      double sum = 0;
      for (size_t r = 0; r < kRows; ++r) {
        sum += e.logprob[r] * static_cast<double>(g[r]) +
               (with_entropy ? e.entropy[r] * static_cast<double>(h[r]) : 0);
      }
      return sum;
    };
    std::vector<double> expected(x.size());
    for (size_t i = 0; i < x.size(); ++i) expected[i] = FiniteDifference(xd, i, loss);
    Tensor dlogits(GetParam(), x.size());
    Call(launch(), TokenLogprobBackward{.logits = logits.data(),
                                        .target = dtarget.data(),
                                        .lse = lse.data(),
                                        .entropy = with_entropy ? entropy.data() : nullptr,
                                        .g_logprob = dg.data(),
                                        .g_entropy = with_entropy ? dh.data() : nullptr,
                                        .rows = kRows,
                                        .vocab = kVocab,
                                        .temperature = kTemperature,
                                        .dlogits = dlogits.data()});
    // The chosen token's entry is a difference of two rounded numbers.
    const double cancel = dtype() == DType::kBFloat16 ? 2 * kHalfBf16 : 0;
    ExpectClose(dlogits.Host(), expected, OutputRounding(dtype()), 32 * kEps + 1e-8 + cancel,
                with_entropy ? "entropy" : "plain");
  }
}

TEST_P(TokenLogprobTest, NotANumberIsNotHidden) {
  auto x = Normal(2 * 50, 2);
  x[60] = NAN;
  Array<float> logits(device(), x), logprob(device(), 2), lse(device(), 2);
  Array<int32_t> target(device(), std::vector<int32_t>{4, 5});
  Call(launch(), TokenLogprob{.logits = logits.data(),
                              .target = target.data(),
                              .rows = 2,
                              .vocab = 50,
                              .temperature = 1.0f,
                              .logprob = logprob.data(),
                              .lse = lse.data()});
  EXPECT_TRUE(std::isfinite(logprob.Host()[0]));
  EXPECT_TRUE(std::isnan(logprob.Host()[1]));
}

}  // namespace
}  // namespace plumb::kernels
