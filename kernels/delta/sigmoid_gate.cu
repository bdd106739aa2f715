#include "kernels/delta/sigmoid_gate.h"
#include "kernels/device/cuda_common.h"

namespace plumb::kernels {
namespace {

template <class T>
__global__ void Forward(const T* x, const T* gate, int64_t n, T* y) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x)
    y[i] = FromFloat<T>(ToFloat(x[i]) / (1.0f + expf(-ToFloat(gate[i]))));
}

template <class T>
__global__ void Backward(const T* dy, const T* x, const T* gate, int64_t n, T* dx, T* dgate) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x) {
    const float s = 1.0f / (1.0f + expf(-ToFloat(gate[i]))), d = ToFloat(dy[i]);
    dgate[i] = FromFloat<T>(d * ToFloat(x[i]) * s * (1.0f - s));
    dx[i] = FromFloat<T>(d * s);
  }
}

}  // namespace

void SigmoidGate::Cuda(const Launch& launch) const {
  if (n == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Forward<<<Blocks(n, 1024), 256, 0, StreamOf(launch)>>>(
        static_cast<const T*>(x), static_cast<const T*>(gate), n, static_cast<T*>(y));
  });
  CheckLaunch(kName);
}

void SigmoidGateBackward::Cuda(const Launch& launch) const {
  if (n == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Backward<<<Blocks(n, 1024), 256, 0, StreamOf(launch)>>>(
        static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<const T*>(gate), n,
        static_cast<T*>(dx), static_cast<T*>(dgate));
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
