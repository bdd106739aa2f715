#include "kernels/latent/latent_heads.h"
#include "kernels/products/block_products.h"

namespace plumb::kernels {
namespace {

// One block a row.
template <class T>
__global__ void Join(JoinLatentHeads j) {
  const LatentShape& s = j.shape;
  const int64_t r = blockIdx.x;
  const T* shared = static_cast<const T*>(j.down) + r * s.cached() + s.rank;
  T* to = static_cast<T*>(j.qkv) + r * s.merged_width();
  const T none = FromFloat<T>(0.0f);
  for (int32_t at = static_cast<int32_t>(threadIdx.x); at < s.heads * s.head;
       at += static_cast<int32_t>(blockDim.x)) {
    const int32_t h = at / s.head, i = at - h * s.head;
    const T* q = static_cast<const T*>(j.q) + r * s.query_width() + int64_t{h} * (s.nope + s.rope);
    const T* kv = static_cast<const T*>(j.kv) + r * s.kv_width() + int64_t{h} * (s.nope + s.value);
    const bool turned = i < s.rope, plain = !turned && i < s.rope + s.nope;
    to[at] = turned ? q[s.nope + i] : (plain ? q[i - s.rope] : none);
    to[s.heads * s.head + at] = turned ? shared[i] : (plain ? kv[i - s.rope] : none);
    to[2 * s.heads * s.head + at] = i < s.value ? kv[s.nope + i] : none;
  }
}

template <class T>
__global__ void Split(SplitLatentHeads j) {
  const LatentShape& s = j.shape;
  const int64_t r = blockIdx.x;
  const T* dq = static_cast<const T*>(j.dqkv) + r * s.merged_width();
  const T* dk = dq + int64_t{s.heads} * s.head;
  const T* dv = dk + int64_t{s.heads} * s.head;
  T* down = static_cast<T*>(j.ddown) + r * s.cached();
  const auto thread = static_cast<int32_t>(threadIdx.x), threads = static_cast<int32_t>(blockDim.x);
  for (int32_t i = thread; i < s.rank; i += threads) down[i] = FromFloat<T>(0.0f);
  for (int32_t i = thread; i < s.rope; i += threads) {
    float sum = 0;
    for (int32_t h = 0; h < s.heads; ++h) sum += ToFloat(dk[h * s.head + i]);
    down[s.rank + i] = FromFloat<T>(sum);
  }
  for (int32_t at = thread; at < s.heads * s.head; at += threads) {
    const int32_t h = at / s.head, i = at - h * s.head;
    T* to_q = static_cast<T*>(j.dq) + r * s.query_width() + int64_t{h} * (s.nope + s.rope);
    T* to_kv = static_cast<T*>(j.dkv) + r * s.kv_width() + int64_t{h} * (s.nope + s.value);
    if (i < s.rope) {
      to_q[s.nope + i] = dq[at];
    } else if (i < s.rope + s.nope) {
      to_q[i - s.rope] = dq[at];
      to_kv[i - s.rope] = dk[at];
    }
    if (i < s.value) to_kv[s.nope + i] = dv[at];
  }
}

// Heads of `from_size` elements to heads of `to_size`, with zeros behind.
template <class T>
__global__ void Resize(const T* from, int64_t heads, int32_t from_size, int32_t to_size, T* to) {
  for (int64_t at = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < heads * to_size;
       at += int64_t{gridDim.x} * blockDim.x) {
    const int64_t h = at / to_size;
    const auto i = static_cast<int32_t>(at - h * to_size);
    to[at] = i < from_size ? from[h * from_size + i] : FromFloat<T>(0.0f);
  }
}

constexpr int kTile = 64;  // rows and columns of a block

// blockIdx.x: columns, y: rows, z: the head; behind the last one the keys.
template <class T>
__global__ void __launch_bounds__(kBlockThreads) Absorb(AbsorbQueries a) {
  const LatentShape& s = a.shape;
  const int32_t h = static_cast<int32_t>(blockIdx.z), cached = s.cached(),
                column = static_cast<int32_t>(blockIdx.x) * kTile;
  const int64_t first = int64_t{blockIdx.y} * kTile, stride = int64_t{s.heads + 1} * cached;
  const int rows = static_cast<int>(min(int64_t{kTile}, s.rows - first)),
            columns = min(kTile, s.rank - column);
  T* out = static_cast<T*>(a.out) + first * stride + int64_t{h} * cached;
  // What has positions goes with the first columns.
  const auto copy = [&](const T* from, int64_t from_stride, int32_t n, int32_t to) {
    for (int32_t at = static_cast<int32_t>(threadIdx.x); at < rows * n; at += kBlockThreads) {
      const int32_t r = at / n, i = at - r * n;
      out[r * stride + to + i] = from[r * from_stride + i];
    }
  };
  if (h == s.heads) {
    if (column == 0)
      copy(static_cast<const T*>(a.down) + first * cached + s.rank, cached, s.rope, 0);
    copy(static_cast<const T*>(a.latent) + first * s.rank + column, s.rank, columns,
         s.rope + column);
    return;
  }
  const T* q =
      static_cast<const T*>(a.q) + first * s.query_width() + int64_t{h} * (s.nope + s.rope);
  if (column == 0) copy(q + s.nope, s.query_width(), s.rope, 0);
  const T* w = static_cast<const T*>(a.w) + int64_t{h} * (s.nope + s.value) * s.rank + column;
  BlockProduct<true, false>(
      rows, columns, s.nope, [&](int i, int t) { return ToFloat(q[i * s.query_width() + t]); },
      [&](int t, int j) { return ToFloat(w[int64_t{t} * s.rank + j]); },
      [&](int i, int j, float sum) { out[i * stride + s.rope + column + j] = FromFloat<T>(sum); });
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads) Expand(ExpandValues e) {
  const LatentShape& s = e.shape;
  const int32_t h = static_cast<int32_t>(blockIdx.z),
                column = static_cast<int32_t>(blockIdx.x) * kTile;
  const int64_t first = int64_t{blockIdx.y} * kTile, stride = int64_t{s.heads} * s.cached();
  const int rows = static_cast<int>(min(int64_t{kTile}, s.rows - first)),
            columns = min(kTile, s.value - column);
  const T* mixed =
      static_cast<const T*>(e.mixed) + first * stride + int64_t{h} * s.cached() + s.rope;
  const T* w =
      static_cast<const T*>(e.w) + (int64_t{h} * (s.nope + s.value) + s.nope + column) * s.rank;
  T* out = static_cast<T*>(e.values) + (first * s.heads + h) * s.value + column;
  BlockProduct<true, true>(
      rows, columns, s.rank, [&](int i, int t) { return ToFloat(mixed[i * stride + t]); },
      [&](int t, int j) { return ToFloat(w[int64_t{j} * s.rank + t]); },
      [&](int i, int j, float sum) {
        out[int64_t{i} * s.heads * s.value + j] = FromFloat<T>(sum);
      });
}

template <class T>
void LaunchResize(const Launch& launch, const LatentShape& s, const void* from, int32_t from_size,
                  int32_t to_size, void* to) {
  const int64_t heads = s.rows * s.heads;
  Resize<<<Blocks(heads * to_size, 256), 256, 0, StreamOf(launch)>>>(
      static_cast<const T*>(from), heads, from_size, to_size, static_cast<T*>(to));
}

dim3 Tiles(int64_t columns, int64_t rows, int32_t heads) {
  return dim3(static_cast<unsigned>((columns + kTile - 1) / kTile),
              static_cast<unsigned>((rows + kTile - 1) / kTile), static_cast<unsigned>(heads));
}

}  // namespace

void JoinLatentHeads::Cuda(const Launch& launch) const {
  if (shape.rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Join<T><<<static_cast<unsigned>(shape.rows), 256, 0, StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

void SplitLatentHeads::Cuda(const Launch& launch) const {
  if (shape.rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Split<T><<<static_cast<unsigned>(shape.rows), 256, 0, StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

void TakeValues::Cuda(const Launch& launch) const {
  if (shape.rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    LaunchResize<T>(launch, shape, mixed, shape.head, shape.value, values);
  });
  CheckLaunch(kName);
}

void PutValues::Cuda(const Launch& launch) const {
  if (shape.rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    LaunchResize<T>(launch, shape, values, shape.value, shape.head, mixed);
  });
  CheckLaunch(kName);
}

void AbsorbQueries::Cuda(const Launch& launch) const {
  if (shape.rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Absorb<T>
        <<<Tiles(shape.rank, shape.rows, shape.heads + 1), kBlockThreads, 0, StreamOf(launch)>>>(
            *this);
  });
  CheckLaunch(kName);
}

void ExpandValues::Cuda(const Launch& launch) const {
  if (shape.rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Expand<T><<<Tiles(shape.value, shape.rows, shape.heads), kBlockThreads, 0, StreamOf(launch)>>>(
        *this);
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
