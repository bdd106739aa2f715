#include "kernels/delta/column_product.h"
#include "kernels/device/cuda_common.h"

namespace plumb::kernels {
namespace {

template <class T>
__global__ void Multiply(ColumnProduct p) {
  for (int64_t at = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < p.rows * p.width;
       at += int64_t{gridDim.x} * blockDim.x) {
    const int64_t r = at / p.width, i = at - r * p.width;
    const float a = ToFloat(static_cast<const T*>(p.a)[r * p.a_stride + i]),
                b = ToFloat(static_cast<const T*>(p.b)[r * p.b_stride + i]);
    static_cast<T*>(p.y)[r * p.y_stride + i] = FromFloat<T>(a * b);
  }
}

}  // namespace

void ColumnProduct::Cuda(const Launch& launch) const {
  if (rows * width == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Multiply<T><<<Blocks(rows * width, 1024), 256, 0, StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
