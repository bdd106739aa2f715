#include "kernels/sampling.h"

#include <algorithm>
#include <numeric>

#include "kernels/token_mask.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

struct Drawn {
  std::vector<int32_t> token;
  std::vector<float> logprob;
  std::vector<uint32_t> kept;  // [rows, SetWords(vocab)]
};

// The filtered distribution by sorting everything, in double; relative probabilities are rounded to
// float first, so that ties are ties. Zeros are filtered out.
std::vector<double> Reference(const std::vector<float>& x, const SamplingOptions& o) {
  const float top = *std::max_element(x.begin(), x.end());
  const float scale = o.temperature == 0 ? 1.0f : 1.0f / o.temperature;
  std::vector<double> p(x.size());
  for (size_t i = 0; i < x.size(); ++i) p[i] = std::exp(static_cast<double>((x[i] - top) * scale));
  if (o.temperature != 0) {
    auto sorted = p;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    double threshold = static_cast<double>(o.min_p);
    if (o.top_k > 0 && static_cast<size_t>(o.top_k) < sorted.size()) {
      threshold = std::max(threshold, sorted[static_cast<size_t>(o.top_k) - 1]);
      std::erase_if(sorted, [&](double v) { return v < sorted[static_cast<size_t>(o.top_k) - 1]; });
    }
    if (o.top_p < 1) {
      const double goal =
          static_cast<double>(o.top_p) * std::accumulate(sorted.begin(), sorted.end(), 0.0);
      double mass = 0;
      for (const double v : sorted) {
        mass += v;
        if (mass >= goal) {
          threshold = std::max(threshold, v);
          break;
        }
      }
    }
    for (double& v : p) v = v >= threshold ? v : 0;
  }
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& v : p) v /= sum;
  return p;
}

// Sampling takes float logits whatever the element type: one target a device.
class Sampling : public KernelTest {
 protected:
  Drawn Draw(const std::vector<float>& x, size_t rows, const SamplingOptions& o,
             uint32_t first_sample = 0) {
    const size_t vocab = x.size() / rows;
    std::vector<uint64_t> prompt(rows, (uint64_t{7} << 32) + 5);
    std::vector<uint32_t> sample(rows);
    std::vector<int32_t> position(rows, 11);
    std::iota(sample.begin(), sample.end(), first_sample);
    Array<float> logits(device(), x), logprob(device(), rows);
    Array<uint64_t> dprompt(device(), prompt);
    Array<uint32_t> dsample(device(), sample);
    Array<int32_t> dposition(device(), position), token(device(), rows);
    Array<char> scratch(device(), static_cast<size_t>(SamplingScratch(
                                      static_cast<int64_t>(rows), static_cast<int64_t>(vocab))));
    Array<uint32_t> kept(device(),
                         rows * static_cast<size_t>(SetWords(static_cast<int64_t>(vocab))));
    Call(launch(), SampleTokens{.logits = logits.data(),
                                .rows = static_cast<int64_t>(rows),
                                .vocab = static_cast<int64_t>(vocab),
                                .options = o,
                                .prompt = dprompt.data(),
                                .sample = dsample.data(),
                                .position = dposition.data(),
                                .token = token.data(),
                                .logprob = logprob.data(),
                                .scratch = scratch.data(),
                                .kept = kept.data()});
    return {token.Host(), logprob.Host(), kept.Host()};
  }
  static double Uniform(const SamplingOptions& o, uint32_t sample) {
    const Random4 bits = RandomAt(o.seed, (uint64_t{7} << 32) + 5, sample, 11);
    return UniformOpen(bits.x[0], bits.x[1]);
  }

  // The set is the reference's, but for tokens whose probability is within rounding of the least
  // likely that is kept. Without a filter all are kept, whatever is left of their probability.
  static void CheckKept(const float* x, const std::vector<double>& p, const SamplingOptions& o,
                        const uint32_t* kept, const std::string& what) {
    const bool filtered = o.temperature != 0 && (o.top_k > 0 || o.top_p < 1 || o.min_p > 0);
    const size_t top = static_cast<size_t>(std::max_element(x, x + p.size()) - x);
    double least = 1;
    for (const double v : p) least = v > 0 ? std::min(least, v) : least;
    for (size_t j = 0; j < p.size(); ++j) {
      const bool is_kept = kept[j / 32] >> (j % 32) & 1;
      const double scale = o.temperature == 0 ? 1 : 1 / static_cast<double>(o.temperature);
      const double whole = p[top] * std::exp(static_cast<double>(x[j] - x[top]) * scale);
      if (!filtered || whole > least * 1.001) {
        ASSERT_TRUE(is_kept) << what << ": token " << j;
      } else if (whole < least * 0.999) {
        ASSERT_FALSE(is_kept) << what << ": token " << j;
      }
    }
  }

  // Every row's draw is the inverse CDF of its number under the reference, its log-prob the
  // reference's.
  void Check(const std::vector<float>& x, size_t rows, const SamplingOptions& o,
             const std::string& what) {
    const Drawn drawn = Draw(x, rows, o);
    const size_t vocab = x.size() / rows;
    for (size_t r = 0; r < rows; ++r) {
      const auto p = Reference({x.begin() + static_cast<int64_t>(r * vocab),
                                x.begin() + static_cast<int64_t>((r + 1) * vocab)},
                               o);
      const auto t = static_cast<size_t>(drawn.token[r]);
      ASSERT_LT(t, vocab) << what;
      CheckKept(x.data() + r * vocab, p, o,
                drawn.kept.data() + r * static_cast<size_t>(SetWords(static_cast<int64_t>(vocab))),
                what);
      ASSERT_GT(p[t], 0) << what << ": row " << r << " drew token " << t
                         << ", which the filters exclude";
      // The relative probability's argument is below ~90 in magnitude; sums in blocks err below 100
      // eps.
      EXPECT_NEAR(static_cast<double>(drawn.logprob[r]), std::log(p[t]), 200 * kEps)
          << what << " row " << r;
      EXPECT_LE(drawn.logprob[r], 0.0f);
      const double before = std::accumulate(p.begin(), p.begin() + static_cast<int64_t>(t), 0.0),
                   u = Uniform(o, static_cast<uint32_t>(r));
      // The cumulative sum of fp32 probabilities errs by less than 200 eps of the total.
      EXPECT_GE(u, before - 200 * kEps) << what << " row " << r;
      EXPECT_LE(u, before + p[t] + 200 * kEps) << what << " row " << r;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Targets, Sampling,
                         ::testing::Values(Target{Device::kCpu, DType::kFloat32},
                                           Target{Device::Cuda(0), DType::kFloat32}),
                         TargetName);

TEST_P(Sampling, DrawsTheInverseOfTheFilteredDistribution) {
  const std::vector<SamplingOptions> all = {
      {.temperature = 1.0f, .seed = 1},
      {.temperature = 0.6f, .seed = 2},
      {.temperature = 1.3f, .top_k = 5, .seed = 3},
      {.temperature = 1.0f, .top_p = 0.8f, .seed = 4},
      {.temperature = 1.0f, .min_p = 0.1f, .seed = 5},
      {.temperature = 0.8f, .top_k = 12, .top_p = 0.7f, .min_p = 0.05f, .seed = 6},
      {.temperature = 1.0f, .top_k = 1, .seed = 7},
      {.temperature = 1.0f, .top_k = 1 << 20, .top_p = 0.999f, .seed = 8},
  };
  for (const auto& [rows, vocab] : std::vector<std::pair<size_t, size_t>>{
           {16, 1}, {64, 26}, {24, 1000}, {6, 1025}, {4, 49152}}) {
    for (const auto& o : all)
      Check(Normal(rows * vocab, vocab, DType::kFloat32, 3.0f), rows, o,
            "V " + std::to_string(vocab) + " seed " + std::to_string(o.seed));
  }
}

TEST_P(Sampling, KeepsAllTokensThatTieAtABoundary) {
  for (const size_t vocab : {12, 3000}) {
    std::vector<float> row(vocab, -30.0f);
    // four equal tokens where three were asked for
    for (const size_t j : {1, 4, 5, 9}) row[j] = 1.0f;
    row[2] = 2.0f;
    std::vector<float> x;
    for (int r = 0; r < 64; ++r) x.insert(x.end(), row.begin(), row.end());
    Check(x, 64, {.top_k = 3, .seed = 1}, "top-k");
    Check(x, 64, {.top_p = 0.6f, .seed = 2}, "top-p");
    const Drawn d = Draw(x, 64, {.top_k = 3, .seed = 1});
    for (const int32_t j : {1, 2, 4, 5, 9})
      EXPECT_NE(std::count(d.token.begin(), d.token.end(), j), 0) << j;
    std::vector<float> flat(8 * vocab, 0.5f);  // all equal: any filter keeps all
    Check(flat, 8, {.top_k = 3, .top_p = 0.5f, .min_p = 0.9f, .seed = 3}, "flat");
  }
}

TEST_P(Sampling, GreedyTakesTheFirstMaximumAtTemperatureOne) {
  auto x = Normal(5 * 700, 1, DType::kFloat32, 2.0f);
  x[3] = x[90] = x[699] = 20.0f;
  const Drawn d = Draw(x, 5, {.temperature = 0, .top_k = 2, .top_p = 0.1f});
  EXPECT_EQ(d.token[0], 3);
  for (size_t r = 0; r < 5; ++r) {
    const std::vector<float> row(x.begin() + static_cast<int64_t>(r * 700),
                                 x.begin() + static_cast<int64_t>(r * 700 + 700));
    EXPECT_EQ(d.token[r], std::max_element(row.begin(), row.end()) - row.begin());
    EXPECT_NEAR(static_cast<double>(d.logprob[r]),
                std::log(Reference(row, {.temperature = 0})[static_cast<size_t>(d.token[r])]),
                200 * kEps);
  }
}

TEST_P(Sampling, BadRowsGetNoToken) {
  for (const auto& o : {SamplingOptions{}, SamplingOptions{.top_k = 3, .top_p = 0.5f},
                        SamplingOptions{.temperature = 0}}) {
    auto x = Normal(5 * 2100, 1);
    x[2100 + 2099] = NAN;
    for (size_t j = 0; j < 2100; ++j) x[2 * 2100 + j] = -INFINITY;
    for (size_t j = 0; j < 2100; ++j) {
      if (j != 77) x[3 * 2100 + j] = -INFINITY;
    }
    x[4 * 2100] = INFINITY;
    const Drawn d = Draw(x, 5, o);
    EXPECT_GE(d.token[0], 0);
    for (const size_t r : {1, 2, 4}) {
      EXPECT_EQ(d.token[r], -1) << r;
      EXPECT_EQ(d.logprob[r], 0.0f) << r;
    }
    EXPECT_EQ(d.token[3], 77);
    EXPECT_EQ(d.logprob[3], 0.0f);
  }
}

TEST_P(Sampling, ADrawDependsOnItsAddressOnly) {
  for (const auto& o :
       {SamplingOptions{.seed = 9}, SamplingOptions{.top_k = 20, .top_p = 0.9f, .seed = 9}}) {
    const auto x = Normal(32 * 513, 2, DType::kFloat32, 2.0f);
    Drawn all;
    WithThreads([&](int) { all = Draw(x, 32, o); });
    for (const size_t rows : {1, 2, 3, 5}) {
      const Drawn few = Draw(
          {x.begin() + 8 * 513, x.begin() + static_cast<int64_t>((8 + rows) * 513)}, rows, o, 8);
      for (size_t r = 0; r < rows; ++r) EXPECT_EQ(few.token[r], all.token[8 + r]);
      ExpectSameBits(
          few.logprob,
          {all.logprob.begin() + 8, all.logprob.begin() + static_cast<int64_t>(8 + rows)},
          "logprob");
    }
  }
}

TEST_P(Sampling, FrequenciesFollowTheProbabilities) {
  constexpr size_t kDraws = 20000, kVocab = 13;
  const auto row = Normal(kVocab, 5, DType::kFloat32, 1.5f);
  std::vector<float> x;
  for (size_t r = 0; r < kDraws; ++r) x.insert(x.end(), row.begin(), row.end());
  const SamplingOptions o{.temperature = 0.9f, .top_k = 9, .seed = 31};
  const Drawn d = Draw(x, kDraws, o);
  const auto p = Reference(row, o);
  for (size_t j = 0; j < kVocab; ++j) {
    const auto count =
        static_cast<double>(std::count(d.token.begin(), d.token.end(), static_cast<int32_t>(j)));
    // Five standard deviations of a binomial; the seed is fixed, so this never flickers.
    EXPECT_NEAR(count, kDraws * p[j], 5 * std::sqrt(kDraws * p[j] * (1 - p[j])) + 1e-9) << j;
  }
}

}  // namespace
}  // namespace plumb::kernels
