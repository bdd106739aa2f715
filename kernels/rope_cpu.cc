#include <cmath>
#include <cstring>

#include "kernels/cpu_common.h"
#include "kernels/cuda_twins.h"
#include "kernels/rope.h"

namespace plumb::kernels {
namespace {

// Turns one head; `sign` -1 turns back.
template <class T>
inline void Turn(T* head, const float* cs, int32_t half, float sign) {
#pragma omp simd
  for (int32_t i = 0; i < half; ++i) {
    const float c = cs[i], s = sign * cs[half + i];
    const float a = ToFloat(head[i]), b = ToFloat(head[half + i]);
    head[i] = FromFloat<T>(a * c - b * s);
    head[half + i] = FromFloat<T>(b * c + a * s);
  }
}

template <class T>
void InPlace(T* qkv, const int32_t* position, const float* cos_sin, int64_t rows, int32_t heads, int32_t kv_heads,
             int32_t head_dim, bool inverse) {
  const int64_t width = int64_t{heads + 2 * kv_heads} * head_dim;
  const float sign = inverse ? -1.0f : 1.0f;
#pragma omp parallel for schedule(static) if (rows * width > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    const float* cs = cos_sin + int64_t{position[r]} * head_dim;
    for (int32_t h = 0; h < heads + kv_heads; ++h) Turn(qkv + r * width + int64_t{h} * head_dim, cs, head_dim / 2, sign);
  }
}

template <class T>
void AndWriteKv(T* qkv, const PagedRows& rows, const float* cos_sin, int32_t heads, int32_t layer, const PagedKv& kv) {
  const int32_t d = kv.head_dim;
  const int64_t width = int64_t{heads + 2 * kv.kv_heads} * d;
  T* pages = static_cast<T*>(kv.pages) + layer * kv.layer_stride();
#pragma omp parallel for schedule(static) if (rows.rows * width > kParallelElements)
  for (int32_t r = 0; r < rows.rows; ++r) {
    const int32_t position = rows.position[r];
    const float* cs = cos_sin + int64_t{position} * d;
    T* q = qkv + r * width;
    for (int32_t h = 0; h < heads + kv.kv_heads; ++h) Turn(q + int64_t{h} * d, cs, d / 2, 1.0f);
    const int32_t page = rows.page_table[int64_t{rows.slot[r]} * rows.page_table_stride + position / kv.page_tokens];
    T* to = pages + page * kv.page_stride() + int64_t{position % kv.page_tokens} * d;
    const T* k = q + int64_t{heads} * d;
    const T* v = k + int64_t{kv.kv_heads} * d;
    for (int32_t h = 0; h < kv.kv_heads; ++h) {
      std::memcpy(to + h * kv.head_stride(), k + int64_t{h} * d, sizeof(T) * static_cast<size_t>(d));
      std::memcpy(to + kv.kv_stride() + h * kv.head_stride(), v + int64_t{h} * d, sizeof(T) * static_cast<size_t>(d));
    }
  }
}

}  // namespace

void RopeTable(int64_t max_positions, int64_t head_dim, double theta, float* cos_sin) {
  const int64_t half = head_dim / 2;
  for (int64_t p = 0; p < max_positions; ++p) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
      cos_sin[p * head_dim + i] = static_cast<float>(std::cos(angle));
      cos_sin[p * head_dim + half + i] = static_cast<float>(std::sin(angle));
    }
  }
}

void RopeInPlace(const Launch& launch, void* qkv, const int32_t* position, const float* cos_sin, int64_t rows,
                 int32_t heads, int32_t kv_heads, int32_t head_dim, bool inverse) {
  PLUMB_DISPATCH_CUDA(launch, RopeInPlace(launch, qkv, position, cos_sin, rows, heads, kv_heads, head_dim, inverse))
  ForDType(launch.dtype, [&]<class T>(T) {
    InPlace(static_cast<T*>(qkv), position, cos_sin, rows, heads, kv_heads, head_dim, inverse);
  });
}

void RopeAndWriteKv(const Launch& launch, void* qkv, const PagedRows& rows, const float* cos_sin, int32_t heads,
                    int32_t layer, const PagedKv& kv) {
  PLUMB_DISPATCH_CUDA(launch, RopeAndWriteKv(launch, qkv, rows, cos_sin, heads, layer, kv))
  ForDType(launch.dtype, [&]<class T>(T) { AndWriteKv(static_cast<T*>(qkv), rows, cos_sin, heads, layer, kv); });
}

}  // namespace plumb::kernels
