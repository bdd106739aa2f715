#include <algorithm>

#include "common/base/rng.h"
#include "kernels/device/cpu_common.h"
#include "kernels/dropout.h"

namespace plumb::kernels {

void Dropout::Cpu(const Launch& launch) const {
  const auto below = static_cast<uint32_t>(static_cast<double>(probability) * 4294967296.0);
  const float scale = 1 / (1 - probability);
  ForDType(launch.dtype, [&]<class T>(T) {
#pragma omp parallel for schedule(static) if (rows * columns > kParallelElements)
    for (int64_t r = 0; r < rows; ++r) {
      const T* from = static_cast<const T*>(x) + r * columns;
      T* to = static_cast<T*>(out) + r * columns;
      for (int64_t c = 0; c < columns; c += 4) {
        const Random4 bits =
            RandomAt(key, layer, static_cast<uint32_t>(r), static_cast<uint32_t>(c / 4));
        const int64_t n = std::min<int64_t>(4, columns - c);
        for (int64_t i = 0; i < n; ++i) {
          const float kept = bits.x[i] < below ? 0.0f : scale * ToFloat(from[c + i]);
          to[c + i] = FromFloat<T>(accumulate ? ToFloat(to[c + i]) + kept : kept);
        }
      }
    }
  });
}

}  // namespace plumb::kernels
