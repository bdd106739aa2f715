#include "kernels/delta/sigmoid_gate.h"

#include "kernels/device/cpu_common.h"

namespace plumb::kernels {

void SigmoidGate::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    const T* from = static_cast<const T*>(x);
    const T* by = static_cast<const T*>(gate);
    T* to = static_cast<T*>(y);
#pragma omp parallel for simd schedule(static) if (n > kParallelElements)
    for (int64_t i = 0; i < n; ++i)
      to[i] = FromFloat<T>(ToFloat(from[i]) / (1.0f + FastExp(-ToFloat(by[i]))));
  });
}

void SigmoidGateBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    const T* d = static_cast<const T*>(dy);
    const T* from = static_cast<const T*>(x);
    const T* by = static_cast<const T*>(gate);
    T* to = static_cast<T*>(dx);
    T* to_gate = static_cast<T*>(dgate);
#pragma omp parallel for simd schedule(static) if (n > kParallelElements)
    for (int64_t i = 0; i < n; ++i) {
      const float s = 1.0f / (1.0f + FastExp(-ToFloat(by[i]))), di = ToFloat(d[i]);
      to_gate[i] = FromFloat<T>(di * ToFloat(from[i]) * s * (1.0f - s));
      to[i] = FromFloat<T>(di * s);
    }
  });
}

}  // namespace plumb::kernels
