// Products of small float matrices that lie in a thread's cache. CPU kernels only.
//
// Rows are padded to whole vectors of kLanes (vector_math.h): a product writes its result up to the
// padded width, from what lies there in the right factor. The sum over k is in ascending order and
// does not depend on the other rows or columns. Functions are each file's own, because what they
// are lowered to depends on its flags. Thread safety: pure functions of their buffers.
#pragma once

#include <algorithm>

#include "kernels/device/vector_math.h"

namespace plumb::kernels {

template <class T>
PLUMB_INLINE FloatLanes LoadUpTo(const T* x, int32_t n) {
  return n >= kLanes ? Load(x) : LoadPart(x, n);
}

// One row of n elements to floats; zeros up to the padded width.
template <class T>
PLUMB_INLINE void WidenTo(const T* x, int32_t n, float* out) {
  for (int32_t i = 0; i < n; i += kLanes) Store(out + i, LoadUpTo(x + i, n - i));
}

template <class T>
PLUMB_INLINE void NarrowTo(const float* x, int32_t n, T* out) {
  for (int32_t i = 0; i < n; ++i) out[i] = FromFloat<T>(x[i]);
}

// x[rows, width] (rows `stride` apart) to out[width][out_stride]; columns of out up to the padded
// number of rows are 0. `width` is a whole number of vectors.
static inline void TransposeTile(const float* x, int32_t stride, int32_t rows, int32_t width,
                                 int32_t out_stride, float* out) {
  for (int32_t j = 0; j < rows; j += kLanes) {
    const int32_t there = std::min(kLanes, rows - j);
    for (int32_t i = 0; i < width; i += kLanes) {
      FloatLanes block[kLanes];
      for (int32_t r = 0; r < kLanes; ++r)
        block[r] = r < there ? Load(x + int64_t{j + r} * stride + i) : FloatLanes{};
      Transpose(block);
      for (int32_t c = 0; c < kLanes; ++c) Store(out + int64_t{i + c} * out_stride + j, block[c]);
    }
  }
}

// The left factor of a product: element (i, k) lies at x[i * row + k * column].
struct Left {
  const float* x;
  int64_t row, column;
};

namespace internal {

inline constexpr int kTileRows = kSums >= 24 ? 6 : std::min(6, kSums),
                     kTileVectors = kSums >= 24 ? 4 : 1;

template <int Rows, int Vectors>
PLUMB_INLINE void Tile(Left a, int32_t depth, const float* b, int64_t b_row, bool accumulate,
                       float* c, int64_t c_row) {
  FloatLanes sum[Rows][Vectors] = {};
  if (accumulate) {
    for (int r = 0; r < Rows; ++r) {
      for (int v = 0; v < Vectors; ++v) sum[r][v] = Load(c + r * c_row + v * kLanes);
    }
  }
  for (int32_t k = 0; k < depth; ++k) {
    FloatLanes right[Vectors];
    for (int v = 0; v < Vectors; ++v) right[v] = Load(b + k * b_row + v * kLanes);
    for (int r = 0; r < Rows; ++r) {
      const float left = a.x[r * a.row + k * a.column];
      for (int v = 0; v < Vectors; ++v) sum[r][v] += right[v] * left;
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Vectors; ++v) Store(c + r * c_row + v * kLanes, sum[r][v]);
  }
}

template <int Vectors, int Rows = kTileRows>
PLUMB_INLINE void LastRows(int32_t rows, Left a, int32_t depth, const float* b, int64_t b_row,
                           bool accumulate, float* c, int64_t c_row) {
  if constexpr (Rows > 0) {
    if (rows == Rows) Tile<Rows, Vectors>(a, depth, b, b_row, accumulate, c, c_row);
    else LastRows<Vectors, Rows - 1>(rows, a, depth, b, b_row, accumulate, c, c_row);
  }
}

template <int Vectors>
static __attribute__((noinline)) void TileColumn(int32_t rows, Left a, int32_t depth,
                                                 const float* b, int64_t b_row, bool accumulate,
                                                 float* c, int64_t c_row) {
  int32_t i = 0;
  for (; i + kTileRows <= rows; i += kTileRows) {
    Tile<kTileRows, Vectors>({a.x + i * a.row, a.row, a.column}, depth, b, b_row, accumulate,
                             c + i * c_row, c_row);
  }
  LastRows<Vectors>(rows - i, {a.x + i * a.row, a.row, a.column}, depth, b, b_row, accumulate,
                    c + i * c_row, c_row);
}

template <int Vectors = kTileVectors - 1>
PLUMB_INLINE void LastColumns(int32_t vectors, int32_t rows, Left a, int32_t depth, const float* b,
                              int64_t b_row, bool accumulate, float* c, int64_t c_row) {
  if constexpr (Vectors > 0) {
    if (vectors == Vectors) TileColumn<Vectors>(rows, a, depth, b, b_row, accumulate, c, c_row);
    else LastColumns<Vectors - 1>(vectors, rows, a, depth, b, b_row, accumulate, c, c_row);
  }
}

}  // namespace internal

// c[rows, width] = a[rows, depth] b[depth, width], or += when `accumulate`; width a whole number of
// vectors; rows of b and c are b_row and c_row apart.
static inline void Product(int32_t rows, int32_t width, int32_t depth, Left a, const float* b,
                           int64_t b_row, bool accumulate, float* c, int64_t c_row) {
  using internal::kTileVectors;
  int32_t j = 0;
  for (; j + kTileVectors * kLanes <= width; j += kTileVectors * kLanes)
    internal::TileColumn<kTileVectors>(rows, a, depth, b + j, b_row, accumulate, c + j, c_row);
  internal::LastColumns((width - j) / kLanes, rows, a, depth, b + j, b_row, accumulate, c + j,
                        c_row);
}

// The lower triangle of a[n, depth] b[depth, n]: what lies above it is computed or not.
static inline void LowerProduct(int32_t n, int32_t depth, Left a, const float* b, int64_t b_row,
                                float* c, int64_t c_row) {
  for (int32_t i = 0; i < n; i += kLanes) {
    const int32_t rows = std::min(kLanes, n - i);
    Product(rows, i + kLanes, depth, {a.x + i * a.row, a.row, a.column}, b, b_row, false,
            c + i * c_row, c_row);
  }
}

// c[n, width] = t b for a lower triangle t[n, n], rows t_row apart, with zeros above it.
static inline void TriangleProduct(int32_t n, int32_t width, const float* t, int64_t t_row,
                                   const float* b, int64_t b_row, bool accumulate, float* c,
                                   int64_t c_row) {
  for (int32_t i = 0; i < n; i += kLanes) {
    const int32_t rows = std::min(kLanes, n - i);
    Product(rows, width, i + rows, {t + i * t_row, t_row, 1}, b, b_row, accumulate, c + i * c_row,
            c_row);
  }
}

// The same of its transpose: c = t^T b.
static inline void TriangleTransposedProduct(int32_t n, int32_t width, const float* t,
                                             int64_t t_row, const float* b, int64_t b_row,
                                             bool accumulate, float* c, int64_t c_row) {
  for (int32_t j = 0; j < n; j += kLanes) {
    const int32_t rows = std::min(kLanes, n - j);
    Product(rows, width, n - j, {t + j * t_row + j, 1, t_row}, b + j * b_row, b_row, accumulate,
            c + j * c_row, c_row);
  }
}

// (1 - t) x = x in place, for a strictly lower triangle t with zeros on and above the diagonal.
static inline void SolveLower(int32_t n, int32_t width, const float* t, int64_t t_row, float* x,
                              int64_t x_row) {
  for (int32_t i = 0; i < n; i += kLanes) {
    const int32_t rows = std::min(kLanes, n - i);
    if (i > 0)
      Product(rows, width, i, {t + i * t_row, t_row, 1}, x, x_row, true, x + i * x_row, x_row);
    for (int32_t r = i + 1; r < i + rows; ++r) {
      for (int32_t c = 0; c < width; c += kLanes) {
        FloatLanes sum = Load(x + r * x_row + c);
        for (int32_t k = i; k < r; ++k) sum += Load(x + k * x_row + c) * t[r * t_row + k];
        Store(x + r * x_row + c, sum);
      }
    }
  }
}

// (1 - t)^T x = x in place.
static inline void SolveLowerTransposed(int32_t n, int32_t width, const float* t, int64_t t_row,
                                        float* x, int64_t x_row) {
  for (int32_t i = (n - 1) / kLanes * kLanes; i >= 0; i -= kLanes) {
    const int32_t rows = std::min(kLanes, n - i), behind = i + rows;
    if (behind < n) {
      Product(rows, width, n - behind, {t + behind * t_row + i, 1, t_row}, x + behind * x_row,
              x_row, true, x + i * x_row, x_row);
    }
    for (int32_t r = behind - 2; r >= i; --r) {
      for (int32_t c = 0; c < width; c += kLanes) {
        FloatLanes sum = Load(x + r * x_row + c);
        for (int32_t k = r + 1; k < behind; ++k) sum += Load(x + k * x_row + c) * t[k * t_row + r];
        Store(x + r * x_row + c, sum);
      }
    }
  }
}

}  // namespace plumb::kernels
