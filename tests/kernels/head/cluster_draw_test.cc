// Draws by clusters against those of one block a row: the same tokens and log-probs, bit for bit.
#include "kernels/head/cluster_draw.h"

#include <numeric>

#include "kernels/device/recorded_work.h"
#include "kernels/token_mask.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

class ClusterDraw : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!CudaAvailable())
      GTEST_SKIP() << "NO GPU: draws by clusters were NOT tested here (build with -DPLUMB_CUDA=ON "
                      "on a machine with a GPU)";
  }
};

#ifdef PLUMB_CUDA
constexpr Device kDevice = Device::Cuda(0);

struct Rows {
  Rows(int64_t rows, int64_t vocab, const SamplingOptions& options)
      : launch{.stream = TestStream(kDevice)},
        logits(kDevice, Normal(rows * vocab, static_cast<uint64_t>(vocab), DType::kFloat32, 3.0f)),
        prompt(kDevice, std::vector<uint64_t>(static_cast<size_t>(rows), 77)),
        sample(kDevice, Numbers(rows)),
        position(kDevice, std::vector<int32_t>(static_cast<size_t>(rows), 5)),
        token(kDevice, static_cast<size_t>(rows)),
        logprob(kDevice, static_cast<size_t>(rows)),
        scratch(kDevice, static_cast<size_t>(SamplingScratch(rows, vocab))),
        kept(kDevice, static_cast<size_t>(rows * SetWords(vocab))),
        draw{.logits = logits.data(),
             .rows = rows,
             .vocab = vocab,
             .options = options,
             .prompt = prompt.data(),
             .sample = sample.data(),
             .position = position.data(),
             .token = token.data(),
             .logprob = logprob.data(),
             .scratch = scratch.data()} {}
  static std::vector<uint32_t> Numbers(int64_t rows) {
    std::vector<uint32_t> numbers(static_cast<size_t>(rows));
    std::iota(numbers.begin(), numbers.end(), 3u);
    return numbers;
  }

  const Launch launch;
  Array<float> logits;
  Array<uint64_t> prompt;
  Array<uint32_t> sample;
  Array<int32_t> position, token;
  Array<float> logprob;
  Array<char> scratch;
  Array<uint32_t> kept;
  SampleTokens draw;
};

TEST_F(ClusterDraw, HasTheBitsOfABlockARow) {
  if (!DrawByClusters({.stream = TestStream(kDevice)}, Rows(1, 8, {}).draw))
    GTEST_SKIP() << "THIS GPU HAS NO CLUSTERS: draws by them were NOT tested here";
  for (const int64_t vocab : {4, 128, 4092, 4100, 49152, 128256, 151936, 262144}) {
    for (const int64_t rows : {1, 2, 7, 40, 70}) {
      for (const float temperature : {1.0f, 0.4f, 2.5f, 0.0f}) {
        Rows r(rows, vocab, {.temperature = temperature, .seed = 9});
        ASSERT_TRUE(DrawByClusters(r.launch, r.draw)) << rows << " of " << vocab;
        const std::vector<int32_t> token = r.token.Host();
        const std::vector<float> logprob = r.logprob.Host();
        r.draw.kept = r.kept.data();
        ASSERT_FALSE(DrawByClusters(r.launch, r.draw)) << "who wants sets is served otherwise";
        Call(r.launch, r.draw);
        EXPECT_EQ(token, r.token.Host()) << rows << " of " << vocab << " at " << temperature;
        ExpectSameBits(logprob, r.logprob.Host(), "log-probs");
      }
    }
  }
}

TEST_F(ClusterDraw, WhatDoesNotFitIsLeftToOthers) {
  const auto taken = [](int64_t vocab, const SamplingOptions& options) {
    Rows r(2, vocab, options);
    return DrawByClusters(r.launch, r.draw);
  };
  EXPECT_FALSE(taken(4001, {})) << "rows that do not begin on 16 bytes";
  EXPECT_FALSE(taken(4000, {.top_k = 5}));
  EXPECT_FALSE(taken(4000, {.top_p = 0.9f}));
  EXPECT_FALSE(taken(4000, {.min_p = 0.1f}));
  EXPECT_FALSE(taken(int64_t{1} << 19, {})) << "longer than eight blocks hold";
}

TEST_F(ClusterDraw, IsRecorded) {
  Rows r(33, 49152, {.seed = 4});
  Call(r.launch, r.draw);
  const std::vector<int32_t> token = r.token.Host();
  const RecordedWork work(r.launch.stream, [&] { Call(r.launch, r.draw); });
  Array<int32_t> other(kDevice, std::vector<int32_t>(33, 6));
  Copy(r.launch.stream, r.position.data(), other.data(), 33 * sizeof(int32_t));
  work.Replay();
  const std::vector<int32_t> again = r.token.Host();
  EXPECT_NE(token, again) << "of another position";
  Copy(r.launch.stream, r.position.data(),
       Array<int32_t>(kDevice, std::vector<int32_t>(33, 5)).data(), 33 * sizeof(int32_t));
  work.Replay();
  EXPECT_EQ(token, r.token.Host());
}
#else
TEST_F(ClusterDraw, HasTheBitsOfABlockARow) {}
#endif

}  // namespace
}  // namespace plumb::kernels
