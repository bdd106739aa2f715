#include <algorithm>
#include <cstring>

#include "kernels/device/cpu_common.h"
#include "kernels/device/vector_math.h"
#include "kernels/latent/latent_heads.h"

namespace plumb::kernels {
namespace {

// Rows that go through a head's weights together. Those past the end repeat the last, so that a row
// is computed in one way whatever their number.
constexpr int32_t kRows = 4;
constexpr int32_t kWide = 4 * kLanes;  // outputs of a block

template <class T>
void CopyTo(const T* from, int32_t n, T* to) {
  std::memcpy(to, from, sizeof(T) * static_cast<size_t>(n));
}

template <class T>
void Clear(T* to, int32_t n) {
  std::memset(static_cast<void*>(to), 0, sizeof(T) * static_cast<size_t>(n));
}

template <class T>
void Join(const JoinLatentHeads& j) {
  const LatentShape& s = j.shape;
  const int32_t rest = s.head - s.nope - s.rope;
#pragma omp parallel for schedule(static) if (s.rows * s.merged_width() > kParallelElements)
  for (int64_t r = 0; r < s.rows; ++r) {
    const T* q = static_cast<const T*>(j.q) + r * s.query_width();
    const T* kv = static_cast<const T*>(j.kv) + r * s.kv_width();
    const T* shared = static_cast<const T*>(j.down) + r * s.cached() + s.rank;
    T* to_q = static_cast<T*>(j.qkv) + r * s.merged_width();
    T* to_k = to_q + int64_t{s.heads} * s.head;
    T* to_v = to_k + int64_t{s.heads} * s.head;
    for (int32_t h = 0; h < s.heads; ++h) {
      CopyTo(q + s.nope, s.rope, to_q);
      CopyTo(q, s.nope, to_q + s.rope);
      Clear(to_q + s.rope + s.nope, rest);
      CopyTo(shared, s.rope, to_k);
      CopyTo(kv, s.nope, to_k + s.rope);
      Clear(to_k + s.rope + s.nope, rest);
      CopyTo(kv + s.nope, s.value, to_v);
      Clear(to_v + s.value, s.head - s.value);
      q += s.nope + s.rope, kv += s.nope + s.value;
      to_q += s.head, to_k += s.head, to_v += s.head;
    }
  }
}

template <class T>
void Split(const SplitLatentHeads& j) {
  const LatentShape& s = j.shape;
#pragma omp parallel for schedule(static) if (s.rows * s.merged_width() > kParallelElements)
  for (int64_t r = 0; r < s.rows; ++r) {
    const T* dq = static_cast<const T*>(j.dqkv) + r * s.merged_width();
    const T* dk = dq + int64_t{s.heads} * s.head;
    const T* dv = dk + int64_t{s.heads} * s.head;
    T* to_q = static_cast<T*>(j.dq) + r * s.query_width();
    T* to_kv = static_cast<T*>(j.dkv) + r * s.kv_width();
    T* down = static_cast<T*>(j.ddown) + r * s.cached();
    Clear(down, s.rank);
    for (int32_t i = 0; i < s.rope; ++i) {
      float sum = 0;
      for (int32_t h = 0; h < s.heads; ++h) sum += ToFloat(dk[int64_t{h} * s.head + i]);
      down[s.rank + i] = FromFloat<T>(sum);
    }
    for (int32_t h = 0; h < s.heads; ++h) {
      CopyTo(dq, s.rope, to_q + s.nope);
      CopyTo(dq + s.rope, s.nope, to_q);
      CopyTo(dk + s.rope, s.nope, to_kv);
      CopyTo(dv, s.value, to_kv + s.nope);
      to_q += s.nope + s.rope, to_kv += s.nope + s.value;
      dq += s.head, dk += s.head, dv += s.head;
    }
  }
}

// out[r][j] = sum_i x[r][i] w[i][j] for n outputs, a multiple of the lanes but for the last.
template <class T>
PLUMB_INLINE void TransposedBlock(const float* x, int32_t inner, const T* w, int32_t rank,
                                  int32_t n, float* out) {
  FloatLanes sum[kRows][kWide / kLanes] = {};
  const int32_t vectors = (n + kLanes - 1) / kLanes;
  for (int32_t i = 0; i < inner; ++i) {
    const T* row = w + int64_t{i} * rank;
    FloatLanes v[kWide / kLanes] = {};
    for (int32_t c = 0; c < vectors; ++c) {
      const int32_t left = n - c * kLanes;
      v[c] = left >= kLanes ? Load(row + c * kLanes) : LoadPart(row + c * kLanes, left);
    }
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < kWide / kLanes; ++c) sum[r][c] += v[c] * x[r * inner + i];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kWide / kLanes; ++c) Store(out + r * kWide + c * kLanes, sum[r][c]);
  }
}

template <class T>
void Absorb(const AbsorbQueries& a) {
  const LatentShape& s = a.shape;
  const int32_t cached = s.cached();
  const int64_t stride = int64_t{s.heads + 1} * cached, blocks = (s.rows + kRows - 1) / kRows;
  const auto* q = static_cast<const T*>(a.q);
  auto* out = static_cast<T*>(a.out);
#pragma omp parallel if (s.rows * s.heads * s.nope * s.rank > 65536)
  {
    thread_local AlignedFloats work;
    float* x = work.Grow(int64_t{kRows} * s.nope + int64_t{kRows} * kWide + kLanes);
    float* sums = x + PadToLanes(kRows * s.nope);
#pragma omp for schedule(static)
    for (int64_t task = 0; task < blocks * s.heads; ++task) {
      const auto h = static_cast<int32_t>(task / blocks);
      const int64_t first = task % blocks * kRows, n = std::min<int64_t>(kRows, s.rows - first);
      const T* w = static_cast<const T*>(a.w) + int64_t{h} * (s.nope + s.value) * s.rank;
      const auto query = [&](int64_t r) {
        return q + (first + std::min(r, n - 1)) * s.query_width() + int64_t{h} * (s.nope + s.rope);
      };
      for (int32_t r = 0; r < kRows; ++r) {
        for (int32_t i = 0; i < s.nope; ++i) x[r * s.nope + i] = ToFloat(query(r)[i]);
      }
      for (int32_t r = 0; r < n; ++r)
        CopyTo(query(r) + s.nope, s.rope, out + (first + r) * stride + int64_t{h} * cached);
      for (int32_t j = 0; j < s.rank; j += kWide) {
        const int32_t width = std::min(kWide, s.rank - j);
        TransposedBlock(x, s.nope, w + j, s.rank, width, sums);
        for (int32_t r = 0; r < n; ++r) {
          T* to = out + (first + r) * stride + int64_t{h} * cached + s.rope + j;
          for (int32_t i = 0; i < width; ++i) to[i] = FromFloat<T>(sums[r * kWide + i]);
        }
      }
    }
#pragma omp for schedule(static)
    for (int64_t r = 0; r < s.rows; ++r) {
      T* key = out + r * stride + int64_t{s.heads} * cached;
      CopyTo(static_cast<const T*>(a.down) + r * cached + s.rank, s.rope, key);
      CopyTo(static_cast<const T*>(a.latent) + r * s.rank, s.rank, key + s.rope);
    }
  }
}

template <class T>
void Expand(const ExpandValues& e) {
  const LatentShape& s = e.shape;
  const int32_t cached = s.cached(), width = PadToLanes(s.rank);
  const int64_t stride = int64_t{s.heads} * cached, blocks = (s.rows + kRows - 1) / kRows;
  const auto* mixed = static_cast<const T*>(e.mixed);
  auto* out = static_cast<T*>(e.values);
#pragma omp parallel if (s.rows * s.heads * s.value * s.rank > 65536)
  {
    thread_local AlignedFloats work;
    float* x = work.Grow(int64_t{kRows} * width);
#pragma omp for schedule(static)
    for (int64_t task = 0; task < blocks * s.heads; ++task) {
      const auto h = static_cast<int32_t>(task / blocks);
      const int64_t first = task % blocks * kRows, n = std::min<int64_t>(kRows, s.rows - first);
      const T* w = static_cast<const T*>(e.w) + (int64_t{h} * (s.nope + s.value) + s.nope) * s.rank;
      for (int32_t r = 0; r < kRows; ++r) {
        const T* from =
            mixed + (first + std::min<int64_t>(r, n - 1)) * stride + int64_t{h} * cached + s.rope;
        for (int32_t i = 0; i < width; ++i) x[r * width + i] = i < s.rank ? ToFloat(from[i]) : 0.0f;
      }
      for (int32_t v = 0; v < s.value; ++v) {
        const T* row = w + int64_t{v} * s.rank;
        FloatLanes sum[kRows] = {};
        for (int32_t i = 0; i < s.rank; i += kLanes) {
          const FloatLanes at =
              s.rank - i >= kLanes ? Load(row + i) : LoadPart(row + i, s.rank - i);
          for (int32_t r = 0; r < kRows; ++r) sum[r] += at * Load(x + r * width + i);
        }
        for (int32_t r = 0; r < n; ++r) {
          out[((first + r) * s.heads + h) * s.value + v] = FromFloat<T>(Sum(sum[r]));
        }
      }
    }
  }
}

// Heads of `from_size` elements to heads of `to_size`, with zeros behind.
template <class T>
void Resize(const LatentShape& s, const void* from, int32_t from_size, int32_t to_size, void* to) {
  const int32_t n = std::min(from_size, to_size);
#pragma omp parallel for schedule(static) if (s.rows * s.heads * to_size > kParallelElements)
  for (int64_t h = 0; h < s.rows * s.heads; ++h) {
    T* out = static_cast<T*>(to) + h * to_size;
    CopyTo(static_cast<const T*>(from) + h * from_size, n, out);
    Clear(out + n, to_size - n);
  }
}

}  // namespace

void JoinLatentHeads::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Join<T>(*this); });
}

void SplitLatentHeads::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Split<T>(*this); });
}

void TakeValues::Cpu(const Launch& launch) const {
  ForDType(launch.dtype,
           [&]<class T>(T) { Resize<T>(shape, mixed, shape.head, shape.value, values); });
}

void PutValues::Cpu(const Launch& launch) const {
  ForDType(launch.dtype,
           [&]<class T>(T) { Resize<T>(shape, values, shape.value, shape.head, mixed); });
}

void AbsorbQueries::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Absorb<T>(*this); });
}

void ExpandValues::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Expand<T>(*this); });
}

}  // namespace plumb::kernels
