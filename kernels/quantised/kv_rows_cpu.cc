#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "common/base/dtype.h"
#include "kernels/quantised/kv_rows.h"

namespace plumb::kernels {
namespace {

constexpr float kMostInt8 = 127, kMostFp8 = 448;

void PutScale(float scale, uint8_t* at) {
  const BFloat16 bits = ToBFloat16(scale);
  std::memcpy(at, &bits, sizeof(bits));
}

float ScaleAt(const uint8_t* at) {
  BFloat16 bits;
  std::memcpy(&bits, at, sizeof(bits));
  return ToFloat(bits);
}

float FurthestFrom0(std::span<const float> x) {
  float most = 0;
  bool finite = true;
  for (const float v : x) {
    most = std::abs(v) > std::abs(most) ? v : most;
    finite = finite && std::isfinite(v);
  }
  return finite ? most : NAN;
}

// 1 / scale, for a scale as it will be read again.
float Inverse(float scale) { return scale == 0 ? 0 : 1 / scale; }

// To E4M3: 4 bits of exponent with bias 7, 3 of mantissa, subnormal below 2^-6; ties to even.
uint8_t ToE4M3(float x) {
  const float a = std::min(std::abs(x), kMostFp8);
  const uint8_t sign = std::signbit(x) ? 0x80 : 0;
  if (a < 0x1p-6F) return static_cast<uint8_t>(sign | static_cast<int>(std::nearbyint(a * 0x1p9F)));
  const auto bits = std::bit_cast<uint32_t>(a);
  // 20 bits of mantissa go; what is carried over raises the exponent
  const uint32_t rounded = (bits + 0x7FFFFU + ((bits >> 20) & 1U)) >> 20;
  return static_cast<uint8_t>(sign | std::min<uint32_t>(rounded - ((127U - 7U) << 3), 0x7E));
}

const std::array<float, 256>& E4M3() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> t{};
    for (int i = 0; i < 256; ++i) {
      const int exponent = (i >> 3) & 15, mantissa = i & 7;
      const float a = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                    : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
      t[static_cast<size_t>(i)] = (i & 0x7F) == 0x7F ? NAN : (i & 0x80) != 0 ? -a : a;
    }
    return t;
  }();
  return table;
}

uint8_t* PackInt4(std::span<const float> x, uint8_t* row) {
  PutScale(FurthestFrom0(x) / -8, row);
  const float scale = ScaleAt(row), inverse = Inverse(scale);
  row += kKvScaleBytes;
  const auto four = [&](float v) {
    const float q = std::nearbyint(v * inverse) + 8;
    return std::isnan(q) ? 0 : static_cast<int>(std::clamp(q, 0.0F, 15.0F));
  };
  for (size_t i = 0; i < x.size(); i += 2)
    *row++ = static_cast<uint8_t>(four(x[i]) | four(x[i + 1]) << 4);
  return row;
}

const uint8_t* UnpackInt4(const uint8_t* row, std::span<float> x) {
  const float scale = ScaleAt(row);
  row += kKvScaleBytes;
  for (size_t i = 0; i < x.size(); i += 2, ++row) {
    x[i] = scale * static_cast<float>((*row & 15) - 8);
    x[i + 1] = scale * static_cast<float>((*row >> 4) - 8);
  }
  return row;
}

}  // namespace

void PackKvRow(KvFormat format, std::span<const float> x, uint8_t* row) {
  if (format == KvFormat::kInt4) {
    constexpr auto kGroup = static_cast<size_t>(kKvInt4Group);
    for (size_t at = 0; at < x.size(); at += kGroup)
      row = PackInt4(x.subspan(at, std::min(kGroup, x.size() - at)), row);
    return;
  }
  const bool fp8 = format == KvFormat::kFp8;
  PutScale(std::abs(FurthestFrom0(x)) / (fp8 ? kMostFp8 : kMostInt8), row);
  const float inverse = Inverse(ScaleAt(row));
  row += kKvScaleBytes;
  for (size_t i = 0; i < x.size(); ++i) {
    const float q = x[i] * inverse;
    if (fp8) row[i] = std::isnan(q) ? 0 : ToE4M3(q);
    else
      row[i] = static_cast<uint8_t>(std::isnan(q) ? 0
                                                  : static_cast<int8_t>(std::clamp(
                                                        std::nearbyint(q), -kMostInt8, kMostInt8)));
  }
}

void UnpackKvRow(KvFormat format, const uint8_t* row, std::span<float> x) {
  if (format == KvFormat::kInt4) {
    constexpr auto kGroup = static_cast<size_t>(kKvInt4Group);
    for (size_t at = 0; at < x.size(); at += kGroup)
      row = UnpackInt4(row, x.subspan(at, std::min(kGroup, x.size() - at)));
    return;
  }
  const float scale = ScaleAt(row);
  row += kKvScaleBytes;
  if (format == KvFormat::kFp8) {
    const std::array<float, 256>& table = E4M3();
    for (size_t i = 0; i < x.size(); ++i) x[i] = scale * table[row[i]];
    return;
  }
#pragma omp simd
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = scale * static_cast<float>(static_cast<int8_t>(row[i]));
}

}  // namespace plumb::kernels
