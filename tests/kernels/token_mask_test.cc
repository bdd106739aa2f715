#include "kernels/token_mask.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

// Logits are float whatever the element type: one target a device.
class TokenMask : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, TokenMask,
                         ::testing::Values(Target{Device::kCpu, DType::kFloat32}, Target{Device::kCuda, DType::kFloat32}), TargetName);

TEST_P(TokenMask, DropsTheSameIdsOfEveryRow) {
  constexpr int64_t kRows = 5, kVocab = 70;
  auto x = Normal(kRows * kVocab, 1);
  const std::vector<int32_t> ids = {0, 31, 32, 64, 69};
  Array<float> logits(device(), x);
  Array<int32_t> out(device(), ids);
  DropTokens(launch(), logits.data(), kRows, kVocab, out.data(), static_cast<int64_t>(ids.size()));
  for (int64_t r = 0; r < kRows; ++r) {
    for (const int32_t id : ids) x[static_cast<size_t>(r * kVocab + id)] = -INFINITY;
  }
  ExpectSameBits(logits.Host(), x, "dropped");
  DropTokens(launch(), logits.data(), kRows, kVocab, out.data(), 0);
  ExpectSameBits(logits.Host(), x, "none dropped");
}

TEST_P(TokenMask, KeepsARowsOwnSet) {
  for (const int64_t vocab : {1, 31, 32, 33, 1000, 5001}) {
    constexpr int64_t kRows = 7;
    auto x = Normal(static_cast<size_t>(kRows * vocab), static_cast<uint64_t>(vocab));
    std::vector<uint32_t> kept(static_cast<size_t>(kRows * SetWords(vocab)), 0);
    RandomStream random(3, static_cast<uint64_t>(vocab));
    Array<float> logits(device(), x);
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t j = 0; j < vocab; ++j) {
        // Row 0 keeps everything, row 1 nothing.
        if (r != 1 && (r == 0 || random.NextBelow(3) == 0)) kept[static_cast<size_t>(r * SetWords(vocab) + j / 32)] |= 1u << (j % 32);
        else x[static_cast<size_t>(r * vocab + j)] = -INFINITY;
      }
    }
    Array<uint32_t> sets(device(), kept);
    KeepTokens(launch(), logits.data(), kRows, vocab, sets.data());
    ExpectSameBits(logits.Host(), x, "V " + std::to_string(vocab));
  }
}

}  // namespace
}  // namespace plumb::kernels
