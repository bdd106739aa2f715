#include <algorithm>
#include <cmath>

#include "kernels/device/cpu_common.h"
#include "kernels/quantised/kv_rows.h"
#include "kernels/rope.h"

namespace plumb::kernels {
namespace {

// Turns one head; `sign` -1 turns back.
template <class T>
inline void Turn(T* head, const float* cs, int32_t half, bool interleaved, float sign) {
  if (interleaved) {
    for (int32_t i = 0; i < half; ++i) {
      const float c = cs[i], s = sign * cs[half + i];
      const float a = ToFloat(head[2 * i]), b = ToFloat(head[2 * i + 1]);
      head[2 * i] = FromFloat<T>(a * c - b * s);
      head[2 * i + 1] = FromFloat<T>(b * c + a * s);
    }
    return;
  }
#pragma omp simd
  for (int32_t i = 0; i < half; ++i) {
    const float c = cs[i], s = sign * cs[half + i];
    const float a = ToFloat(head[i]), b = ToFloat(head[half + i]);
    head[i] = FromFloat<T>(a * c - b * s);
    head[half + i] = FromFloat<T>(b * c + a * s);
  }
}

template <class T>
void InPlace(const RopeInPlace& k) {
  const int64_t width = int64_t{k.heads + 2 * k.kv_heads} * k.head_dim;
  const float sign = k.inverse ? -1.0f : 1.0f;
#pragma omp parallel for schedule(static) if (k.rows * width > kParallelElements)
  for (int64_t r = 0; r < k.rows; ++r) {
    const float* cs = k.cos_sin + int64_t{k.position[r]} * k.dims;
    T* row = static_cast<T*>(k.qkv) + r * width;
    for (int32_t h = 0; h < k.heads + k.kv_heads; ++h)
      Turn(row + int64_t{h} * k.head_dim, cs, k.dims / 2, k.interleaved, sign);
  }
}

template <class T>
void Back(const RopeBackward& k) {
  const int64_t d = k.head_dim, q = k.heads * d, kv = k.kv_heads * d, width = q + 2 * kv;
#pragma omp parallel for schedule(static) if (k.rows * width > kParallelElements)
  for (int64_t r = 0; r < k.rows; ++r) {
    T* row = static_cast<T*>(k.dqkv) + r * width;
    std::copy_n(static_cast<const T*>(k.dq) + r * q, q, row);
    std::copy_n(static_cast<const T*>(k.dk) + r * kv, kv, row + q);
    std::copy_n(static_cast<const T*>(k.dv) + r * kv, kv, row + q + kv);
    if (k.dims == 0) continue;
    const float* cs = k.cos_sin + int64_t{k.position[r]} * k.dims;
    for (int64_t h = 0; h < k.heads + k.kv_heads; ++h)
      Turn(row + h * d, cs, k.dims / 2, k.interleaved, -1.0f);
  }
}

template <class T>
void AndWriteKv(const RopeAndWriteKv& w) {
  const PagedKv& kv = w.kv;
  const PagedRows& rows = w.rows;
  const int32_t d = kv.head_dim, heads = w.heads;
  const int64_t width = int64_t{heads + (kv.keys_only ? 1 : 2) * kv.kv_heads} * d;
  const bool plain = kv.format == KvFormat::kModel;
  T* pages = plain ? static_cast<T*>(kv.pages) + w.layer * kv.layer_stride() : nullptr;
#pragma omp parallel for schedule(static) if (rows.rows * width > kParallelElements)
  for (int32_t r = 0; r < rows.rows; ++r) {
    const int32_t position = rows.position[r];
    T* q = static_cast<T*>(w.qkv) + r * width;
    if (w.bias) {
      const T* bias = static_cast<const T*>(w.bias);
      for (int64_t i = 0; i < width; ++i) q[i] = FromFloat<T>(ToFloat(q[i]) + ToFloat(bias[i]));
    }
    if (w.dims > 0) {
      const float* cs = w.cos_sin + int64_t{position} * w.dims;
      for (int32_t h = 0; h < heads + kv.kv_heads; ++h)
        Turn(q + int64_t{h} * d, cs, w.dims / 2, w.interleaved, 1.0f);
    }
    if (!plain) continue;
    const int32_t page =
        rows.page_table[int64_t{rows.slot[r]} * rows.page_table_stride + position / kv.page_tokens];
    T* to = pages + page * kv.page_stride() + position % kv.page_tokens * kv.row_stride();
    const T* k = q + int64_t{heads} * d;
    const T* v = k + int64_t{kv.kv_heads} * d;
    for (int32_t h = 0; h < kv.kv_heads; ++h) {
      std::copy_n(k + int64_t{h} * d, d, to + h * kv.head_stride());
      if (kv.keys_only) continue;
      std::copy_n(v + int64_t{h} * d, d, to + kv.kv_stride() + h * kv.head_stride());
    }
  }
}

template <class T>
void Scale(const ScaleQueries& k) {
#pragma omp parallel for schedule(static) if (k.rows * k.width > kParallelElements)
  for (int64_t r = 0; r < k.rows; ++r) {
    T* row = static_cast<T*>(k.qkv) + r * k.stride;
    const float scale = k.scale[k.position[r]];
#pragma omp simd
    for (int64_t i = 0; i < k.width; ++i) row[i] = FromFloat<T>(ToFloat(row[i]) * scale);
  }
}

}  // namespace

void RopeTable(int64_t max_positions, std::span<const double> frequencies, double factor,
               float* cos_sin) {
  const auto half = static_cast<int64_t>(frequencies.size());
  for (int64_t p = 0; p < max_positions; ++p) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * frequencies[static_cast<size_t>(i)];
      cos_sin[p * 2 * half + i] = static_cast<float>(std::cos(angle) * factor);
      cos_sin[p * 2 * half + half + i] = static_cast<float>(std::sin(angle) * factor);
    }
  }
}

void RopeInPlace::Cpu(const Launch& launch) const {
  if (dims == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) { InPlace<T>(*this); });
}

void RopeBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Back<T>(*this); });
}

void RopeAndWriteKv::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { AndWriteKv<T>(*this); });
  if (kv.format != KvFormat::kModel)
    BehindQueries(qkv, launch.dtype, heads, rows, layer, kv).Cpu(launch);
}

void ScaleQueries::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Scale<T>(*this); });
}

}  // namespace plumb::kernels
