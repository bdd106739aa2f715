#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/device/cpu_common.h"
#include "kernels/quantised/kv_codes.h"
#include "kernels/quantised/kv_rows.h"

namespace plumb::kernels {
namespace {

constexpr auto kGroup = static_cast<size_t>(kKvInt4Group);
constexpr int32_t kWidestHead = 1024;  // of any model (Validate of model_config.h)

float FurthestFrom0(std::span<const float> x) {
  float most = 0;
  bool finite = true;
  for (const float v : x) {
    most = std::abs(v) > std::abs(most) ? v : most;
    finite = finite && std::isfinite(v);
  }
  return finite ? most : NAN;
}

const std::array<float, 256>& E4M3() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> t{};
    for (size_t i = 0; i < 256; ++i) t[i] = OfE4M3(static_cast<uint8_t>(i));
    return t;
  }();
  return table;
}

uint8_t* PackInt4(std::span<const float> x, uint8_t* row) {
  PutKvScale(FurthestFrom0(x) / kKvMostInt4, row);
  const float inverse = KvInverse(KvScaleAt(row));
  row += kKvScaleBytes;
  for (size_t i = 0; i < x.size(); i += 2)
    *row++ = static_cast<uint8_t>(Int4Code(x[i] * inverse) | Int4Code(x[i + 1] * inverse) << 4);
  return row;
}

const uint8_t* UnpackInt4(const uint8_t* row, std::span<float> x) {
  const float scale = KvScaleAt(row);
  row += kKvScaleBytes;
  for (size_t i = 0; i < x.size(); i += 2, ++row) {
    x[i] = scale * OfInt4(*row & 15);
    x[i + 1] = scale * OfInt4(*row >> 4);
  }
  return row;
}

template <class T>
void Write(const WriteKvRows& w) {
  const PagedKv& kv = w.kv;
  const PagedRows& rows = w.rows;
  const int32_t d = kv.head_dim, kinds = kv.keys_only ? 1 : 2;
  auto* pages = static_cast<uint8_t*>(kv.pages) + w.layer * kv.layer_stride();
#pragma omp parallel for schedule(static) if (int64_t{rows.rows} * w.stride > kParallelElements)
  for (int32_t r = 0; r < rows.rows; ++r) {
    const int32_t position = rows.position[r];
    const T* x = static_cast<const T*>(w.rows_kv) + r * w.stride;
    const int32_t page =
        rows.page_table[int64_t{rows.slot[r]} * rows.page_table_stride + position / kv.page_tokens];
    uint8_t* to = pages + page * kv.page_stride() + position % kv.page_tokens * kv.row_stride();
    float widened[kWidestHead];
    for (int32_t kind = 0; kind < kinds; ++kind) {
      for (int32_t h = 0; h < kv.kv_heads; ++h, x += d) {
        for (int32_t i = 0; i < d; ++i) widened[i] = ToFloat(x[i]);
        PackKvRow(kv.format, {widened, static_cast<size_t>(d)},
                  to + kind * kv.kv_stride() + h * kv.head_stride());
      }
    }
  }
}

}  // namespace

void PackKvRow(KvFormat format, std::span<const float> x, uint8_t* row) {
  if (format == KvFormat::kInt4) {
    for (size_t at = 0; at < x.size(); at += kGroup)
      row = PackInt4(x.subspan(at, std::min(kGroup, x.size() - at)), row);
    return;
  }
  const bool fp8 = format == KvFormat::kFp8;
  PutKvScale(std::abs(FurthestFrom0(x)) / (fp8 ? kKvMostFp8 : kKvMostInt8), row);
  const float inverse = KvInverse(KvScaleAt(row));
  row += kKvScaleBytes;
  for (size_t i = 0; i < x.size(); ++i)
    row[i] = fp8 ? E4M3Code(x[i] * inverse) : Int8Code(x[i] * inverse);
}

void UnpackKvRow(KvFormat format, const uint8_t* row, std::span<float> x) {
  if (format == KvFormat::kInt4) {
    for (size_t at = 0; at < x.size(); at += kGroup)
      row = UnpackInt4(row, x.subspan(at, std::min(kGroup, x.size() - at)));
    return;
  }
  const float scale = KvScaleAt(row);
  row += kKvScaleBytes;
  if (format == KvFormat::kFp8) {
    const std::array<float, 256>& table = E4M3();
    for (size_t i = 0; i < x.size(); ++i) x[i] = scale * table[row[i]];
    return;
  }
#pragma omp simd
  for (size_t i = 0; i < x.size(); ++i) x[i] = scale * OfInt8(row[i]);
}

void WriteKvRows::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Write<T>(*this); });
}

}  // namespace plumb::kernels
