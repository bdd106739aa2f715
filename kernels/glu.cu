#include "kernels/device/cuda_common.h"
#include "kernels/glu.h"

namespace plumb::kernels {
namespace {

constexpr int kForwardThreads = 128;

// blockIdx.y and on: rows, so that no place has to be divided into row and column; N columns a
// thread.
template <Activation A, int N, class T>
__global__ void __launch_bounds__(kForwardThreads)
    Forward(const T* gate_up, int64_t rows, int64_t ffn, T* out) {
  AwaitEarlier();
  const int64_t i = (int64_t{blockIdx.x} * kForwardThreads + threadIdx.x) * N;
  if (i >= ffn) return;
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const auto gate = *reinterpret_cast<const Few<N, T>*>(gate_up + r * 2 * ffn + i);
    const auto up = *reinterpret_cast<const Few<N, T>*>(gate_up + r * 2 * ffn + ffn + i);
    Few<N, T> result;
#pragma unroll
    for (int u = 0; u < N; ++u) {
      const float g = ToFloat(gate.x[u]);
      result.x[u] = FromFloat<T>(g / (1.0f + expf(-GateExponent<A>(g))) * ToFloat(up.x[u]));
    }
    *reinterpret_cast<Few<N, T>*>(out + r * ffn + i) = result;
  }
}

template <Activation A, int N, class T>
__global__ void Backward(const T* dout, const T* gate_up, int64_t rows, int64_t ffn, T* dgate_up,
                         T* act) {
  const int64_t columns = ffn / N, total = rows * columns;
  for (int64_t k = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; k < total;
       k += int64_t{gridDim.x} * blockDim.x) {
    const int64_t r = k / columns, i = (k - r * columns) * N;
    const auto gate = *reinterpret_cast<const Few<N, T>*>(gate_up + r * 2 * ffn + i);
    const auto up = *reinterpret_cast<const Few<N, T>*>(gate_up + r * 2 * ffn + ffn + i);
    const auto d = *reinterpret_cast<const Few<N, T>*>(dout + r * ffn + i);
    Few<N, T> dgate, dup, result;
#pragma unroll
    for (int u = 0; u < N; ++u) {
      const float g = ToFloat(gate.x[u]), du = ToFloat(d.x[u]);
      const float below = 1.0f + expf(-GateExponent<A>(g)), s = 1.0f / below;
      result.x[u] = FromFloat<T>(g / below * ToFloat(up.x[u]));
      dup.x[u] = FromFloat<T>(du * g * s);
      dgate.x[u] =
          FromFloat<T>(du * ToFloat(up.x[u]) * s * (1.0f + g * GateSlope<A>(g) * (1.0f - s)));
    }
    *reinterpret_cast<Few<N, T>*>(dgate_up + r * 2 * ffn + i) = dgate;
    *reinterpret_cast<Few<N, T>*>(dgate_up + r * 2 * ffn + ffn + i) = dup;
    if (act) *reinterpret_cast<Few<N, T>*>(act + r * ffn + i) = result;
  }
}

}  // namespace

void Glu::Cuda(const Launch& launch) const {
  if (rows * ffn == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    ForActivation(activation, [&]<Activation A>(std::integral_constant<Activation, A>) {
      constexpr int kWide = Pack<T>::kSize;
      const bool wide = ffn % kWide == 0 && Aligned16(gate_up) && Aligned16(out);
      const auto kernel = wide ? Forward<A, kWide, T> : Forward<A, 1, T>;
      constexpr int64_t kMostY = 65535;  // of a grid
      const dim3 grid(Blocks(ffn / (wide ? kWide : 1), kForwardThreads),
                      static_cast<unsigned>(rows < kMostY ? rows : kMostY));
      LaunchEarly(kernel, grid, dim3(kForwardThreads), StreamOf(launch),
                  static_cast<const T*>(gate_up), rows, ffn, static_cast<T*>(out));
    });
  });
  CheckLaunch(kName);
}

void GluBackward::Cuda(const Launch& launch) const {
  if (rows * ffn == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    ForActivation(activation, [&]<Activation A>(std::integral_constant<Activation, A>) {
      constexpr int kWide = Pack<T>::kSize;
      const bool wide = ffn % kWide == 0 && Aligned16(gate_up) && Aligned16(dout) &&
                        Aligned16(dgate_up) && Aligned16(act);
      const auto kernel = wide ? Backward<A, kWide, T> : Backward<A, 1, T>;
      kernel<<<Blocks(rows * ffn / (wide ? kWide : 1), 256), 256, 0, StreamOf(launch)>>>(
          static_cast<const T*>(dout), static_cast<const T*>(gate_up), rows, ffn,
          static_cast<T*>(dgate_up), static_cast<T*>(act));
    });
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
