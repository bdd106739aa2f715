#include "kernels/cpu_common.h"
#include "kernels/cuda_twins.h"
#include "kernels/swiglu.h"

namespace plumb::kernels {
namespace {

template <class T>
void Forward(const T* gate_up, int64_t rows, int64_t ffn, T* out) {
#pragma omp parallel for schedule(static) if (rows * ffn > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    const T* gate = gate_up + r * 2 * ffn;
    const T* up = gate + ffn;
    T* to = out + r * ffn;
#pragma omp simd
    for (int64_t i = 0; i < ffn; ++i) {
      const float g = ToFloat(gate[i]);
      to[i] = FromFloat<T>(g / (1.0f + FastExp(-g)) * ToFloat(up[i]));
    }
  }
}

template <class T>
void Backward(const T* dout, const T* gate_up, int64_t rows, int64_t ffn, T* dgate_up) {
#pragma omp parallel for schedule(static) if (rows * ffn > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    const T* gate = gate_up + r * 2 * ffn;
    const T* up = gate + ffn;
    const T* d = dout + r * ffn;
    T* dgate = dgate_up + r * 2 * ffn;
    T* dup = dgate + ffn;
#pragma omp simd
    for (int64_t i = 0; i < ffn; ++i) {
      const float g = ToFloat(gate[i]), u = ToFloat(up[i]), di = ToFloat(d[i]);
      const float s = 1.0f / (1.0f + FastExp(-g));
      dup[i] = FromFloat<T>(di * g * s);
      dgate[i] = FromFloat<T>(di * u * s * (1.0f + g * (1.0f - s)));
    }
  }
}

}  // namespace

void SwigluForward(const Launch& launch, const void* gate_up, int64_t rows, int64_t ffn, void* out) {
  PLUMB_DISPATCH_CUDA(launch, SwigluForward(launch, gate_up, rows, ffn, out))
  ForDType(launch.dtype, [&]<class T>(T) { Forward(static_cast<const T*>(gate_up), rows, ffn, static_cast<T*>(out)); });
}

void SwigluBackward(const Launch& launch, const void* dout, const void* gate_up, int64_t rows, int64_t ffn,
                    void* dgate_up) {
  PLUMB_DISPATCH_CUDA(launch, SwigluBackward(launch, dout, gate_up, rows, ffn, dgate_up))
  ForDType(launch.dtype, [&]<class T>(T) {
    Backward(static_cast<const T*>(dout), static_cast<const T*>(gate_up), rows, ffn, static_cast<T*>(dgate_up));
  });
}

}  // namespace plumb::kernels
