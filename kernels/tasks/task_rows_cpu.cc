#include <algorithm>

#include "kernels/device/cpu_common.h"
#include "kernels/tasks/task_rows.h"

namespace plumb::kernels {

void KnownTokens::Cpu(const Launch&) const {
  for (int64_t r = 0; r < shape.rows; ++r)
    known[r] = shape.RowOf(shape.tokens[r]) < 0 ? shape.tokens[r] : 0;
}

void EmbedTaskTokens::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    for (int64_t r = 0; r < shape.rows; ++r) {
      const int64_t row = shape.RowOf(shape.tokens[r]);
      if (row < 0) continue;
      std::copy_n(static_cast<const T*>(table) + row * shape.width, shape.width,
                  static_cast<T*>(x) + r * shape.width);
    }
  });
}

void EmbedTaskTokensBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    for (int64_t r = 0; r < shape.rows; ++r) {
      const int64_t row = shape.RowOf(shape.tokens[r]);
      if (row < 0) continue;
      const T* from = static_cast<const T*>(d) + r * shape.width;
      float* to = grad + row * shape.width;
      for (int64_t i = 0; i < shape.width; ++i) to[i] += ToFloat(from[i]);
    }
  });
}

}  // namespace plumb::kernels
