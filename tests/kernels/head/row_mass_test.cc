// kernels/head/row_mass.h by the two that use it: a token's log-prob is one number, whether the
// sampler records it or the learner computes it again.
#include "kernels/head/row_mass.h"

#include <numeric>

#include "kernels/sampling.h"
#include "kernels/token_logprob.h"
#include "kernels/token_mask.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

class RowMass : public KernelTest {
 protected:
  // Draws a token of each row, and takes its log-prob once more from the logits that the filters
  // left.
  void Check(std::vector<float> x, size_t rows, const SamplingOptions& o) {
    const auto vocab = static_cast<int64_t>(x.size() / rows), count = static_cast<int64_t>(rows);
    const std::string what = "V " + std::to_string(vocab) + ", temperature " +
                             std::to_string(o.temperature) + ", top-k " + std::to_string(o.top_k) +
                             ", top-p " + std::to_string(o.top_p) + ", min-p " +
                             std::to_string(o.min_p);
    std::vector<uint32_t> samples(rows);
    std::iota(samples.begin(), samples.end(), 0u);
    Array<float> logits(device(), x), drawn(device(), rows), again(device(), rows),
        lse(device(), rows), entropy(device(), rows);
    Array<uint64_t> prompt(device(), std::vector<uint64_t>(rows, 3));
    Array<uint32_t> sample(device(), samples),
        kept(device(), rows * static_cast<size_t>(SetWords(vocab)));
    Array<int32_t> position(device(), std::vector<int32_t>(rows, 5)), token(device(), rows);
    Array<char> scratch(device(), static_cast<size_t>(SamplingScratch(count, vocab)));
    Call(launch(), SampleTokens{.logits = logits.data(),
                                .rows = count,
                                .vocab = vocab,
                                .options = o,
                                .prompt = prompt.data(),
                                .sample = sample.data(),
                                .position = position.data(),
                                .token = token.data(),
                                .logprob = drawn.data(),
                                .scratch = scratch.data(),
                                .kept = kept.data()});
    Call(launch(),
         KeepTokens{.logits = logits.data(), .rows = count, .vocab = vocab, .kept = kept.data()});
    // Alone, and all at once.
    for (const bool alone : {false, true}) {
      for (int64_t r = 0; r < (alone ? count : 1); ++r) {
        Call(launch(), TokenLogprob{.logits = logits.data() + r * vocab,
                                    .target = token.data() + r,
                                    .rows = alone ? 1 : count,
                                    .vocab = vocab,
                                    .temperature = o.temperature == 0 ? 1.0f : o.temperature,
                                    .logprob = again.data() + r,
                                    .entropy = alone ? nullptr : entropy.data(),
                                    .lse = lse.data() + r});
      }
      ExpectSameBits(again.Host(), drawn.Host(), what + (alone ? ", rows alone" : ""));
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Targets, RowMass,
                         ::testing::Values(Target{Device::kCpu, DType::kFloat32},
                                           Target{Device::Cuda(0), DType::kFloat32}),
                         TargetName);

TEST_P(RowMass, TheLearnersLogprobIsTheSamplersBitForBit) {
  const std::vector<SamplingOptions> all = {
      {.temperature = 1.0f, .seed = 1},
      {.temperature = 0.7f, .seed = 2},
      {.temperature = 0.0f, .seed = 3},
      {.temperature = 1.3f, .top_k = 5, .seed = 4},
      {.temperature = 1.0f, .top_p = 0.8f, .seed = 5},
      {.temperature = 0.8f, .top_k = 12, .top_p = 0.7f, .min_p = 0.05f, .seed = 6}};
  // Whole fours and not, fewer tokens than strands and more than a block of them.
  for (const auto& [rows, vocab] : std::vector<std::pair<size_t, size_t>>{
           {33, 1}, {64, 26}, {40, 61}, {24, 1003}, {9, 4100}, {6, 49152}, {3, 151936}}) {
    for (const SamplingOptions& o : all)
      Check(Normal(rows * vocab, vocab, DType::kFloat32, 3.0f), rows, o);
  }
}

// A token that is nearly certain, and ones that no float can tell from it.
TEST_P(RowMass, OfSteepAndOfFlatRowsToo) {
  for (const size_t vocab : {61, 5000}) {
    std::vector<float> x(4 * vocab, 0.25f);
    x[7] = 40.0f;
    for (size_t j = 0; j < vocab; ++j) x[2 * vocab + j] = -1e30f;
    x[2 * vocab + vocab - 1] = 3.0f;
    for (size_t j = 0; j < vocab; ++j) x[3 * vocab + j] = j % 3 == 0 ? -INFINITY : 88.0f;
    for (const float temperature : {1.0f, 0.3f}) Check(x, 4, {.temperature = temperature});
  }
}

TEST(RowMassOnCpu, IsTheSumOfTheExponentials) {
  const std::vector<float> x = Normal(3000, 5, DType::kFloat32, 2.0f);
  std::vector<float> e(kMassBlock);
  double mass = 0, expected = 0;
  for (int64_t begin = 0; begin < 3000; begin += kMassBlock) {
    const int64_t n = std::min<int64_t>(kMassBlock, 3000 - begin);
    MassTerms(x.data() + begin, n, 2.0f, 0.5f, e.data());
    mass += static_cast<double>(SumOfTerms(e.data(), n));
  }
  for (const float v : x) expected += std::exp((static_cast<double>(v) - 2) * 0.5);
  EXPECT_NEAR(mass, expected, 100 * kEps * expected);
}

}  // namespace
}  // namespace plumb::kernels
