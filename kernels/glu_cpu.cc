#include "kernels/glu.h"
#include "kernels/device/cpu_common.h"

namespace plumb::kernels {
namespace {

template <Activation A, class T>
void Forward(const Glu& k) {
  const int64_t ffn = k.ffn;
#pragma omp parallel for schedule(static) if (k.rows * ffn > kParallelElements)
  for (int64_t r = 0; r < k.rows; ++r) {
    const T* gate = static_cast<const T*>(k.gate_up) + r * 2 * ffn;
    const T* up = gate + ffn;
    T* to = static_cast<T*>(k.out) + r * ffn;
#pragma omp simd
    for (int64_t i = 0; i < ffn; ++i) {
      const float g = ToFloat(gate[i]);
      to[i] = FromFloat<T>(g / (1.0f + FastExp(-GateExponent<A>(g))) * ToFloat(up[i]));
    }
  }
}

template <Activation A, bool kAct, class T>
void Backward(const GluBackward& k) {
  const int64_t ffn = k.ffn;
#pragma omp parallel for schedule(static) if (k.rows * ffn > kParallelElements)
  for (int64_t r = 0; r < k.rows; ++r) {
    const T* gate = static_cast<const T*>(k.gate_up) + r * 2 * ffn;
    const T* up = gate + ffn;
    const T* d = static_cast<const T*>(k.dout) + r * ffn;
    T* dgate = static_cast<T*>(k.dgate_up) + r * 2 * ffn;
    T* dup = dgate + ffn;
    T* act = kAct ? static_cast<T*>(k.act) + r * ffn : nullptr;
#pragma omp simd
    for (int64_t i = 0; i < ffn; ++i) {
      const float g = ToFloat(gate[i]), u = ToFloat(up[i]), di = ToFloat(d[i]);
      const float below = 1.0f + FastExp(-GateExponent<A>(g)), s = 1.0f / below;
      if constexpr (kAct) act[i] = FromFloat<T>(g / below * u);
      dup[i] = FromFloat<T>(di * g * s);
      dgate[i] = FromFloat<T>(di * u * s * (1.0f + g * GateSlope<A>(g) * (1.0f - s)));
    }
  }
}

}  // namespace

void Glu::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    ForActivation(activation, [&]<Activation A>(std::integral_constant<Activation, A>) {
      Forward<A, T>(*this);
    });
  });
}

void GluBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    ForActivation(activation, [&]<Activation A>(std::integral_constant<Activation, A>) {
      if (act) Backward<A, true, T>(*this);
      else Backward<A, false, T>(*this);
    });
  });
}

}  // namespace plumb::kernels
