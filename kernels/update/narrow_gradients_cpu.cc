#include "kernels/update/narrow_gradients.h"

#include <algorithm>

#include "kernels/device/cpu_common.h"
#include "kernels/update/narrow_sum.h"

namespace plumb::kernels {

void NarrowGradients::Cpu(const Launch&) const {
  PLUMB_CHECK(first % kNarrowDraws == 0, "draws are made for eight elements at a time");
  const int64_t groups = (n + kNarrowDraws - 1) / kNarrowDraws;
#pragma omp parallel for schedule(static) if (n > kParallelElements)
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = g * kNarrowDraws, count = std::min<int64_t>(kNarrowDraws, n - begin);
    const Random4 drawn = NarrowDraw(seed, first + begin, draw);
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bits = drawn.x[i / 2] >> (16 * (i % 2));
      sum[begin + i] = NarrowSum(sum[begin + i], room[begin + i], bits);
    }
  }
}

}  // namespace plumb::kernels
