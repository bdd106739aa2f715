#include <cstring>

#include "kernels/delta/move_columns.h"
#include "kernels/device/cpu_common.h"

namespace plumb::kernels {

void MoveColumns::Cpu(const Launch& launch) const {
  const auto element = static_cast<int64_t>(ElementSize(launch.dtype));
#pragma omp parallel for schedule(static) if (rows * y_width > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    const auto* from = static_cast<const std::byte*>(x) + r * x_width * element;
    auto* to = static_cast<std::byte*>(y) + r * y_width * element;
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(to + runs[i].to * element, from + runs[i].from * element,
                  static_cast<size_t>(runs[i].count * element));
    }
  }
}

}  // namespace plumb::kernels
