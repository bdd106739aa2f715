#include <algorithm>
#include <limits>

#include "kernels/device/cpu_common.h"
#include "kernels/token_mask.h"

namespace plumb::kernels {
namespace {

constexpr float kOut = -std::numeric_limits<float>::infinity();

}  // namespace

void DropTokens::Cpu(const Launch&) const {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < count; ++i) logits[r * vocab + ids[i]] = kOut;
  }
}

void KeepTokens::Cpu(const Launch&) const {
  const int64_t words = SetWords(vocab);
#pragma omp parallel for schedule(static) if (rows * vocab > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    float* x = logits + r * vocab;
    for (int64_t w = 0; w < words; ++w) {
      const uint32_t bits = kept[r * words + w];
      if (bits == ~uint32_t{0}) continue;
      const int64_t end = std::min(vocab, (w + 1) * 32);
      for (int64_t j = w * 32; j < end; ++j) {
        if (!(bits >> (j % 32) & 1)) x[j] = kOut;
      }
    }
  }
}

}  // namespace plumb::kernels
