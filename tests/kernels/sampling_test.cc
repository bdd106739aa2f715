#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "kernels/token_mask.h"
#include "tests/kernels/kernel_test.h"
#include "tests/testing/reliability.h"

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
    const Drawn drawn{token.Host(), logprob.Host(), kept.Host()};
    // Who keeps no sets may be served by another kernel, to the same bits.
    Array<float> plain_logprob(device(), rows);
    Array<int32_t> plain(device(), rows);
    Call(launch(), SampleTokens{.logits = logits.data(),
                                .rows = static_cast<int64_t>(rows),
                                .vocab = static_cast<int64_t>(vocab),
                                .options = o,
                                .prompt = dprompt.data(),
                                .sample = dsample.data(),
                                .position = dposition.data(),
                                .token = plain.data(),
                                .logprob = plain_logprob.data(),
                                .scratch = scratch.data()});
    EXPECT_EQ(plain.Host(), drawn.token);
    ExpectSameBits(plain_logprob.Host(), drawn.logprob, "log-probs without sets");
    return drawn;
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

constexpr size_t kWholeVocab = 151936;  // of Qwen

// Drawn frequencies against the softmax: Pearson's chi-square over the tokens that are drawn often
// enough, and the rest, the rare tail, in bins of at least five expected draws. The seeds are
// fixed, so that a test never flickers; its bounds are those of a statistic that is further out
// than five standard deviations.
struct Fit {
  double deviations = 0;       // of the chi-square statistic, as a standard normal
  double tail_deviations = 0;  // of the number of draws in the rare tail
  int64_t bins = 0;
  double tail = 0;  // its probability
};

// Tokens from the least likely on, joined until five draws are expected of them; the tail are the
// least likely ones that make up a ten-thousandth together, or twenty draws.
Fit FitOf(const std::vector<int64_t>& counts, const std::vector<double>& p) {
  const auto draws = static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::erase_if(order, [&](size_t j) { return p[j] == 0; });
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] < p[b]; });
  struct Bin {
    double expected = 0, drawn = 0;
  };
  std::vector<Bin> bins(1);
  Fit fit;
  double tail_drawn = 0;
  const double tail_mass = std::max(1e-4, 20 / draws);
  for (const size_t j : order) {
    if (bins.back().expected >= 5) bins.emplace_back();
    bins.back().expected += draws * p[j];
    bins.back().drawn += static_cast<double>(counts[j]);
    if (fit.tail + p[j] > tail_mass) continue;
    fit.tail += p[j];
    tail_drawn += static_cast<double>(counts[j]);
  }
  if (bins.size() > 1 && bins.back().expected < 5) {  // even the likeliest token is rare
    const Bin last = bins.back();
    bins.pop_back();
    bins.back().expected += last.expected;
    bins.back().drawn += last.drawn;
  }
  double square = 0;
  for (const Bin& bin : bins)
    square += (bin.drawn - bin.expected) * (bin.drawn - bin.expected) / bin.expected;
  fit.bins = std::ssize(bins);
  // Wilson and Hilferty's cube root of a chi-square is nearly normal.
  const auto free = static_cast<double>(std::max<int64_t>(1, fit.bins - 1));
  fit.deviations = (std::cbrt(square / free) - (1 - 2 / (9 * free))) / std::sqrt(2 / (9 * free));
  if (fit.tail > 0) {
    fit.tail_deviations =
        (tail_drawn - draws * fit.tail) / std::sqrt(draws * fit.tail * (1 - fit.tail));
  }
  return fit;
}

// Tokens whose logits are as uneven as those of a language model: a few stand out, most are nearly
// never drawn.
std::vector<float> Logits(size_t vocab) {
  RandomStream random(12, 7);
  std::vector<float> x(vocab);
  for (float& v : x) v = 2.2f * random.NextNormal();
  for (size_t i = 0; i < vocab / 4000; ++i)
    x[random.NextBelow(static_cast<uint32_t>(vocab))] += 6.0f + 0.1f * static_cast<float>(i);
  return x;
}

const std::vector<SamplingOptions> kEachFilter = {
    {.temperature = 0.5f, .seed = 1},
    {.temperature = 1.0f, .seed = 2},
    {.temperature = 1.5f, .seed = 3},
    {.temperature = 0.5f, .top_k = 40, .seed = 4},
    {.temperature = 1.0f, .top_k = 2000, .seed = 5},
    {.temperature = 1.5f, .top_k = 50000, .seed = 6},
    {.temperature = 0.5f, .top_p = 0.95f, .seed = 7},
    {.temperature = 1.0f, .top_p = 0.9f, .seed = 8},
    {.temperature = 1.5f, .top_p = 0.99f, .seed = 9},
    {.temperature = 0.5f, .min_p = 0.02f, .seed = 10},
    {.temperature = 1.0f, .min_p = 0.001f, .seed = 11},
    {.temperature = 1.5f, .min_p = 0.0001f, .seed = 12},
    {.temperature = 1.0f, .top_k = 5000, .top_p = 0.97f, .min_p = 0.0005f, .seed = 13},
};

class SamplingStatistics : public KernelTest {
 protected:
  // Rows of equal logits, drawn over and over under other addresses.
  std::vector<int64_t> Counts(const std::vector<float>& x, const SamplingOptions& o,
                              int64_t draws) {
    const auto vocab = static_cast<int64_t>(x.size());
    const int64_t rows =
        std::clamp<int64_t>((int64_t{1} << (device().is_cuda() ? 27 : 21)) / vocab, 1, 4096);
    std::vector<float> repeated;
    for (int64_t r = 0; r < rows; ++r) repeated.insert(repeated.end(), x.begin(), x.end());
    const auto n = static_cast<size_t>(rows);
    Array<float> logits(device(), repeated), logprob(device(), n);
    Array<int32_t> token(device(), n), position(device(), std::vector<int32_t>(n, 3));
    std::vector<uint32_t> numbers(n);
    std::iota(numbers.begin(), numbers.end(), 0u);
    Array<uint32_t> sample(device(), numbers);
    Array<char> scratch(device(), static_cast<size_t>(SamplingScratch(rows, vocab)));
    std::vector<int64_t> counts(x.size());
    for (int64_t done = 0; done < draws; done += rows) {
      Array<uint64_t> prompt(device(), std::vector<uint64_t>(n, static_cast<uint64_t>(done)));
      Call(launch(), SampleTokens{.logits = logits.data(),
                                  .rows = rows,
                                  .vocab = vocab,
                                  .options = o,
                                  .prompt = prompt.data(),
                                  .sample = sample.data(),
                                  .position = position.data(),
                                  .token = token.data(),
                                  .logprob = logprob.data(),
                                  .scratch = scratch.data()});
      const std::vector<int32_t> drawn = token.Host();
      for (int64_t r = 0; r < std::min(rows, draws - done); ++r)
        ++counts.at(static_cast<size_t>(drawn[static_cast<size_t>(r)]));
    }
    return counts;
  }

  void Check(const std::vector<float>& x, const SamplingOptions& o, int64_t draws) {
    const std::vector<double> p = Reference(x, o);
    const std::vector<int64_t> counts = Counts(x, o, draws);
    for (size_t j = 0; j < p.size(); ++j) {
      if (p[j] == 0) {
        ASSERT_EQ(counts[j], 0) << "token " << j << " is filtered out";
      }
    }
    const Fit fit = FitOf(counts, p);
    std::printf(
        "[          ] V %zu, temperature %.1f, top-k %d, top-p %.2f, min-p %.4f: %lld draws, "
        "%lld bins, chi-square %+.2f sd, tail of %.1e %+.2f sd\n",
        x.size(), static_cast<double>(o.temperature), o.top_k, static_cast<double>(o.top_p),
        static_cast<double>(o.min_p), static_cast<long long>(draws),
        static_cast<long long>(fit.bins), fit.deviations, fit.tail, fit.tail_deviations);
    EXPECT_GE(fit.bins, 2);
    // Too good a fit is none either.
    EXPECT_LT(std::abs(fit.deviations), 5) << "seed " << o.seed;
    EXPECT_LT(std::abs(fit.tail_deviations), 5) << "seed " << o.seed;
  }
};
INSTANTIATE_TEST_SUITE_P(Targets, SamplingStatistics,
                         ::testing::Values(Target{Device::kCpu, DType::kFloat32},
                                           Target{Device::Cuda(0), DType::kFloat32}),
                         TargetName);

TEST_P(SamplingStatistics, AMillionDrawsFollowTheSoftmax) {
  const std::vector<float> x = Logits(64);
  for (SamplingOptions o : kEachFilter) {
    o.top_k = std::min(o.top_k, 40);
    const bool filters = o.top_k > 0 || o.top_p < 1 || o.min_p > 0;
    Check(x, o, filters ? plumb::testing::Count(200'000, 1'000'000) : 1'000'000);
  }
}

// A million draws of each on a GPU and in `make test-reliability`; fewer here.
TEST_P(SamplingStatistics, DrawsOfAWholeVocabularyFollowTheSoftmax) {
  const std::vector<float> x = Logits(kWholeVocab);
  const int64_t draws = device().is_cuda() ? 1'000'000 : plumb::testing::Count(400, 1'000'000);
  for (const SamplingOptions& o : kEachFilter) Check(x, o, draws);
}

// The statistic sees a sampler that is wrong by a little.
TEST_P(SamplingStatistics, ANeighbouringDistributionIsToldApart) {
  const std::vector<float> x = Logits(256);
  const SamplingOptions o{.temperature = 1.0f, .seed = 21};
  const std::vector<int64_t> counts = Counts(x, o, 1'000'000);
  EXPECT_GT(FitOf(counts, Reference(x, {.temperature = 1.02f})).deviations, 5);
  // A tail that is drawn half as often as it should be.
  std::vector<double> rare = Reference(x, o);
  double taken = 0;
  for (double& v : rare) {
    if (v < 2e-5) taken += v / 2, v /= 2;
  }
  *std::max_element(rare.begin(), rare.end()) += taken;
  EXPECT_GT(std::abs(FitOf(counts, rare).tail_deviations), 5) << taken;
}

}  // namespace
}  // namespace plumb::kernels
