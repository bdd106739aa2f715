#include "kernels/tasks/weigh_groups.h"
#include "kernels/device/cpu_common.h"

namespace plumb::kernels {

void WeighGroups::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
#pragma omp parallel for schedule(static) if (rows * groups * width > kParallelElements)
    for (int64_t r = 0; r < rows; ++r) {
      const float* w = weight + int64_t{task[r]} * groups;
      T* at = static_cast<T*>(x) + r * groups * width;
      for (int32_t g = 0; g < groups; ++g, at += width) {
        const float by = scale * w[g];
        for (int64_t i = 0; i < width; ++i) at[i] = FromFloat<T>(by * ToFloat(at[i]));
      }
    }
  });
}

void WeighGroupsBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    // One thread: rows of one task add to the same sums, and these are few numbers of each.
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t first = int64_t{task[r]} * groups;
      for (int32_t g = 0; g < groups; ++g) {
        const int64_t at = (r * groups + g) * width;
        T* dy = static_cast<T*>(d) + at;
        T* z = static_cast<T*>(x) + at;
        const float by = scale * weight[first + g];
        float sum = 0;
        for (int64_t i = 0; i < width; ++i) {
          sum += ToFloat(dy[i]) * ToFloat(z[i]);
          dy[i] = FromFloat<T>(by * ToFloat(dy[i]));
          z[i] = FromFloat<T>(by * ToFloat(z[i]));
        }
        dweight[first + g] += static_cast<double>(scale * sum);
      }
    }
  });
}

}  // namespace plumb::kernels
