#include <algorithm>

#include "kernels/delta/move_columns.h"
#include "kernels/device/cuda_common.h"

namespace plumb::kernels {
namespace {

// As many runs as travel with a launch.
constexpr int kRuns = 128;
struct Runs {
  int32_t from[kRuns], to[kRuns], count[kRuns], runs;
};

// One block a row.
template <class V>
__global__ void Move(const V* x, int64_t x_width, int64_t y_width, Runs runs, V* y) {
  const V* from = x + blockIdx.x * x_width;
  V* to = y + blockIdx.x * y_width;
  for (int32_t i = 0; i < runs.runs; ++i) {
    for (int32_t c = static_cast<int32_t>(threadIdx.x); c < runs.count[i];
         c += static_cast<int32_t>(blockDim.x))
      to[runs.to[i] + c] = from[runs.from[i] + c];
  }
}

}  // namespace

void MoveColumns::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  for (int64_t first = 0; first < count; first += kRuns) {
    Runs some;
    some.runs = static_cast<int32_t>(std::min<int64_t>(kRuns, count - first));
    for (int32_t i = 0; i < some.runs; ++i) {
      some.from[i] = static_cast<int32_t>(runs[first + i].from);
      some.to[i] = static_cast<int32_t>(runs[first + i].to);
      some.count[i] = static_cast<int32_t>(runs[first + i].count);
    }
    ForDType(launch.dtype, [&]<class T>(T) {
      Move<<<static_cast<unsigned>(rows), 128, 0, StreamOf(launch)>>>(
          static_cast<const T*>(x), x_width, y_width, some, static_cast<T*>(y));
    });
    CheckLaunch(kName);
  }
}

}  // namespace plumb::kernels
