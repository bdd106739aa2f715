// The register tile of the CPU's own products, and how operands are laid out for it.
//
// Purpose: one tile for float terms and for pairs of bfloat16, shared by the products
// (bf16_gemm_cpu.cc) and the head that is fused with them (head/head_logprob_cpu.cc).
// An operand is a sequence of 32-bit words: one term widened to float, or two consecutive
// bfloat16 terms where the processor multiplies and adds pairs. One operand lies as rows of words
// that are broadcast, the other as panels [word][kTileCols]; the result is kTileRows x kTileCols.
// Every output is one running sum over the words in ascending order, whatever lies beside it.
// Words beyond the terms are zero. What is no part of its caller is static: each is compiled for
// the processor that its caller is. Thread safety: pure functions of their buffers. CPU only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#include "kernels/device/vector_math.h"

namespace plumb::kernels {

inline constexpr int64_t kTileRows = kSums >= 28 ? 14 : 12;
inline constexpr int64_t kTileCols = 2 * kLanes;

// A term a word, in float.
struct FloatWords {
  static constexpr int64_t kTerms = 1;
  // The first 16 words of `terms` terms at x; zeros behind.
  template <class T>
  static PLUMB_INLINE FloatLanes Consecutive(const T* x, int64_t terms) {
    return terms >= kLanes ? Load(x) : LoadPart(x, static_cast<int32_t>(terms));
  }
  // Word `p` of 16 neighbours, of which there are `count`: terms lie `stride` apart.
  template <class T>
  static PLUMB_INLINE FloatLanes Neighbours(const T* x, int64_t, int64_t, int64_t count) {
    return count >= kLanes ? Load(x) : LoadPart(x, static_cast<int32_t>(count));
  }
  static PLUMB_INLINE FloatLanes MultiplyAdd(FloatLanes sum, FloatLanes b, const float* word) {
    return sum + b * *word;
  }
  // A word a lane of one term.
  static PLUMB_INLINE FloatLanes Of(const FloatLanes* terms) { return terms[0]; }
  // 32 consecutive terms of one row.
  static PLUMB_INLINE void StoreRow(FloatLanes first, FloatLanes second, float* words) {
    Store(words, first);
    Store(words + kLanes, second);
  }
};

#ifdef __AVX512BF16__
// Two terms a word.
struct PairWords {
  static constexpr int64_t kTerms = 2;
  static PLUMB_INLINE FloatLanes Consecutive(const BFloat16* x, int64_t terms) {
    FloatLanes words = {};
    if (terms >= 2 * kLanes) std::memcpy(&words, x, sizeof(words));
    else std::memcpy(&words, x, static_cast<size_t>(terms) * sizeof(BFloat16));
    return words;
  }
  // `terms` are left from this word on.
  static PLUMB_INLINE FloatLanes Neighbours(const BFloat16* x, int64_t stride, int64_t terms,
                                            int64_t count) {
    const internal::NativeWords low = Bits(FloatWords::Neighbours(x, 0, 0, count)) >> 16;
    if (terms < 2) return reinterpret_cast<FloatLanes>(low);
    return reinterpret_cast<FloatLanes>(low |
                                        Bits(FloatWords::Neighbours(x + stride, 0, 0, count)));
  }
  static PLUMB_INLINE FloatLanes MultiplyAdd(FloatLanes sum, FloatLanes b, const float* word) {
    int32_t pair;
    std::memcpy(&pair, word, sizeof(pair));
    return reinterpret_cast<FloatLanes>(_mm512_dpbf16_ps(
        reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair)),
        reinterpret_cast<__m512bh>(b)));
  }
  static PLUMB_INLINE FloatLanes Of(const FloatLanes* terms) {
    using internal::NativeWords;
    const NativeWords low = __builtin_convertvector(Narrow(terms[0]), NativeWords),
                      high = __builtin_convertvector(Narrow(terms[1]), NativeWords);
    return reinterpret_cast<FloatLanes>(low | (high << 16));
  }
  static PLUMB_INLINE void StoreRow(FloatLanes first, FloatLanes second, float* words) {
    const internal::NativeHalves halves[2] = {Narrow(first), Narrow(second)};
    std::memcpy(words, halves, sizeof(halves));
  }

 private:
  static PLUMB_INLINE internal::NativeWords Bits(FloatLanes x) {
    return reinterpret_cast<internal::NativeWords>(x);
  }
  static PLUMB_INLINE internal::NativeHalves Narrow(FloatLanes x) {
    return reinterpret_cast<internal::NativeHalves>(
        _mm512_cvtneps_pbh(reinterpret_cast<__m512>(x)));
  }
};
#endif

template <class W>
PLUMB_INLINE constexpr int64_t WordsOf(int64_t terms) {
  return (terms + W::kTerms - 1) / W::kTerms;
}
PLUMB_INLINE constexpr int64_t PadWords(int64_t words) {
  return (words + kLanes - 1) / kLanes * kLanes;
}

// `rows` rows whose terms are consecutive, to [rows][stride] words.
template <class W, class T>
static void RowsOfInner(const T* x, int64_t row_stride, int64_t rows, int64_t terms, int64_t stride,
                        float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t p = 0; p < terms; p += kLanes * W::kTerms)
      Store(out + r * stride + p / W::kTerms, W::Consecutive(x + r * row_stride + p, terms - p));
  }
}

// Up to 16 rows whose terms lie `term_stride` apart, of an operand that has `readable` rows from x
// on. REQUIRES: a stride with room for whole vectors.
template <class W, class T>
static void RowsOfOuter(const T* x, int64_t term_stride, int64_t rows, int64_t readable,
                        int64_t terms, int64_t stride, float* out) {
  for (int64_t p = 0; p < terms; p += kLanes * W::kTerms) {
    FloatLanes block[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) {
      const int64_t at = p + i * W::kTerms;
      block[i] = at < terms ? W::Neighbours(x + at * term_stride, term_stride, terms - at, readable)
                            : FloatLanes{};
    }
    Transpose(block);
    for (int64_t i = 0; i < rows; ++i) Store(out + i * stride + p / W::kTerms, block[i]);
  }
}

// `cols` <= kTileCols columns whose terms are consecutive, to [words padded to 16][kTileCols];
// missing columns are 0.
template <class W, class T>
static void PanelOfInner(const T* x, int64_t stride, int64_t cols, int64_t terms, float* panel) {
  for (int64_t c = 0; c < kTileCols; c += kLanes) {
    const int64_t some = std::clamp<int64_t>(cols - c, 0, kLanes);
    for (int64_t p = 0; p < terms; p += kLanes * W::kTerms) {
      FloatLanes block[kLanes];
      for (int64_t i = 0; i < kLanes; ++i)
        block[i] = i < some ? W::Consecutive(x + (c + i) * stride + p, terms - p) : FloatLanes{};
      Transpose(block);
      for (int64_t i = 0; i < kLanes; ++i)
        Store(panel + (p / W::kTerms + i) * kTileCols + c, block[i]);
    }
  }
}

// The same of columns whose terms lie `stride` apart.
template <class W, class T>
static void PanelOfOuter(const T* x, int64_t stride, int64_t cols, int64_t terms, float* panel) {
  for (int64_t p = 0; p < terms; p += W::kTerms) {
    for (int64_t c = 0; c < kTileCols; c += kLanes) {
      Store(
          panel + p / W::kTerms * kTileCols + c,
          cols > c ? W::Neighbours(x + p * stride + c, stride, terms - p, cols - c) : FloatLanes{});
    }
  }
}

namespace internal {

template <class W, int R, int Vectors, bool kAhead>
PLUMB_INLINE void TileOf(const float* rows, int64_t stride, const float* panel, int64_t words,
                         const void* ahead, int64_t ahead_bytes, FloatLanes (*out)[2]) {
  // All of it at once, or as much as has room in registers.
  constexpr int kVectorsAtOnce = R * Vectors <= kSums ? Vectors : 1;
  constexpr int kRowsAtOnce = R * kVectorsAtOnce <= kSums ? R : kSums;
  static_assert(R % kRowsAtOnce == 0);
  for (int v0 = 0; v0 < Vectors; v0 += kVectorsAtOnce) {
    for (int r0 = 0; r0 < R; r0 += kRowsAtOnce) {
      FloatLanes sum[kRowsAtOnce][kVectorsAtOnce] = {};
      for (int64_t p = 0; p < words; ++p) {
        FloatLanes b[kVectorsAtOnce];
        for (int v = 0; v < kVectorsAtOnce; ++v)
          b[v] = Load(panel + p * kTileCols + (v0 + v) * kLanes);
        if (kAhead && v0 == 0 && r0 == 0) {
          __builtin_prefetch(reinterpret_cast<const void*>(
              reinterpret_cast<uintptr_t>(ahead) + static_cast<uintptr_t>(p * ahead_bytes)));
        }
#pragma GCC unroll 14
        for (int r = 0; r < kRowsAtOnce; ++r) {
          for (int v = 0; v < kVectorsAtOnce; ++v)
            sum[r][v] = W::MultiplyAdd(sum[r][v], b[v], rows + (r0 + r) * stride + p);
        }
      }
#pragma GCC unroll 14
      for (int r = 0; r < kRowsAtOnce; ++r) {
        for (int v = 0; v < kVectorsAtOnce; ++v) out[r0 + r][v0 + v] = sum[r][v];
      }
    }
  }
}

}  // namespace internal

// Up to kTileRows rows against one panel of `cols` columns. What lies beyond both is computed and
// not to be used. `ahead`, unless nullptr: what is wanted next, `ahead_bytes` a word; it is fetched
// meanwhile.
template <class W>
static void WordTile(const float* rows, int64_t stride, int64_t count, const float* panel,
                     int64_t cols, int64_t words, const void* ahead, int64_t ahead_bytes,
                     FloatLanes (*out)[2]) {
  constexpr int kAll = kTileRows, kFew = kSums >= 28 ? 4 : 3;
  using internal::TileOf;
  if (ahead != nullptr) {
    if (cols <= kLanes)
      TileOf<W, kAll, 1, true>(rows, stride, panel, words, ahead, ahead_bytes, out);
    else TileOf<W, kAll, 2, true>(rows, stride, panel, words, ahead, ahead_bytes, out);
  } else if (cols <= kLanes) {
    TileOf<W, kAll, 1, false>(rows, stride, panel, words, nullptr, 0, out);
  } else if (count > kFew) {
    TileOf<W, kAll, 2, false>(rows, stride, panel, words, nullptr, 0, out);
  } else {
    TileOf<W, kFew, 2, false>(rows, stride, panel, words, nullptr, 0, out);
  }
}

}  // namespace plumb::kernels
