#include <algorithm>
#include <cstring>
#include <span>

#include "kernels/block_hash.h"
#include "kernels/device/cpu_common.h"

namespace plumb::kernels {
namespace {

// An exponent of ones is NaN or infinity.
template <class Word>
uint64_t First(const Word* x, int64_t n, Word exponent) {
  constexpr int64_t kPiece = 4096;
  int64_t first = n;
#pragma omp parallel for schedule(static) reduction(min : first) if (n > kParallelElements)
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    const int64_t end = std::min(n, begin + kPiece);
    Word bad = 0;
#pragma omp simd reduction(| : bad)
    for (int64_t i = begin; i < end; ++i) bad |= static_cast<Word>((x[i] & exponent) == exponent);
    for (int64_t i = begin; bad && i < end && i < first; ++i) {
      if ((x[i] & exponent) == exponent) first = i;
    }
  }
  return static_cast<uint64_t>(first);
}

}  // namespace

void HashWeightBlocks::Cpu(const Launch&) const {
  const auto* data = static_cast<const std::byte*>(bytes);
  const auto block = static_cast<int64_t>(kDigestBlockBytes);
#pragma omp parallel for schedule(static) if (blocks() > 1)
  for (int64_t b = 0; b < blocks(); ++b) {
    out[b] = HashBlock({data + b * block, static_cast<size_t>(std::min(block, size - b * block))});
  }
}

void FindNonFinite::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    if constexpr (sizeof(T) == 4)
      *first = First(static_cast<const uint32_t*>(x), n, uint32_t{0x7F800000u});
    else *first = First(static_cast<const uint16_t*>(x), n, uint16_t{0x7F80});
  });
}

}  // namespace plumb::kernels
