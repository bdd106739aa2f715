#include <atomic>

#include "kernels/device/cpu_common.h"
#include "kernels/products/row_product.h"

namespace plumb::kernels {
namespace {

std::atomic<bool> exact_products{true}, exact_on_cpu{false};

template <class T, class Y>
void Multiply(const RowProduct& p) {
  const auto* x = static_cast<const T*>(p.x);
  const auto* w = static_cast<const T*>(p.w);
  const auto* residual = static_cast<const Y*>(p.residual);
  const auto* bias = static_cast<const Y*>(p.bias);
  auto* y = static_cast<Y*>(p.y);
  const int64_t outputs = p.m * p.n;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < outputs; ++i) {
    const int64_t row = i / p.n, column = i % p.n;
    const T* left = x + row * p.k;
    const T* right = w + column * p.k;
    float sum = 0;
    for (int64_t t = 0; t < p.k; ++t) sum += ToFloat(left[t]) * ToFloat(right[t]);
    if (residual) sum += ToFloat(residual[i]);
    if (bias) sum += ToFloat(bias[column]);
    y[i] = FromFloat<Y>(sum);
  }
}

}  // namespace

void RowProduct::Cpu(const Launch& launch) const {
  PLUMB_CHECK(y_dtype == launch.dtype || y_dtype == DType::kFloat32);
  if (launch.dtype == DType::kFloat32) Multiply<float, float>(*this);
  else if (y_dtype == DType::kFloat32) Multiply<BFloat16, float>(*this);
  else Multiply<BFloat16, BFloat16>(*this);
}

void SetExactProducts(bool exact) { exact_products.store(exact, std::memory_order_relaxed); }
bool ExactProducts() { return exact_products.load(std::memory_order_relaxed); }
void SetExactOnCpu(bool exact) { exact_on_cpu.store(exact, std::memory_order_relaxed); }
bool ExactOnCpu() { return exact_on_cpu.load(std::memory_order_relaxed); }

}  // namespace plumb::kernels
