#include <cmath>

#include "kernels/device/cpu_common.h"
#include "kernels/update/clip_value.h"

namespace plumb::kernels {

void ClipValue::Cpu(const Launch&) const {
#pragma omp parallel for schedule(static) if (n > kParallelElements)
  for (int64_t b = 0; b < kNormScratch; ++b) {
    int64_t clipped = 0;
    for (int64_t i = n * b / kNormScratch; i < n * (b + 1) / kNormScratch; ++i) {
      const float size = std::fabs(grad[i]);
      if (!(size > bound) || std::isinf(size)) continue;
      grad[i] = std::copysign(bound, grad[i]);
      ++clipped;
    }
    scratch[b] = static_cast<double>(clipped);
  }
  double total = 0;
  for (int64_t b = 0; b < kNormScratch; ++b) total += scratch[b];
  *out = total;
}

}  // namespace plumb::kernels
