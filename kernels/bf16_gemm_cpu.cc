#include <omp.h>

#include <algorithm>
#include <cstring>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels/bf16_gemm.h"
#include "kernels/device/cpu_common.h"
#include "kernels/device/vector_math.h"

namespace plumb::kernels {
namespace {

// A register tile is kRows x kCols. One operand lies as fp32 rows [row][kStride] that are
// broadcast, the other as panels [term][kCols]. The stride is odd in cache lines, so that the rows
// of a tile meet in no cache set.
constexpr int64_t kRows = kSums >= 28 ? 14 : 12;
constexpr int64_t kCols = 2 * kLanes;
constexpr int64_t kFewRowsOfTile = kSums >= 28 ? 4 : 3;
constexpr int64_t kStride = kBf16GemmDepth + kLanes;
// panels that stay in a core's cache while rows pass by
constexpr int64_t kGroupFloats = int64_t{1} << 18;
constexpr int64_t kShare = 8;  // row tiles of a task
constexpr int64_t kBlockRows = 72 * kRows, kBlockCols = 64 * kCols;
// Up to so many rows, or so many floats of them, they stay in a core's cache while the second
// operand is widened.
constexpr int64_t kFewRows = 2 * kCols, kFewFloats = int64_t{1} << 18;

// 16 x 16 elements at x[r * stride + c], widened and transposed; beyond rows or cols: 0.
PLUMB_INLINE void LoadTransposed(const BFloat16* x, int64_t stride, int64_t rows, int64_t cols,
                                 FloatLanes (&block)[kLanes]) {
  for (int32_t r = 0; r < kLanes; ++r) {
    if (r >= rows) block[r] = FloatLanes{};
    else
      block[r] = cols >= kLanes ? Load(x + r * stride)
                                : LoadPart(x + r * stride, static_cast<int32_t>(cols));
  }
  Transpose(block);
}

// `rows` rows of `terms` terms to [rows][kStride] floats.
void WidenRows(const BFloat16* x, int64_t row_stride, int64_t rows, int64_t terms, float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    const BFloat16* from = x + r * row_stride;
    float* to = out + r * kStride;
    int64_t p = 0;
    for (; p + kLanes <= terms; p += kLanes) Store(to + p, Load(from + p));
    for (; p < terms; ++p) to[p] = ToFloat(from[p]);
  }
}

// The same of up to kRows rows of an operand whose terms lie `term_stride` apart and which has
// `readable` rows from x on.
void TransposeRows(const BFloat16* x, int64_t term_stride, int64_t rows, int64_t readable,
                   int64_t terms, float* out) {
  for (int64_t p = 0; p < terms; p += kLanes) {  // kStride has room for the last block
    FloatLanes block[kLanes];
    LoadTransposed(x + p * term_stride, term_stride, std::min<int64_t>(kLanes, terms - p), readable,
                   block);
    for (int64_t i = 0; i < rows; ++i) Store(out + i * kStride + p, block[i]);
  }
}

// `cols` <= kCols columns of `terms` terms to [terms padded to 16][kCols] floats; missing columns
// are 0.
void PackPanel(const BFloat16* x, Layout layout, int64_t stride, int64_t cols, int64_t terms,
               float* panel) {
  for (int64_t c = 0; c < kCols; c += kLanes) {
    const int64_t some = std::clamp<int64_t>(cols - c, 0, kLanes);
    if (layout == Layout::kTermsInner) {
      for (int64_t p = 0; p < terms; p += kLanes) {
        FloatLanes block[kLanes];
        LoadTransposed(x + c * stride + p, stride, some, std::min<int64_t>(kLanes, terms - p),
                       block);
        for (int64_t i = 0; i < kLanes; ++i) Store(panel + (p + i) * kCols + c, block[i]);
      }
    } else {
      for (int64_t p = 0; p < terms; ++p) {
        const BFloat16* from = x + p * stride + c;
        Store(panel + p * kCols + c,
              some == kLanes ? Load(from) : LoadPart(from, static_cast<int32_t>(some)));
      }
    }
  }
}

template <int R, int Vectors, bool kAhead>
PLUMB_INLINE void TileOf(const float* rows, const float* panel, int64_t terms,
                         const BFloat16* ahead, FloatLanes (*out)[2]) {
  // All of it at once, or as much as has room in registers.
  constexpr int kVectorsAtOnce = R * Vectors <= kSums ? Vectors : 1;
  constexpr int kRowsAtOnce = R * kVectorsAtOnce <= kSums ? R : kSums;
  static_assert(R % kRowsAtOnce == 0);
  for (int v0 = 0; v0 < Vectors; v0 += kVectorsAtOnce) {
    for (int r0 = 0; r0 < R; r0 += kRowsAtOnce) {
      FloatLanes sum[kRowsAtOnce][kVectorsAtOnce] = {};
      for (int64_t p = 0; p < terms; ++p) {
        FloatLanes b[kVectorsAtOnce];
        for (int v = 0; v < kVectorsAtOnce; ++v) b[v] = Load(panel + p * kCols + (v0 + v) * kLanes);
        if (kAhead && v0 == 0 && r0 == 0) {
          __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(ahead) +
                                                           p * kRows * sizeof(BFloat16)));
        }
#pragma GCC unroll 14
        for (int r = 0; r < kRowsAtOnce; ++r) {
          const float s = rows[(r0 + r) * kStride + p];
          for (int v = 0; v < kVectorsAtOnce; ++v) sum[r][v] += b[v] * s;
        }
      }
#pragma GCC unroll 14
      for (int r = 0; r < kRowsAtOnce; ++r) {
        for (int v = 0; v < kVectorsAtOnce; ++v) out[r0 + r][v0 + v] = sum[r][v];
      }
    }
  }
}

// Up to kRows rows against one panel of `cols` columns. What lies beyond both is computed and not
// stored. `ahead`, unless nullptr: where kRows * terms elements lie that are wanted next; they are
// fetched meanwhile.
void Tile(const float* rows, int64_t count, const float* panel, int64_t cols, int64_t terms,
          const BFloat16* ahead, FloatLanes (*out)[2]) {
  if (ahead != nullptr) {
    if (cols <= kLanes) TileOf<kRows, 1, true>(rows, panel, terms, ahead, out);
    else TileOf<kRows, 2, true>(rows, panel, terms, ahead, out);
  } else if (cols <= kLanes) {
    TileOf<kRows, 1, false>(rows, panel, terms, ahead, out);
  } else if (count > kFewRowsOfTile) {
    TileOf<kRows, 2, false>(rows, panel, terms, ahead, out);
  } else {
    TileOf<kFewRowsOfTile, 2, false>(rows, panel, terms, ahead, out);
  }
}

PLUMB_INLINE void StoreLanes(FloatLanes value, int64_t count, bool accumulate, float* y) {
  if (count == kLanes) {
    Store(y, accumulate ? Load(y) + value : value);
    return;
  }
  for (int64_t i = 0; i < count; ++i) y[i] = accumulate ? y[i] + value[i] : value[i];
}

PLUMB_INLINE void StoreLanes(FloatLanes value, int64_t count, bool accumulate, BFloat16* y) {
  if (accumulate) value += count == kLanes ? Load(y) : LoadPart(y, static_cast<int32_t>(count));
  float lanes[kLanes];
  Store(lanes, value);
  if (count == kLanes) {
#pragma omp simd
    for (int32_t i = 0; i < kLanes; ++i) y[i] = FromFloat<BFloat16>(lanes[i]);
    return;
  }
  for (int64_t i = 0; i < count; ++i) y[i] = FromFloat<BFloat16>(lanes[i]);
}

struct Operands {
  const BFloat16 *a, *b;
  Layout a_layout, b_layout;
  int64_t m, n, k;
  const BFloat16* ARow(int64_t i, int64_t p) const {
    return a_layout == Layout::kTermsInner ? a + i * k + p : a + p * m + i;
  }
  const BFloat16* BColumn(int64_t j, int64_t p) const {
    return b_layout == Layout::kTermsInner ? b + j * k + p : b + p * n + j;
  }
  int64_t BStride() const { return b_layout == Layout::kTermsInner ? k : n; }
};

// Few rows: they become the panels, and the threads share out the columns of the result, whose
// operand is widened fourteen columns at a time; the result's tiles are stored transposed.
template <class Y>
void FewRows(const Operands& o, bool accumulate, Y* y) {
  const int64_t panels = (o.m + kCols - 1) / kCols, padded = PadToLanes(static_cast<int32_t>(o.k));
  static thread_local AlignedFloats panel_memory;
  float* packed = panel_memory.Grow(panels * padded * kCols);
  for (int64_t j = 0; j < panels; ++j) {
    PackPanel(o.ARow(j * kCols, 0), o.a_layout, o.a_layout == Layout::kTermsInner ? o.k : o.m,
              std::min(kCols, o.m - j * kCols), o.k, packed + j * padded * kCols);
  }
  // Four tiles a task: lines of the result are then written whole, and its rows, which may share a
  // cache set, seldom.
  constexpr int64_t kTiles = 4, kTaskCols = kTiles * kRows;
  const int64_t tasks = (o.n + kTaskCols - 1) / kTaskCols;
#pragma omp parallel for schedule(static) if (o.m * o.n * o.k > 65536)
  for (int64_t task = 0; task < tasks; ++task) {
    static thread_local AlignedFloats row_memory, result_memory;
    float* rows = row_memory.Grow(kRows * kStride);
    float* result = result_memory.Grow(panels * kCols * kTaskCols + kLanes);
    const int64_t j_begin = task * kTaskCols, j_end = std::min(o.n, j_begin + kTaskCols);
    for (int64_t j0 = j_begin; j0 < j_end; j0 += kRows) {
      const int64_t count = std::min(kRows, j_end - j0);
      for (int64_t p = 0; p < o.k; p += kBf16GemmDepth) {
        const int64_t terms = std::min(kBf16GemmDepth, o.k - p);
        if (o.b_layout == Layout::kTermsInner) WidenRows(o.BColumn(j0, p), o.k, count, terms, rows);
        else TransposeRows(o.BColumn(j0, p), o.n, count, o.n - j0, terms, rows);
        for (int64_t i = 0; i < o.m; i += kCols) {
          FloatLanes sum[kRows][2] = {};
          Tile(rows, count, packed + (i * padded) + p * kCols, o.m - i, terms,
               i == 0 ? o.BColumn(j0 + kRows, p) : nullptr, sum);
          for (int64_t h = 0; h < 2; ++h) {
            FloatLanes block[kLanes] = {};
            for (int64_t r = 0; r < kRows; ++r) block[r] = sum[r][h];
            Transpose(block);
            float* to = result + (i + h * kLanes) * kTaskCols + j0 - j_begin;
            for (int64_t l = 0; l < kLanes; ++l) {
              FloatLanes value = block[l];
              if (p > 0) value = Load(to + l * kTaskCols) + value;
              std::memcpy(to + l * kTaskCols, &value, kRows * sizeof(float));
            }
          }
        }
      }
    }
    for (int64_t i = 0; i < o.m; ++i) {
      for (int64_t j = j_begin; j < j_end; j += kLanes) {
        const float* from = result + i * kTaskCols + j - j_begin;
        StoreLanes(Load(from), std::min<int64_t>(kLanes, j_end - j), accumulate, y + i * o.n + j);
      }
    }
  }
}

// Blocks of rows and columns: both operands are widened by all threads together, then the tiles are
// shared out.
template <class Y>
void ManyRows(const Operands& o, bool accumulate, Y* y) {
  static thread_local AlignedFloats row_memory, panel_memory, part_memory;
  const bool parts = o.k > kBf16GemmDepth;
  const int64_t depth = PadToLanes(static_cast<int32_t>(std::min(o.k, kBf16GemmDepth)));
  const int64_t block_rows = std::min(kBlockRows, (o.m + kRows - 1) / kRows * kRows);
  const int64_t block_cols = std::min(kBlockCols, (o.n + kCols - 1) / kCols * kCols);
  const int64_t group = std::max<int64_t>(1, kGroupFloats / (depth * kCols));
  float* const rows = row_memory.Grow(block_rows * kStride);
  float* const panels = panel_memory.Grow(block_cols * depth);
  float* const sums = parts ? part_memory.Grow(block_rows * block_cols) : nullptr;
#pragma omp parallel
  {
    for (int64_t j0 = 0; j0 < o.n; j0 += kBlockCols) {
      const int64_t cols = std::min(kBlockCols, o.n - j0), col_tiles = (cols + kCols - 1) / kCols;
      for (int64_t i0 = 0; i0 < o.m; i0 += kBlockRows) {
        const int64_t count = std::min(kBlockRows, o.m - i0),
                      row_tiles = (count + kRows - 1) / kRows;
        const int64_t shares = (row_tiles + kShare - 1) / kShare,
                      groups = (col_tiles + group - 1) / group;
        for (int64_t p = 0; p < o.k; p += kBf16GemmDepth) {
          const int64_t terms = std::min(kBf16GemmDepth, o.k - p);
          const bool last = p + terms == o.k;
#pragma omp for schedule(static) nowait
          for (int64_t t = 0; t < row_tiles; ++t) {
            const int64_t r = t * kRows, some = std::min(kRows, count - r);
            if (o.a_layout == Layout::kTermsInner)
              WidenRows(o.ARow(i0 + r, p), o.k, some, terms, rows + r * kStride);
            else
              TransposeRows(o.ARow(i0 + r, p), o.m, some, o.m - i0 - r, terms, rows + r * kStride);
          }
          if (i0 == 0 || parts) {  // otherwise the panels are those of the block before
#pragma omp for schedule(static) nowait
            for (int64_t t = 0; t < col_tiles; ++t) {
              PackPanel(o.BColumn(j0 + t * kCols, p), o.b_layout, o.BStride(),
                        std::min(kCols, cols - t * kCols), terms, panels + t * kCols * depth);
            }
          }
#pragma omp barrier
#pragma omp for schedule(dynamic, 1)
          for (int64_t task = 0; task < groups * shares; ++task) {
            const int64_t first = task / shares * group, share = task % shares;
            const int64_t t_end = std::min(row_tiles, (share + 1) * kShare),
                          c_end = std::min(col_tiles, first + group);
            for (int64_t tile = 0; tile < (t_end - share * kShare) * (c_end - first); ++tile) {
              const int64_t t = share * kShare + tile / (c_end - first),
                            column = first + tile % (c_end - first);
              const int64_t r0 = t * kRows, some = std::min(kRows, count - r0),
                            width = std::min(kCols, cols - column * kCols);
              FloatLanes sum[kRows][2];
              Tile(rows + r0 * kStride, some, panels + column * kCols * depth, width, terms,
                   nullptr, sum);
              for (int64_t r = 0; r < some; ++r) {
                for (int64_t h = 0; h < 2; ++h) {
                  const int64_t lanes = std::min<int64_t>(kLanes, width - h * kLanes);
                  if (lanes <= 0) break;
                  float* part = sums + (r0 + r) * block_cols + column * kCols + h * kLanes;
                  FloatLanes value = sum[r][h];
                  if (p > 0) value = Load(part) + value;
                  if (!last) Store(part, value);
                  else
                    StoreLanes(value, lanes, accumulate,
                               y + (i0 + r0 + r) * o.n + j0 + column * kCols + h * kLanes);
                }
              }
            }
          }  // and all wait: the blocks are written anew
        }
      }
    }
  }
}

}  // namespace

bool PreferBf16Gemm() {
#if defined(__x86_64__) && defined(__AVX512F__)
  static const bool prefer = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(0, &a, &b, &c, &d) || b != signature_INTEL_ebx) return false;
    constexpr unsigned kAmxBf16 = 1u << 22;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kAmxBf16) == 0;
  }();
  return prefer;
#elif defined(__x86_64__) && defined(__AVX2__)
  // Without AVX-512 libraries multiply bfloat16 element by element; a build for such a processor
  // may run on a newer one.
  static const bool prefer = !__builtin_cpu_supports("avx512f");
  return prefer;
#else
  return false;
#endif
}

void Bf16Gemm::Cpu(const Launch&) const {
  const Operands o{a, b, a_layout, b_layout, m, n, k};
  ForDType(y_dtype, [&]<class Y>(Y) {
    if (m <= kFewRows || (b_layout == Layout::kTermsInner && m <= 512 && m * k <= kFewFloats))
      FewRows(o, accumulate, static_cast<Y*>(y));
    else ManyRows(o, accumulate, static_cast<Y*>(y));
  });
}

}  // namespace plumb::kernels
