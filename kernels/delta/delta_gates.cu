#include "kernels/delta/delta_gates.h"
#include "kernels/device/cuda_common.h"

namespace plumb::kernels {
namespace {

__device__ float Softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }
__device__ float Sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <class T>
__global__ void Forward(DeltaGates d) {
  for (int64_t at = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < d.rows * d.heads;
       at += int64_t{gridDim.x} * blockDim.x) {
    const int64_t r = at / d.heads, h = at - r * d.heads;
    const float rate = expf(ToFloat(static_cast<const T*>(d.a_log)[h])),
                a = ToFloat(static_cast<const T*>(d.a)[r * d.stride + h]);
    d.g[at] = -rate * Softplus(a + ToFloat(static_cast<const T*>(d.bias)[h]));
    d.beta[at] = Sigmoid(ToFloat(static_cast<const T*>(d.b)[r * d.stride + h]));
  }
}

// One block a head, whose sums are its own.
template <class T>
__global__ void Backward(DeltaGatesBackward d) {
  const int64_t h = blockIdx.x;
  const float rate = expf(ToFloat(static_cast<const T*>(d.a_log)[h])),
              shift = ToFloat(static_cast<const T*>(d.bias)[h]);
  double of_rate = 0, of_shift = 0;
  for (int64_t r = threadIdx.x; r < d.rows; r += blockDim.x) {
    const float x = ToFloat(static_cast<const T*>(d.a)[r * d.stride + h]) + shift,
                beta = Sigmoid(ToFloat(static_cast<const T*>(d.b)[r * d.stride + h]));
    const float g = d.dg[r * d.heads + h] * -rate, dx = g * Sigmoid(x);
    of_rate += static_cast<double>(g * Softplus(x));
    of_shift += static_cast<double>(dx);
    static_cast<T*>(d.da)[r * d.stride + h] = FromFloat<T>(dx);
    static_cast<T*>(d.db)[r * d.stride + h] =
        FromFloat<T>(d.dbeta[r * d.heads + h] * beta * (1.0f - beta));
  }
  of_rate = BlockSum(of_rate);
  of_shift = BlockSum(of_shift);
  if (threadIdx.x != 0) return;
  if (d.da_log) d.da_log[h] += static_cast<float>(of_rate);
  if (d.dbias) d.dbias[h] += static_cast<float>(of_shift);
}

}  // namespace

void DeltaGates::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Forward<T><<<Blocks(rows * heads, 256), 256, 0, StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

void DeltaGatesBackward::Cuda(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    Backward<T><<<static_cast<unsigned>(heads), 1024, 0, StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
