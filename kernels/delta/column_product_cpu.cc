#include "kernels/delta/column_product.h"
#include "kernels/device/cpu_common.h"

namespace plumb::kernels {

void ColumnProduct::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
#pragma omp parallel for schedule(static) if (rows * width > kParallelElements)
    for (int64_t r = 0; r < rows; ++r) {
      const T* left = static_cast<const T*>(a) + r * a_stride;
      const T* right = static_cast<const T*>(b) + r * b_stride;
      T* to = static_cast<T*>(y) + r * y_stride;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i)
        to[i] = FromFloat<T>(ToFloat(left[i]) * ToFloat(right[i]));
    }
  });
}

}  // namespace plumb::kernels
