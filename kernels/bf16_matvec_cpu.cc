#include <algorithm>

#include "kernels/bf16_matvec.h"
#include "kernels/device/cpu_common.h"
#include "kernels/device/vector_math.h"
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace plumb::kernels {
namespace {

// Sixteen outputs are summed side by side: Rows rows of x times 16 / Rows rows of w. Every output
// owns one accumulator that walks k upwards, and all are folded by the same tree, so the shape of
// the tile leaves no trace in the result.
constexpr int32_t kTile = 16;
// Elements of k a step takes: pairs of bfloat16 in one register where the processor multiplies
// them.
#ifdef __AVX512BF16__
constexpr int64_t kStep = 32;
using Chunk = __m512bh;
PLUMB_INLINE Chunk LoadChunk(const BFloat16* x) {
  return reinterpret_cast<Chunk>(_mm512_loadu_si512(x));
}
PLUMB_INLINE FloatLanes MultiplyAdd(FloatLanes sum, Chunk a, Chunk b) {
  return reinterpret_cast<FloatLanes>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), a, b));
}
#else
constexpr int64_t kStep = 16;
using Chunk = FloatLanes;
PLUMB_INLINE Chunk LoadChunk(const BFloat16* x) { return Load(x); }
PLUMB_INLINE FloatLanes MultiplyAdd(FloatLanes sum, Chunk a, Chunk b) { return sum + a * b; }
#endif

// The last, partial step of a row, filled up with zeros.
struct Tail {
  alignas(64) BFloat16 x[kStep] = {};
  Tail(const BFloat16* from, int64_t n) { std::copy(from, from + n, x); }
};

template <int Rows>
PLUMB_INLINE FloatLanes Tiled(const BFloat16* const* x, const BFloat16* const* w, int64_t k) {
  constexpr int kColumns = kTile / Rows;
  // Of one row of x, w is read from front to back, which the processor foresees best: one output at
  // a time and no asking ahead (docs/benchmarks.md). Of more, rows of w are too short for it to
  // foresee where the next tile begins: ask for it now.
  constexpr bool kStreamed = Rows == 1;
  const int64_t ahead = std::max(kColumns, 8) * k;
  // All outputs at once, or as many as have room in registers.
  constexpr int kRowsAtOnce = std::min(Rows, kSums >= kTile ? kTile : 4),
                kColumnsAtOnce = kStreamed        ? 1
                                 : kSums >= kTile ? kColumns
                                                  : std::max(1, 4 / kRowsAtOnce);
  FloatLanes sum[kTile];
  const int64_t whole = k / kStep * kStep;
  for (int c0 = 0; c0 < kColumns; c0 += kColumnsAtOnce) {
    for (int r0 = 0; r0 < Rows; r0 += kRowsAtOnce) {
      FloatLanes part[kRowsAtOnce][kColumnsAtOnce] = {};
      for (int64_t p = 0; p < whole; p += kStep) {
        Chunk a[kRowsAtOnce];
#pragma GCC unroll 8
        for (int r = 0; r < kRowsAtOnce; ++r) a[r] = LoadChunk(x[r0 + r] + p);
#pragma GCC unroll 16
        for (int c = 0; c < kColumnsAtOnce; ++c) {
          const BFloat16* from = w[c0 + c] + p;
          const Chunk b = LoadChunk(from);
          if (!kStreamed)
            __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(from) +
                                                             ahead * sizeof(BFloat16)));
#pragma GCC unroll 8
          for (int r = 0; r < kRowsAtOnce; ++r) part[r][c] = MultiplyAdd(part[r][c], a[r], b);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRowsAtOnce; ++r) {
#pragma GCC unroll 16
        for (int c = 0; c < kColumnsAtOnce; ++c) sum[(r0 + r) * kColumns + c0 + c] = part[r][c];
      }
    }
  }
  if (const int64_t p = whole; p < k) {
    for (int c = 0; c < kColumns; ++c) {
      const Chunk b = LoadChunk(Tail(w[c] + p, k - p).x);
      for (int r = 0; r < Rows; ++r) {
        sum[r * kColumns + c] =
            MultiplyAdd(sum[r * kColumns + c], LoadChunk(Tail(x[r] + p, k - p).x), b);
      }
    }
  }
  return SumRows(sum);
}

// Columns begin .. end of at most Rows rows. Missing rows and columns repeat the last and are not
// stored.
template <int Rows, class Y>
void Columns(const BFloat16* x, const BFloat16* w, int64_t m, int64_t n, int64_t k, bool accumulate,
             Y* y, int64_t begin, int64_t end) {
  constexpr int kColumns = kTile / Rows;
  const BFloat16* rows[Rows];
  for (int64_t r = 0; r < Rows; ++r) rows[r] = x + std::min(r, m - 1) * k;
  for (int64_t c = begin; c < end; c += kColumns) {
    const BFloat16* columns[kColumns];
    for (int64_t i = 0; i < kColumns; ++i) columns[i] = w + std::min(c + i, end - 1) * k;
    const FloatLanes sums = Tiled<Rows>(rows, columns, k);
    const int64_t width = std::min<int64_t>(kColumns, end - c);
    for (int64_t r = 0; r < std::min<int64_t>(m, Rows); ++r) {
      for (int64_t i = 0; i < width; ++i) {
        Y& out = y[r * n + c + i];
        const float value = sums[r * kColumns + i];
        out = FromFloat<Y>(accumulate ? ToFloat(out) + value : value);
      }
    }
  }
}

template <class Y>
void Product(const BFloat16* x, const BFloat16* w, int64_t m, int64_t n, int64_t k, bool accumulate,
             Y* y) {
  // Shares of whole tiles, so that neighbouring threads meet at tile borders only.
  constexpr int64_t kShare = 64;
  const int64_t shares = (n + kShare - 1) / kShare;
#pragma omp parallel for schedule(static) if (n * k > 65536)
  for (int64_t s = 0; s < shares; ++s) {
    const int64_t begin = s * kShare, end = std::min(n, begin + kShare);
    for (int64_t r = 0; r < m; r += 8) {
      const int64_t left = m - r;
      const BFloat16* xr = x + r * k;
      Y* yr = y + r * n;
      if (left == 1) Columns<1>(xr, w, left, n, k, accumulate, yr, begin, end);
      else if (left == 2) Columns<2>(xr, w, left, n, k, accumulate, yr, begin, end);
      else if (left <= 4) Columns<4>(xr, w, left, n, k, accumulate, yr, begin, end);
      else Columns<8>(xr, w, left, n, k, accumulate, yr, begin, end);
    }
  }
}

}  // namespace

void Bf16Matvec::Cpu(const Launch&) const {
  ForDType(y_dtype, [&]<class Y>(Y) { Product(x, w, m, n, k, accumulate, static_cast<Y*>(y)); });
}

}  // namespace plumb::kernels
