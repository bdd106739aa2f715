#include "kernels/delta/delta_gates.h"

#include <cmath>

#include "kernels/device/cpu_common.h"

namespace plumb::kernels {
namespace {

inline float Softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }
inline float Sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

}  // namespace

void DeltaGates::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
#pragma omp parallel for schedule(static) if (rows * heads > kParallelElements / 16)
    for (int64_t r = 0; r < rows; ++r) {
      const T* a_row = static_cast<const T*>(a) + r * stride;
      const T* b_row = static_cast<const T*>(b) + r * stride;
      for (int32_t h = 0; h < heads; ++h) {
        const float rate = std::exp(ToFloat(static_cast<const T*>(a_log)[h]));
        g[r * heads + h] =
            -rate * Softplus(ToFloat(a_row[h]) + ToFloat(static_cast<const T*>(bias)[h]));
        beta[r * heads + h] = Sigmoid(ToFloat(b_row[h]));
      }
    }
  });
}

void DeltaGatesBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
  // A head's sums belong to one thread: their order is that of the rows.
#pragma omp parallel for schedule(static) if (rows * heads > kParallelElements / 16)
    for (int32_t h = 0; h < heads; ++h) {
      const float rate = std::exp(ToFloat(static_cast<const T*>(a_log)[h])),
                  shift = ToFloat(static_cast<const T*>(bias)[h]);
      double of_rate = 0, of_shift = 0;
      for (int64_t r = 0; r < rows; ++r) {
        const float x = ToFloat(static_cast<const T*>(a)[r * stride + h]) + shift,
                    beta = Sigmoid(ToFloat(static_cast<const T*>(b)[r * stride + h]));
        const float d = dg[r * heads + h] * -rate, dx = d * Sigmoid(x);
        of_rate += static_cast<double>(d * Softplus(x));
        of_shift += static_cast<double>(dx);
        static_cast<T*>(da)[r * stride + h] = FromFloat<T>(dx);
        static_cast<T*>(db)[r * stride + h] =
            FromFloat<T>(dbeta[r * heads + h] * beta * (1.0f - beta));
      }
      if (da_log) da_log[h] += static_cast<float>(of_rate);
      if (dbias) dbias[h] += static_cast<float>(of_shift);
    }
  });
}

}  // namespace plumb::kernels
