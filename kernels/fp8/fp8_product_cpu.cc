#include <algorithm>
#include <array>
#include <vector>

#include "kernels/device/cpu_common.h"
#include "kernels/fp8/fp8_product.h"

namespace plumb::kernels {
namespace {

constexpr int64_t kRows = 4, kColumns = 32;  // of y, whose operands are decoded together

template <class C>
std::array<float, 256> Values() {
  std::array<float, 256> out;
  for (int code = 0; code < 256; ++code)
    out[static_cast<size_t>(code)] = C::Value(static_cast<uint8_t>(code));
  return out;
}

void Decode(const std::array<float, 256>& values, const uint8_t* codes, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = values[codes[i]];
}

float Dot(const float* a, const float* b, int64_t k) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < k; ++i) sum += a[i] * b[i];
  return sum;
}

template <class T>
void Multiply(const Fp8Product& p, const std::array<float, 256>& of_a) {
  const auto of_b = Values<E4M3>();
  auto* const y = static_cast<T*>(p.y);
  const int64_t blocks = (p.n + kColumns - 1) / kColumns;
#pragma omp parallel for schedule(static) if (p.m * p.n * p.k > kParallelElements)
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = block * kColumns, columns = std::min(kColumns, p.n - first);
    std::vector<float> b(static_cast<size_t>(columns * p.k)), a(static_cast<size_t>(kRows * p.k));
    Decode(of_b, p.b + first * p.k, columns * p.k, b.data());
    for (int64_t row = 0; row < p.m; row += kRows) {
      const int64_t rows = std::min(kRows, p.m - row);
      Decode(of_a, p.a + row * p.k, rows * p.k, a.data());
      for (int64_t c = 0; c < columns; ++c) {
        for (int64_t r = 0; r < rows; ++r) {
          const float sum = Dot(a.data() + r * p.k, b.data() + c * p.k, p.k) * p.a_scale[row + r] *
                            p.b_scale[first + c];
          T& out = y[(row + r) * p.n + first + c];
          out = FromFloat<T>(p.accumulate ? ToFloat(out) + sum : sum);
        }
      }
    }
  }
}

}  // namespace

void Fp8Product::Cpu(const Launch& launch) const {
  const auto of_a = a_format == Fp8::kE4M3 ? Values<E4M3>() : Values<E5M2>();
  ForDType(launch.dtype, [&]<class T>(T) { Multiply<T>(*this, of_a); });
}

}  // namespace plumb::kernels
