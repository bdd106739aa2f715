#include "kernels/device/cuda_common.h"
#include "kernels/tasks/weigh_groups.h"

namespace plumb::kernels {
namespace {

template <class T>
__global__ void Forward(WeighGroups k) {
  const int64_t row = k.groups * k.width;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < k.rows * row;
       i += int64_t{gridDim.x} * blockDim.x) {
    const int64_t r = i / row, g = (i - r * row) / k.width;
    T& x = static_cast<T*>(k.x)[i];
    x = FromFloat<T>(k.scale * k.weight[int64_t{k.task[r]} * k.groups + g] * ToFloat(x));
  }
}

// One block a task and group: its rows are nobody else's. Every warp takes every so manyth of all
// rows, and the block adds up in the order of its warps.
template <class T>
__global__ void Backward(WeighGroupsBackward k) {
  const auto task = static_cast<int32_t>(blockIdx.x), group = static_cast<int32_t>(blockIdx.y);
  const int lane = static_cast<int>(threadIdx.x % 32), warps = static_cast<int>(blockDim.x / 32);
  const int64_t place = int64_t{task} * k.groups + group;
  const float by = k.scale * k.weight[place];
  double all = 0;
  for (int64_t r = threadIdx.x / 32; r < k.rows; r += warps) {
    if (k.task[r] != task) continue;
    const int64_t at = (r * k.groups + group) * k.width;
    T *d = static_cast<T*>(k.d) + at, *x = static_cast<T*>(k.x) + at;
    float sum = 0;
    for (int64_t i = lane; i < k.width; i += 32) {
      const float dy = ToFloat(d[i]), z = ToFloat(x[i]);
      sum += dy * z;
      d[i] = FromFloat<T>(by * dy);
      x[i] = FromFloat<T>(by * z);
    }
    sum = WarpSum(sum);
    if (lane == 0) all += static_cast<double>(k.scale * sum);
  }
  all = BlockSum(all);
  if (threadIdx.x == 0) k.dweight[place] += all;
}

}  // namespace

void WeighGroups::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Forward<T><<<Blocks(rows * groups * width, 256), 256, 0, StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

void WeighGroupsBackward::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  const dim3 blocks(static_cast<unsigned>(tasks), static_cast<unsigned>(groups));
  ForDType(launch.dtype,
           [&]<class T>(T) { Backward<T><<<blocks, 1024, 0, StreamOf(launch)>>>(*this); });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
