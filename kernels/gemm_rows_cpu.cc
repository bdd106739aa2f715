#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "kernels/device/cpu_common.h"
#include "kernels/gemm_rows.h"

namespace plumb::kernels {
namespace {

// A register tile is kRows x kCols; weights are packed as [k][kCols] panels so that a step of k is
// two vector loads and one broadcast a row.
// As wide as the processor's registers, and as many rows as fit in them: wider vectors are kept in
// memory (docs/benchmarks.md).
#ifdef __AVX512F__
constexpr int64_t kLanes = 16, kRows = 8;  // 16 of 32 registers are sums
#else
constexpr int64_t kLanes = 8, kRows = 6;  // 12 of 16
#endif
constexpr int64_t kCols = 2 * kLanes;
typedef float Vector __attribute__((vector_size(kLanes * sizeof(float)), may_alias));

// A panel of `cols` <= kCols weight rows, transposed; missing columns are 0.
void Pack(const float* w, int64_t cols, int64_t k, float* panel) {
  if (cols < kCols) std::memset(panel, 0, sizeof(float) * static_cast<size_t>(k * kCols));
  for (int64_t c0 = 0; c0 < cols; c0 += kLanes) {
    const int64_t c1 = std::min(cols, c0 + kLanes);
    for (int64_t p0 = 0; p0 < k; p0 += 64) {
      const int64_t p1 = std::min(k, p0 + 64);
      for (int64_t c = c0; c < c1; ++c) {
        const float* from = w + c * k;
        for (int64_t p = p0; p < p1; ++p) panel[p * kCols + c] = from[p];
      }
    }
  }
}

template <int R>
inline void Tile(const float* x, int64_t k, const float* panel, int64_t cols, bool accumulate,
                 float* y, int64_t n) {
  Vector acc[R][2] = {};
  for (int64_t p = 0; p < k; ++p) {
    const Vector a = *reinterpret_cast<const Vector*>(panel + p * kCols);
    const Vector b = *reinterpret_cast<const Vector*>(panel + p * kCols + kLanes);
    for (int r = 0; r < R; ++r) {
      const float s = x[r * k + p];
      acc[r][0] += a * s;
      acc[r][1] += b * s;
    }
  }
  for (int r = 0; r < R; ++r) {
    float* out = y + r * n;
    if (cols == kCols) {
      Vector old[2] = {};  // rows of y start anywhere: through memcpy
      if (accumulate) std::memcpy(old, out, sizeof old);
      for (int h = 0; h < 2; ++h) old[h] = accumulate ? old[h] + acc[r][h] : acc[r][h];
      std::memcpy(out, old, sizeof old);
    } else {
      for (int64_t c = 0; c < cols; ++c) {
        const float value = acc[r][c / kLanes][c % kLanes];
        out[c] = accumulate ? out[c] + value : value;
      }
    }
  }
}

void Panel(const float* x, int64_t rows, int64_t k, const float* panel, int64_t cols,
           bool accumulate, float* y, int64_t n) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows)
    Tile<kRows>(x + r * k, k, panel, cols, accumulate, y + r * n, n);
  for (; r + 4 <= rows; r += 4) Tile<4>(x + r * k, k, panel, cols, accumulate, y + r * n, n);
  for (; r < rows; ++r) Tile<1>(x + r * k, k, panel, cols, accumulate, y + r * n, n);
}

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};

float* PanelBuffer(int64_t elements) {
  thread_local std::unique_ptr<float, FreeDeleter> buffer;
  thread_local int64_t size = 0;
  if (size < elements) {
    const size_t bytes = (static_cast<size_t>(elements) * sizeof(float) + 63) / 64 * 64;
    buffer.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
    PLUMB_CHECK(buffer != nullptr, "out of memory");
    size = elements;
  }
  return buffer.get();
}

}  // namespace

void GemmRows::Cpu(const Launch&) const {
  const int64_t panels = (n + kCols - 1) / kCols;
  // Few panels: rows are shared out too, each share packs the panel for itself.
  const int64_t threads = omp_get_max_threads();
  const int64_t shares = panels >= 2 * threads ? 1 : std::clamp<int64_t>(m / 32, 1, threads);
#pragma omp parallel for schedule(static) if (m * n * k > 65536)
  for (int64_t task = 0; task < panels * shares; ++task) {
    const int64_t panel = task / shares, share = task % shares;
    const int64_t begin = m * share / shares, end = m * (share + 1) / shares;
    const int64_t cols = std::min(kCols, n - panel * kCols);
    float* packed = PanelBuffer(k * kCols);
    Pack(w + panel * kCols * k, cols, k, packed);
    Panel(x + begin * k, end - begin, k, packed, cols, accumulate, y + begin * n + panel * kCols,
          n);
  }
}

}  // namespace plumb::kernels
