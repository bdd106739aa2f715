#include <omp.h>

#include <algorithm>
#include <cstring>

#include "kernels/bf16_gemm.h"
#include "kernels/device/cpu_common.h"
#include "kernels/device/vector_math.h"
#include "kernels/products/word_tiles.h"

namespace plumb::kernels {
namespace {

constexpr int64_t kRows = kTileRows, kCols = kTileCols;
constexpr int64_t kShare = 8;  // row tiles of a task
constexpr int64_t kLineBytes = 64;
constexpr int64_t kBlockRows = 72 * kRows, kBlockCols = 64 * kCols;
// Up to so many rows, or so many terms of them, they stay in a core's cache while the second
// operand is read; and so many terms of panels do while rows pass by.
constexpr int64_t kFewRows = 2 * kCols, kCacheTerms = int64_t{1} << 18;

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
  const BFloat16 *more_a, *more_b;
  int64_t more_k;
  const BFloat16* BColumn(int64_t j, int64_t p) const {
    return b_layout == Layout::kTermsInner ? b + j * k + p : b + p * n + j;
  }
  // Words of the terms from p on that are summed at a time: up to kBf16GemmDepth, and behind the
  // last those of the operands that follow.
  int64_t Terms(int64_t p) const { return std::min(kBf16GemmDepth, k - p); }
  template <class W>
  int64_t Words(int64_t p) const {
    return WordsOf<W>(Terms(p)) + (p + Terms(p) == k ? WordsOf<W>(more_k) : 0);
  }
  // Of the longest run, with room for whole vectors.
  template <class W>
  int64_t MostWords() const {
    return PadWords(WordsOf<W>(std::min(k, kBf16GemmDepth))) + PadWords(WordsOf<W>(more_k));
  }
  // The stride of rows: odd in cache lines, so that the rows of a tile meet in no cache set.
  template <class W>
  int64_t Stride() const {
    return (MostWords<W>() / kLanes | 1) * kLanes;
  }
  // Rows from `first` on, or a panel of columns, of one operand (word_tiles.h): of all its terms,
  // or of the `terms` from p on.
  struct Side {
    const BFloat16 *x, *more;
    Layout layout;
    int64_t of;  // rows that it has
  };
  Side A() const { return {a, more_a, a_layout, m}; }
  Side B() const { return {b, more_b, b_layout, n}; }
  template <class W>
  void Rows(const Side& side, int64_t first, int64_t count, int64_t p, float* out) const {
    const int64_t terms = Terms(p), stride = Stride<W>();
    const auto lay = [&](const BFloat16* x, int64_t width, int64_t at, int64_t some, float* to) {
      if (side.layout == Layout::kTermsInner)
        RowsOfInner<W>(x + first * width + at, width, count, some, stride, to);
      else
        RowsOfOuter<W>(x + at * side.of + first, side.of, count, side.of - first, some, stride, to);
    };
    lay(side.x, k, p, terms, out);
    if (more_k > 0 && p + terms == k) lay(side.more, more_k, 0, more_k, out + WordsOf<W>(terms));
  }
  template <class W>
  void Panel(const Side& side, int64_t first, int64_t p, int64_t terms, float* out) const {
    const int64_t cols = std::min(kCols, side.of - first);
    const auto lay = [&](const BFloat16* x, int64_t width, int64_t at, int64_t some, float* to) {
      if (side.layout == Layout::kTermsInner)
        PanelOfInner<W>(x + first * width + at, width, cols, some, to);
      else PanelOfOuter<W>(x + at * side.of + first, side.of, cols, some, to);
    };
    lay(side.x, k, p, terms, out);
    if (more_k > 0 && p + terms == k)
      lay(side.more, more_k, 0, more_k, out + WordsOf<W>(terms) * kCols);
  }
};

// Few rows: they become the panels, and the threads share out the columns of the result, whose
// operand is widened fourteen columns at a time; the result's tiles are stored transposed.
template <class W, class Y>
void FewRows(const Operands& o, bool accumulate, Y* y) {
  const int64_t panels = (o.m + kCols - 1) / kCols, stride = o.Stride<W>(),
                padded = PadWords(WordsOf<W>(o.k)) + PadWords(WordsOf<W>(o.more_k));
  static thread_local AlignedFloats panel_memory;
  float* packed = panel_memory.Grow(panels * padded * kCols);
  for (int64_t j = 0; j < panels; ++j) {
    o.Panel<W>(o.A(), j * kCols, 0, o.k, packed + j * padded * kCols);
  }
  // Four tiles a task: lines of the result are then written whole, and its rows, which may share a
  // cache set, seldom.
  constexpr int64_t kTiles = 4, kTaskCols = kTiles * kRows;
  const int64_t tasks = (o.n + kTaskCols - 1) / kTaskCols;
#pragma omp parallel for schedule(static) if (o.m * o.n * o.k > 65536)
  for (int64_t task = 0; task < tasks; ++task) {
    static thread_local AlignedFloats row_memory, result_memory;
    float* rows = row_memory.Grow(kRows * stride);
    float* result = result_memory.Grow(panels * kCols * kTaskCols + kLanes);
    const int64_t j_begin = task * kTaskCols, j_end = std::min(o.n, j_begin + kTaskCols);
    for (int64_t j0 = j_begin; j0 < j_end; j0 += kRows) {
      const int64_t count = std::min(kRows, j_end - j0);
      for (int64_t p = 0; p < o.k; p += kBf16GemmDepth) {
        o.Rows<W>(o.B(), j0, count, p, rows);
        for (int64_t i = 0; i < o.m; i += kCols) {
          FloatLanes sum[kRows][2] = {};
          WordTile<W>(rows, stride, count, packed + i * padded + p / W::kTerms * kCols, o.m - i,
                      o.Words<W>(p), i == 0 ? o.BColumn(j0 + kRows, p) : nullptr,
                      kRows * W::kTerms * int64_t{sizeof(BFloat16)}, sum);
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
template <class W, class Y>
void ManyRows(const Operands& o, bool accumulate, Y* y) {
  static thread_local AlignedFloats row_memory, panel_memory, part_memory;
  const bool parts = o.k > kBf16GemmDepth;
  const int64_t depth = o.MostWords<W>(), stride = o.Stride<W>();
  const int64_t block_rows = std::min(kBlockRows, (o.m + kRows - 1) / kRows * kRows);
  const int64_t block_cols = std::min(kBlockCols, (o.n + kCols - 1) / kCols * kCols);
  const int64_t group = std::max<int64_t>(1, kCacheTerms / W::kTerms / (depth * kCols));
  float* const rows = row_memory.Grow(block_rows * stride);
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
          const bool last = p + o.Terms(p) == o.k;
#pragma omp for schedule(static) nowait
          for (int64_t t = 0; t < row_tiles; ++t) {
            const int64_t r = t * kRows, some = std::min(kRows, count - r);
            o.Rows<W>(o.A(), i0 + r, some, p, rows + r * stride);
          }
          if (i0 == 0 || parts) {  // otherwise the panels are those of the block before
#pragma omp for schedule(static) nowait
            for (int64_t t = 0; t < col_tiles; ++t) {
              o.Panel<W>(o.B(), j0 + t * kCols, p, o.Terms(p), panels + t * kCols * depth);
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
              // Of a result that is larger than the caches, such as gradients that are added to:
              // its lines come while the tile is computed.
              for (int64_t r = 0; last && r < some; ++r) {
                const Y* to = y + (i0 + r0 + r) * o.n + j0 + column * kCols;
                for (int64_t c = 0; c < width; c += kLineBytes / int64_t{sizeof(Y)})
                  __builtin_prefetch(to + c, 1);
              }
              FloatLanes sum[kRows][2];
              WordTile<W>(rows + r0 * stride, stride, some, panels + column * kCols * depth, width,
                          o.Words<W>(p), nullptr, 0, sum);
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

template <class W>
void Product(const Bf16Gemm& g) {
  const Operands o{g.a, g.b, g.a_layout, g.b_layout, g.m, g.n, g.k, g.more_a, g.more_b, g.more_k};
  const bool few = g.m <= kFewRows ||
                   (g.b_layout == Layout::kTermsInner && g.m <= 512 && g.m * g.k <= kCacheTerms);
  ForDType(g.y_dtype, [&]<class Y>(Y) {
    if (few) FewRows<W>(o, g.accumulate, static_cast<Y*>(g.y));
    else ManyRows<W>(o, g.accumulate, static_cast<Y*>(g.y));
  });
}

}  // namespace

bool PreferBf16Gemm() { return OwnBf16Words() != Bf16Words::kNone; }

void Bf16Gemm::Cpu(const Launch&) const {
#ifdef __AVX512BF16__
  if (words == Bf16Words::kPairs) {
    Product<PairWords>(*this);
    return;
  }
#endif
  Product<FloatWords>(*this);
}

}  // namespace plumb::kernels
