#include "kernels/head/row_mass.h"
#include "kernels/device/cpu_common.h"

namespace plumb::kernels {

void MassTerms(const float* x, int64_t n, float top, float scale, float* e) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) e[j] = FastExp((x[j] - top) * scale);
}

float SumOfTerms(const float* e, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j) sum += e[j];
  return sum;
}

}  // namespace plumb::kernels
