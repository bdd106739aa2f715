#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/device/cpu_common.h"
#include "kernels/fp8/quantise_fp8.h"

namespace plumb::kernels {
namespace {

// NaN has no magnitude here: its own code says it.
float Larger(float largest, float x) {
  const float a = std::fabs(x);
  return a > largest ? a : largest;
}

template <class C, class T>
void Rows(const T* x, int64_t rows, int64_t columns, uint8_t* codes, float* scale) {
#pragma omp parallel for schedule(static) if (rows * columns > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    const T* const row = x + r * columns;
    float largest = 0;
    for (int64_t c = 0; c < columns; ++c) largest = Larger(largest, ToFloat(row[c]));
    scale[r] = Fp8Scale<C>(largest);
    const float inverse = 1.0f / scale[r];
    for (int64_t c = 0; c < columns; ++c)
      codes[r * columns + c] = C::Code(ToFloat(row[c]) * inverse);
  }
}

template <class C, class T>
void Columns(const T* x, int64_t rows, int64_t columns, uint8_t* codes, float* scale) {
  constexpr int64_t kTile = 64;
#pragma omp parallel for schedule(static) if (rows * columns > kParallelElements)
  for (int64_t first = 0; first < columns; first += kTile) {
    const int64_t end = std::min(columns, first + kTile);
    float largest[kTile] = {}, inverse[kTile];
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = first; c < end; ++c)
        largest[c - first] = Larger(largest[c - first], ToFloat(x[r * columns + c]));
    }
    for (int64_t c = first; c < end; ++c) {
      scale[c] = Fp8Scale<C>(largest[c - first]);
      inverse[c - first] = 1.0f / scale[c];
    }
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = first; c < end; ++c)
        codes[c * rows + r] = C::Code(ToFloat(x[r * columns + c]) * inverse[c - first]);
    }
  }
}

}  // namespace

void QuantiseRows::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    ForFp8(format,
           [&]<class C>(C) { Rows<C>(static_cast<const T*>(x), rows, columns, codes, scale); });
  });
}

void QuantiseColumns::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    ForFp8(format,
           [&]<class C>(C) { Columns<C>(static_cast<const T*>(x), rows, columns, codes, scale); });
  });
}

}  // namespace plumb::kernels
