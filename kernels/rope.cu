#include "kernels/device/cuda_common.h"
#include "kernels/quantised/kv_rows.h"
#include "kernels/rope.h"

namespace plumb::kernels {
namespace {

// Where pair i of a head lies: the first dims / 2 pairs are turned, the others are the two halves
// of what stays.
struct Pair {
  int32_t a, b;
  int32_t angle;  // of cosines and sines
  bool turned;
};

__device__ __forceinline__ Pair PairAt(int32_t i, int32_t dims, int32_t d, bool interleaved) {
  if (i < dims / 2 && interleaved) return {2 * i, 2 * i + 1, i, true};
  if (i < dims / 2) return {i, i + dims / 2, i, true};
  // dims + (i - dims / 2), and (d - dims) / 2 behind it
  return {dims / 2 + i, i + d / 2, 0, false};
}

template <int N, class T>
__device__ __forceinline__ void Add(Few<N, T>* x, const T* bias) {
  const auto add = *reinterpret_cast<const Few<N, T>*>(bias);
#pragma unroll
  for (int u = 0; u < N; ++u) x->x[u] = FromFloat<T>(ToFloat(x->x[u]) + ToFloat(add.x[u]));
}

// Elements `at.a` .. + N of a head turned with those from `at.b` on, after the head's bias was
// added; the results in a and b.
template <int N, class T>
__device__ __forceinline__ void Turn(const T* head, const float* cs, int32_t dims, Pair at,
                                     float sign, Few<N, T>* a, Few<N, T>* b,
                                     const T* bias = nullptr) {
  *a = *reinterpret_cast<const Few<N, T>*>(head + at.a);
  *b = *reinterpret_cast<const Few<N, T>*>(head + at.b);
  if (bias) {
    Add(a, bias + at.a);
    Add(b, bias + at.b);
  }
  if (!at.turned) return;
#pragma unroll
  for (int u = 0; u < N; ++u) {
    const float c = cs[at.angle + u], s = sign * cs[dims / 2 + at.angle + u];
    const float x = ToFloat(a->x[u]), y = ToFloat(b->x[u]);
    // Which product is rounded is said, so that every kernel gives the same bits.
    a->x[u] = FromFloat<T>(__fmaf_rn(x, c, -__fmul_rn(y, s)));
    b->x[u] = FromFloat<T>(__fmaf_rn(y, c, __fmul_rn(x, s)));
  }
}

// One thread turns N pairs of one head of one row; interleaved pairs one by one (N = 1).
template <int N, class T>
__global__ void InPlace(T* qkv, const int32_t* position, const float* cos_sin, int64_t rows,
                        int32_t heads, int32_t kv_heads, int32_t d, int32_t dims, bool interleaved,
                        float sign) {
  const int32_t parts = dims / 2 / N, tasks = (heads + kv_heads) * parts;
  const int64_t width = int64_t{heads + 2 * kv_heads} * d;
  for (int64_t k = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; k < rows * tasks;
       k += int64_t{gridDim.x} * blockDim.x) {
    const int64_t r = k / tasks;
    const auto task = static_cast<int32_t>(k - r * tasks);
    const int32_t h = task / parts;
    const Pair at = PairAt((task - h * parts) * N, dims, d, interleaved);
    T* head = qkv + r * width + int64_t{h} * d;
    Few<N, T> a, b;
    Turn(head, cos_sin + int64_t{position[r]} * dims, dims, at, sign, &a, &b);
    *reinterpret_cast<Few<N, T>*>(head + at.a) = a;
    *reinterpret_cast<Few<N, T>*>(head + at.b) = b;
  }
}

// One thread N pairs of one head of one row, from where its gradient lies to the merged row.
template <int N, class T>
__global__ void Back(RopeBackward k) {
  const int32_t d = k.head_dim, parts = d / 2 / N, tasks = (k.heads + 2 * k.kv_heads) * parts;
  const int64_t width = int64_t{k.heads + 2 * k.kv_heads} * d;
  for (int64_t t = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; t < k.rows * tasks;
       t += int64_t{gridDim.x} * blockDim.x) {
    const int64_t r = t / tasks;
    const auto task = static_cast<int32_t>(t - r * tasks);
    const int32_t h = task / parts;
    Pair at = PairAt((task - h * parts) * N, k.dims, d, k.interleaved);
    const bool key = h >= k.heads, value = h >= k.heads + k.kv_heads;
    const void* part = value ? k.dv : (key ? k.dk : k.dq);
    const int32_t of = key ? k.kv_heads : k.heads,
                  own = h - (value ? k.heads + k.kv_heads : (key ? k.heads : 0));
    if (value) at.turned = false;
    const float* cs = at.turned ? k.cos_sin + int64_t{k.position[r]} * k.dims : nullptr;
    Few<N, T> a, b;
    Turn(static_cast<const T*>(part) + (r * of + own) * d, cs, k.dims, at, -1.0f, &a, &b);
    T* to = static_cast<T*>(k.dqkv) + r * width + int64_t{h} * d;
    *reinterpret_cast<Few<N, T>*>(to + at.a) = a;
    *reinterpret_cast<Few<N, T>*>(to + at.b) = b;
  }
}

// Heads of keys and values that a row has.
__host__ __device__ int32_t KeysAndValues(const PagedKv& kv) {
  return kv.keys_only ? kv.kv_heads : 2 * kv.kv_heads;
}

// As above over q, k and v: rotated q and k go back to qkv, rotated k and plain v go to their page.
// A block a row; a thread N pairs of one head.
template <int N, class T>
__global__ void AndWriteKv(T* qkv, const T* bias, PagedRows rows, const float* cos_sin,
                           int32_t heads, int32_t dims, bool interleaved, int32_t layer,
                           PagedKv kv) {
  AwaitEarlier();
  const int32_t d = kv.head_dim, parts = d / 2 / N, all = heads + KeysAndValues(kv);
  const int64_t r = blockIdx.x;
  const int32_t position = rows.position[r];
  const bool writes = kv.format == KvFormat::kModel;  // otherwise packed when all are turned
  T* row = qkv + r * all * d;
  T* to_row = nullptr;
  if (writes) {
    const int32_t page =
        rows.page_table[int64_t{rows.slot[r]} * rows.page_table_stride + position / kv.page_tokens];
    to_row = static_cast<T*>(kv.pages) + layer * kv.layer_stride() + page * kv.page_stride() +
             int64_t{position % kv.page_tokens} * d;
  }
  const float* cs = cos_sin + int64_t{position} * dims;
  for (auto task = static_cast<int32_t>(threadIdx.x); task < all * parts;
       task += static_cast<int32_t>(blockDim.x)) {
    const int32_t h = task / parts;
    Pair at = PairAt((task - h * parts) * N, dims, d, interleaved);
    if (h >= heads + kv.kv_heads) at.turned = false;
    T* head = row + h * d;
    Few<N, T> a, b;
    Turn(head, cs, dims, at, 1.0f, &a, &b, bias ? bias + h * d : nullptr);
    if (at.turned || bias) {
      *reinterpret_cast<Few<N, T>*>(head + at.a) = a;
      *reinterpret_cast<Few<N, T>*>(head + at.b) = b;
    }
    if (h < heads || !writes) continue;
    const int32_t is_value = h >= heads + kv.kv_heads, kv_head = h - heads - is_value * kv.kv_heads;
    T* to = to_row + is_value * kv.kv_stride() + kv_head * kv.head_stride();
    *reinterpret_cast<Few<N, T>*>(to + at.a) = a;
    *reinterpret_cast<Few<N, T>*>(to + at.b) = b;
  }
}

template <class T>
__global__ void Scale(T* qkv, const int32_t* position, const float* scale, int64_t rows,
                      int64_t width, int64_t stride) {
  for (int64_t k = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; k < rows * width;
       k += int64_t{gridDim.x} * blockDim.x) {
    const int64_t r = k / width;
    T* x = qkv + r * stride + (k - r * width);
    *x = FromFloat<T>(ToFloat(*x) * scale[position[r]]);
  }
}

}  // namespace

void RopeInPlace::Cuda(const Launch& launch) const {
  if (rows == 0 || dims == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    constexpr int kWide = Pack<T>::kSize;
    const bool wide =
        !interleaved && dims / 2 % kWide == 0 && head_dim % kWide == 0 && Aligned16(qkv);
    const auto kernel = wide ? InPlace<kWide, T> : InPlace<1, T>;
    const int64_t threads = rows * (heads + kv_heads) * (dims / 2) / (wide ? kWide : 1);
    kernel<<<Blocks(threads, 256), 256, 0, StreamOf(launch)>>>(
        static_cast<T*>(qkv), position, cos_sin, rows, heads, kv_heads, head_dim, dims, interleaved,
        inverse ? -1.0f : 1.0f);
  });
  CheckLaunch(kName);
}

void RopeBackward::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    constexpr int kWide = Pack<T>::kSize;
    const bool wide = !interleaved && dims / 2 % kWide == 0 && (head_dim - dims) / 2 % kWide == 0 &&
                      head_dim % kWide == 0 && Aligned16(dq) && Aligned16(dk) && Aligned16(dv) &&
                      Aligned16(dqkv);
    const auto kernel = wide ? Back<kWide, T> : Back<1, T>;
    const int64_t threads = rows * (heads + 2 * kv_heads) * (head_dim / 2) / (wide ? kWide : 1);
    kernel<<<Blocks(threads, 256), 256, 0, StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

void RopeAndWriteKv::Cuda(const Launch& launch) const {
  if (rows.rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    constexpr int kWide = Pack<T>::kSize;
    const bool wide = !interleaved && dims / 2 % kWide == 0 &&
                      (kv.head_dim - dims) / 2 % kWide == 0 && Aligned16(qkv) && Aligned16(bias) &&
                      Aligned16(kv.pages);
    const auto kernel = wide ? AndWriteKv<kWide, T> : AndWriteKv<1, T>;
    const int32_t tasks = (heads + KeysAndValues(kv)) * (kv.head_dim / 2) / (wide ? kWide : 1),
                  threads = tasks < 256 ? (tasks + 31) / 32 * 32 : 256;
    LaunchEarly(kernel, dim3(static_cast<unsigned>(rows.rows)),
                dim3(static_cast<unsigned>(threads)), StreamOf(launch), static_cast<T*>(qkv),
                static_cast<const T*>(bias), rows, cos_sin, heads, dims, interleaved, layer, kv);
  });
  CheckLaunch(kName);
  if (kv.format != KvFormat::kModel)
    BehindQueries(qkv, launch.dtype, heads, rows, layer, kv).Cuda(launch);
}

void ScaleQueries::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Scale<T><<<Blocks(rows * width, 256), 256, 0, StreamOf(launch)>>>(
        static_cast<T*>(qkv), position, scale, rows, width, stride);
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
