#include "kernels/token_mask.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/sampling.h"
#include "kernels/token_logprob.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

// Logits are float whatever the element type: one target a device.
class TokenMaskTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, TokenMaskTest,
                         ::testing::Values(Target{Device::kCpu, DType::kFloat32},
                                           Target{Device::Cuda(0), DType::kFloat32}),
                         TargetName);

TEST_P(TokenMaskTest, DropsTheSameIdsOfEveryRow) {
  constexpr int64_t kRows = 5, kVocab = 70;
  auto x = Normal(kRows * kVocab, 1);
  const std::vector<int32_t> ids = {0, 31, 32, 64, 69};
  Array<float> logits(device(), x);
  Array<int32_t> out(device(), ids);
  Call(launch(), DropTokens{.logits = logits.data(),
                            .rows = kRows,
                            .vocab = kVocab,
                            .ids = out.data(),
                            .count = static_cast<int64_t>(ids.size())});
  for (int64_t r = 0; r < kRows; ++r) {
    for (const int32_t id : ids) x[static_cast<size_t>(r * kVocab + id)] = -INFINITY;
  }
  ExpectSameBits(logits.Host(), x, "dropped");
  Call(launch(),
       DropTokens{
           .logits = logits.data(), .rows = kRows, .vocab = kVocab, .ids = out.data(), .count = 0});
  ExpectSameBits(logits.Host(), x, "none dropped");
}

TEST_P(TokenMaskTest, KeepsARowsOwnSet) {
  for (const int64_t vocab : {1, 31, 32, 33, 1000, 5001}) {
    constexpr int64_t kRows = 7;
    auto x = Normal(static_cast<size_t>(kRows * vocab), static_cast<uint64_t>(vocab));
    std::vector<uint32_t> kept(static_cast<size_t>(kRows * SetWords(vocab)), 0);
    RandomStream random(3, static_cast<uint64_t>(vocab));
    Array<float> logits(device(), x);
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t j = 0; j < vocab; ++j) {
        // Row 0 keeps everything, row 1 nothing.
        if (r != 1 && (r == 0 || random.NextBelow(3) == 0))
          kept[static_cast<size_t>(r * SetWords(vocab) + j / 32)] |= 1u << (j % 32);
        else x[static_cast<size_t>(r * vocab + j)] = -INFINITY;
      }
    }
    Array<uint32_t> sets(device(), kept);
    Call(launch(),
         KeepTokens{.logits = logits.data(), .rows = kRows, .vocab = vocab, .kept = sets.data()});
    ExpectSameBits(logits.Host(), x, "V " + std::to_string(vocab));
  }
}

// The sampler keeps the sets of an independent script, and log-prob, entropy and gradient over them
// are the script's (tests/golden/make_kept_sets_golden.py).
TEST_P(TokenMaskTest, FilteredSetsAndWhatIsComputedOverThemAreTheScripts) {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/kept_sets.json");
  ASSERT_TRUE(file.good());
  for (const auto& c : nlohmann::json::parse(file)) {
    const auto x = c["logits"].get<std::vector<float>>();
    const auto vocab = static_cast<int64_t>(x.size());
    const auto temperature = c["temperature"].get<float>();
    const SamplingOptions options = {.temperature = temperature,
                                     .top_k = c["top_k"].get<int32_t>(),
                                     .top_p = c["top_p"].get<float>(),
                                     .min_p = c["min_p"].get<float>(),
                                     .seed = 3};
    Array<float> logits(device(), x), drawn_logprob(device(), 1), logprob(device(), 1),
        entropy(device(), 1), lse(device(), 1);
    Array<uint64_t> prompt(device(), std::vector<uint64_t>{5});
    Array<uint32_t> sample(device(), std::vector<uint32_t>{0}),
        kept(device(), static_cast<size_t>(SetWords(vocab)));
    Array<int32_t> position(device(), std::vector<int32_t>{9}), drawn(device(), 1),
        target(device(), std::vector<int32_t>{c["token"].get<int32_t>()});
    Array<char> scratch(device(), static_cast<size_t>(SamplingScratch(1, vocab)));
    Call(launch(), SampleTokens{.logits = logits.data(),
                                .rows = 1,
                                .vocab = vocab,
                                .options = options,
                                .prompt = prompt.data(),
                                .sample = sample.data(),
                                .position = position.data(),
                                .token = drawn.data(),
                                .logprob = drawn_logprob.data(),
                                .scratch = scratch.data(),
                                .kept = kept.data()});
    std::vector<int32_t> ids;
    const auto words = kept.Host();
    for (int64_t j = 0; j < vocab; ++j) {
      if (words[static_cast<size_t>(j / 32)] >> (j % 32) & 1)
        ids.push_back(static_cast<int32_t>(j));
    }
    const std::string what = c["kept"].dump();
    EXPECT_EQ(ids, c["kept"].get<std::vector<int32_t>>());
    EXPECT_TRUE(std::binary_search(ids.begin(), ids.end(), drawn.Host()[0])) << what;
    Call(launch(),
         KeepTokens{.logits = logits.data(), .rows = 1, .vocab = vocab, .kept = kept.data()});
    Call(launch(), TokenLogprob{.logits = logits.data(),
                                .target = target.data(),
                                .rows = 1,
                                .vocab = vocab,
                                .temperature = temperature,
                                .logprob = logprob.data(),
                                .entropy = entropy.data(),
                                .lse = lse.data()});
    ExpectClose(logprob.Host(), {c["logprob"].get<double>()}, 0, 64 * kEps, "logprob " + what);
    ExpectClose(entropy.Host(), {c["entropy"].get<double>()}, 0, 64 * kEps, "entropy " + what);
    Array<float> g(device(), std::vector<float>{c["g_logprob"].get<float>()}),
        h(device(), std::vector<float>{c["g_entropy"].get<float>()});
    Array<float> dlogits(device(), static_cast<size_t>(vocab));
    Call(launch(), TokenLogprobBackward{.logits = logits.data(),
                                        .target = target.data(),
                                        .lse = lse.data(),
                                        .entropy = entropy.data(),
                                        .g_logprob = g.data(),
                                        .g_entropy = h.data(),
                                        .rows = 1,
                                        .vocab = vocab,
                                        .temperature = temperature,
                                        .dlogits = dlogits.data()});
    ExpectClose(dlogits.Host(), c["gradient"].get<std::vector<double>>(), 0, 64 * kEps,
                "gradient " + what);
    // The log-prob that the sampler gives its own draw is the one computed again.
    Call(launch(), TokenLogprob{.logits = logits.data(),
                                .target = drawn.data(),
                                .rows = 1,
                                .vocab = vocab,
                                .temperature = temperature,
                                .logprob = logprob.data(),
                                .lse = lse.data()});
    EXPECT_NEAR(logprob.Host()[0], drawn_logprob.Host()[0], 64 * kEps) << what;
  }
}

}  // namespace
}  // namespace plumb::kernels
