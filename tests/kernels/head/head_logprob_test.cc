#include "kernels/head/head_logprob.h"

#include <algorithm>
#include <array>

#include "kernels/token_mask.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

struct Problem {
  size_t rows, hidden, vocab;
  double temperature = 1;
  std::vector<int32_t> target = {}, dropped = {};
  std::vector<uint32_t> kept = {};  // words, or empty
  std::vector<float> g = {}, h = {};
  bool Out(size_t r, size_t j) const {
    if (std::find(dropped.begin(), dropped.end(), static_cast<int32_t>(j)) != dropped.end())
      return true;
    const auto words = static_cast<size_t>(SetWords(static_cast<int64_t>(vocab)));
    return !kept.empty() && !(kept[r * words + j / 32] >> (j % 32) & 1);
  }
};

Problem Make(size_t rows, size_t hidden, size_t vocab, bool masked) {
  Problem p{.rows = rows, .hidden = hidden, .vocab = vocab};
  p.temperature = masked ? 0.7 : 1.0;
  const auto words = static_cast<size_t>(SetWords(static_cast<int64_t>(vocab)));
  p.g = Normal(rows, 5);
  p.h = Normal(rows, 6, DType::kFloat32, 0.3f);
  p.kept.assign(masked ? rows * words : 0, 0);
  for (size_t r = 0; r < rows; ++r)
    p.target.push_back(static_cast<int32_t>((r * 7919 + 3) % vocab));
  if (!masked) return p;
  RandomStream random(1, 9);
  for (uint32_t& w : p.kept) w = random.NextBits();
  for (size_t j = 0; j < vocab; j += 11) {
    if (std::find(p.target.begin(), p.target.end(), static_cast<int32_t>(j)) == p.target.end())
      p.dropped.push_back(static_cast<int32_t>(j));
  }
  for (size_t r = 0; r < rows; ++r) {
    const auto t = static_cast<size_t>(p.target[r]);
    p.kept[r * words + t / 32] |= 1u << (t % 32);
  }
  return p;
}

struct Scores {
  std::vector<double> logprob, entropy, lse, probability;  // the last [rows, vocab]
};

Scores Reference(const Problem& p, const std::vector<double>& x, const std::vector<double>& w) {
  Scores e;
  for (size_t r = 0; r < p.rows; ++r) {
    std::vector<double> z(p.vocab, -INFINITY);
    double top = -INFINITY, sum = 0, weighted = 0;
    for (size_t j = 0; j < p.vocab; ++j) {
      if (p.Out(r, j)) continue;
      z[j] = 0;
      for (size_t i = 0; i < p.hidden; ++i) z[j] += x[r * p.hidden + i] * w[j * p.hidden + i];
      z[j] /= p.temperature;
      top = std::max(top, z[j]);
    }
    for (const double v : z) {
      sum += std::exp(v - top);
      if (std::isfinite(v)) weighted += std::exp(v - top) * (v - top);
    }
    e.lse.push_back(top + std::log(sum));
    e.logprob.push_back(z[static_cast<size_t>(p.target[r])] - e.lse.back());
    e.entropy.push_back(std::log(sum) - weighted / sum);
    for (const double v : z) e.probability.push_back(std::exp(v - e.lse.back()));
  }
  return e;
}

struct Result {
  std::vector<float> logprob, entropy, lse, dx, dw;
};

// Of the first `rows` rows of the problem. dw begins at 1 everywhere.
Result RunHead(const Problem& p, DType dtype, const std::vector<float>& x,
               const std::vector<float>& w, size_t rows, bool with_entropy = true,
               bool weights = true) {
  const Target target{Device::kCpu, dtype};
  Tensor dev_x(target, x), dev_w(target, w), dx(target, rows * p.hidden);
  const HeadShape shape{.x = dev_x.data(),
                        .w = dev_w.data(),
                        .target = p.target.data(),
                        .rows = static_cast<int64_t>(rows),
                        .hidden = static_cast<int64_t>(p.hidden),
                        .vocab = static_cast<int64_t>(p.vocab),
                        .temperature = static_cast<float>(p.temperature),
                        .dropped = p.dropped.data(),
                        .dropped_count = static_cast<int64_t>(p.dropped.size()),
                        .kept = p.kept.empty() ? nullptr : p.kept.data()};
  std::vector<float> scratch(
      static_cast<size_t>(HeadScratch(shape.rows, shape.hidden, shape.vocab)), NAN);
  Result out{std::vector<float>(rows),
             std::vector<float>(rows),
             std::vector<float>(rows),
             {},
             std::vector<float>(p.vocab * p.hidden, 1.0f)};
  const Launch launch{.dtype = dtype};
  Call(launch, HeadLogprob{.shape = shape,
                           .logprob = out.logprob.data(),
                           .entropy = out.entropy.data(),
                           .lse = out.lse.data(),
                           .scratch = scratch.data()});
  std::fill(scratch.begin(), scratch.end(), NAN);
  Call(launch, HeadLogprobBackward{.shape = shape,
                                   .lse = out.lse.data(),
                                   .entropy = with_entropy ? out.entropy.data() : nullptr,
                                   .g_logprob = p.g.data(),
                                   .g_entropy = with_entropy ? p.h.data() : nullptr,
                                   .dx = dx.data(),
                                   .dw = weights ? out.dw.data() : nullptr,
                                   .scratch = scratch.data()});
  out.dx = dx.Host();
  return out;
}

class HeadLogprobTest : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, HeadLogprobTest,
                         ::testing::Values(DType::kFloat32, DType::kBFloat16),
                         [](const auto& info) {
                           return info.param == DType::kFloat32 ? "Float" : "Bf16";
                         });

// A logit is one sum of `hidden` products of size 1 / sqrt(hidden), below 6 in all.
double LogitError(const Problem& p) {
  const double root = std::sqrt(static_cast<double>(p.hidden));
  return 4 * kEps * (2 + root) / p.temperature + 8 * kEps / p.temperature;
}

// Partial tiles, panels and pieces of the vocabulary, masked and not, against double.
TEST_P(HeadLogprobTest, IsTheReferenceForwardAndBackward) {
  const DType dtype = GetParam();
  for (const auto& [rows, hidden, vocab] : std::vector<std::array<size_t, 3>>{
           {1, 1, 1}, {5, 7, 26}, {33, 64, 253}, {17, 100, 1003}, {70, 31, 600}}) {
    for (const bool masked : {false, true}) {
      for (const bool with_entropy : {true, false}) {
        const Problem p = Make(rows, hidden, vocab, masked);
        const auto x = Normal(rows * hidden, 1, dtype);
        auto w =
            Normal(vocab * hidden, 2, DType::kFloat32, 1 / std::sqrt(static_cast<float>(hidden)));
        if (dtype == DType::kBFloat16) {
          for (float& v : w) v = ToFloat(ToBFloat16(v));
        }
        const Scores e = Reference(p, ToDouble(x), ToDouble(w));
        const Result got = RunHead(p, dtype, x, w, rows, with_entropy);
        const std::string what = std::to_string(rows) + "x" + std::to_string(hidden) + "x" +
                                 std::to_string(vocab) + (masked ? " masked" : "");
        // Sums of positive terms in pieces: 100 eps, as TokenLogprob's; an entropy moves with its
        // logits by less than twice their error times their spread.
        const double logit = LogitError(p), absolute = 2 * logit + 220 * kEps;
        ExpectClose(got.logprob, e.logprob, 0, absolute, "logprob " + what);
        ExpectClose(got.lse, e.lse, 0, absolute, "lse " + what);
        ExpectClose(got.entropy, e.entropy, 100 * kEps, 24 * logit + 220 * kEps, "entropy " + what);
        // Gradients of logits carry the error of p and, as bfloat16, one rounding each.
        std::vector<double> dx(rows * hidden), dw(vocab * hidden, 1.0), x_terms(dx), w_terms(dw);
        for (size_t r = 0; r < rows; ++r) {
          for (size_t j = 0; j < vocab; ++j) {
            const double q = e.probability[r * vocab + j];
            double d = -static_cast<double>(p.g[r]) * q;
            if (with_entropy && q > 0)
              d -= static_cast<double>(p.h[r]) * q * (std::log(q) + e.entropy[r]);
            if (static_cast<size_t>(p.target[r]) == j) d += static_cast<double>(p.g[r]);
            d /= p.temperature;
            for (size_t i = 0; i < hidden; ++i) {
              const double wi = static_cast<double>(w[j * hidden + i]),
                           xi = static_cast<double>(x[r * hidden + i]);
              dx[r * hidden + i] += d * wi;
              x_terms[r * hidden + i] += std::abs(d * wi) + q * std::abs(wi);
              dw[j * hidden + i] += d * xi;
              w_terms[j * hidden + i] += std::abs(d * xi) + q * std::abs(xi);
            }
          }
        }
        const double step = (dtype == DType::kBFloat16 ? kHalfBf16 : 0) + 60 * logit + 600 * kEps;
        const auto most = [](const std::vector<double>& v) {
          return *std::max_element(v.begin(), v.end());
        };
        ExpectClose(got.dx, dx, OutputRounding(dtype), step * most(x_terms), "dx " + what);
        ExpectClose(got.dw, dw, kEps, step * most(w_terms), "dw " + what);
        ExpectSameBits(RunHead(p, dtype, x, w, rows, with_entropy, false).dx, got.dx,
                       "without the weights' gradient");
      }
    }
  }
}

TEST_P(HeadLogprobTest, BackwardIsTheFiniteDifference) {
  const DType dtype = GetParam();
  const Problem p = Make(3, 5, 41, true);
  const auto x = Normal(p.rows * p.hidden, 3, dtype), w = Normal(p.vocab * p.hidden, 4, dtype);
  auto xd = ToDouble(x), wd = ToDouble(w);
  const auto loss = [&] {
    const Scores e = Reference(p, xd, wd);
    double sum = 0;
    for (size_t r = 0; r < p.rows; ++r)
      sum +=
          e.logprob[r] * static_cast<double>(p.g[r]) + e.entropy[r] * static_cast<double>(p.h[r]);
    return sum;
  };
  std::vector<double> dx, dw;
  for (size_t i = 0; i < xd.size(); ++i) dx.push_back(FiniteDifference(xd, i, loss));
  for (size_t i = 0; i < wd.size(); ++i) dw.push_back(1 + FiniteDifference(wd, i, loss));
  const Result got = RunHead(p, dtype, x, w, p.rows);
  // A row's gradients of logits are below 3 together, operands below 4; the rest are roundings.
  const double step = (dtype == DType::kBFloat16 ? kHalfBf16 : 0) + 64 * kEps;
  ExpectClose(got.dx, dx, OutputRounding(dtype), 3 * 4 * step + 1e-8, "dx");
  ExpectClose(got.dw, dw, OutputRounding(DType::kFloat32), 3 * 4 * step + 1e-8, "dw");
}

TEST_P(HeadLogprobTest, ARowDoesNotKnowItsBatchNorTheThreads) {
  const DType dtype = GetParam();
  const Problem p = Make(70, 48, 5000, false);
  const auto x = Normal(p.rows * p.hidden, 1, dtype),
             w = Normal(p.vocab * p.hidden, 2, dtype, 0.1f);
  const Result all = RunHead(p, dtype, x, w, p.rows);
  for (const size_t rows : {1, 5, 32, 33, 70}) {
    WithThreads([&](int) {
      const Result some = RunHead(p, dtype, x, w, rows);
      const auto first = [](const std::vector<float>& v, size_t n) {
        return std::vector<float>(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(n));
      };
      ExpectSameBits(some.logprob, first(all.logprob, rows), "logprob");
      ExpectSameBits(some.entropy, first(all.entropy, rows), "entropy");
      ExpectSameBits(some.dx, first(all.dx, rows * p.hidden), "dx");
      if (rows == p.rows) ExpectSameBits(some.dw, all.dw, "dw");
    });
  }
}

// A logit that is no number makes the log-prob of its row one that is none, and no other.
TEST_P(HeadLogprobTest, ANumberThatIsNoneShows) {
  const Problem p = Make(3, 8, 300, false);
  auto x = Normal(p.rows * p.hidden, 1);
  const auto w = Normal(p.vocab * p.hidden, 2, DType::kFloat32, 0.1f);
  x[p.hidden + 2] = NAN;
  const Result got = RunHead(p, GetParam(), x, w, p.rows);
  EXPECT_TRUE(std::isnan(got.logprob[1]));
  EXPECT_TRUE(std::isfinite(got.logprob[0]) && std::isfinite(got.logprob[2]));
}

TEST(HeadTest, RowsOfACallAreWholePanelsAndFewerWhereTheyAreWide) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Launch launch{.dtype = dtype};
    EXPECT_EQ(HeadRows(launch, 1024) % 32, 0);
    EXPECT_GE(HeadRows(launch, 1 << 20), 32);
    EXPECT_GT(HeadRows(launch, 1024), HeadRows(launch, 4096));
  }
  EXPECT_GE(HeadScratch(33, 64, 1000), 33 * 64);
}

}  // namespace
}  // namespace plumb::kernels
