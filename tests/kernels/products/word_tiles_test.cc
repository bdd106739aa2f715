#include "kernels/products/word_tiles.h"

#include "kernels/bf16_gemm.h"
#include "kernels/products/bf16_words.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

// (Pairs are for kernels, which are compiled for the processor: bf16_gemm_test.cc.)
// Rows of either layout against panels of either, with partial vectors, words and tiles: all give
// the same bits.
template <class W, class T>
void LayoutsAgree() {
  for (const int64_t terms : {int64_t{1}, int64_t{2}, int64_t{33}, int64_t{70}}) {
    constexpr int64_t kRows = 5, kColumns = 19, kStride = 5 * kLanes;
    std::vector<T> a(static_cast<size_t>(kRows * terms)), a_outer(a),
        b(static_cast<size_t>(kColumns * terms)), b_outer(b);
    const auto drawn = Normal(a.size() + b.size(), 1, DType::kBFloat16);
    std::vector<double> expected(static_cast<size_t>(kRows * kColumns));
    for (int64_t p = 0; p < terms; ++p) {
      for (int64_t r = 0; r < kRows; ++r) {
        const auto at = static_cast<size_t>(r * terms + p);
        a[at] = a_outer[static_cast<size_t>(p * kRows + r)] = FromFloat<T>(drawn[at]);
      }
      for (int64_t c = 0; c < kColumns; ++c) {
        const auto at = static_cast<size_t>(c * terms + p);
        b[at] = b_outer[static_cast<size_t>(p * kColumns + c)] = FromFloat<T>(drawn[a.size() + at]);
      }
    }
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t c = 0; c < kColumns; ++c) {
        for (int64_t p = 0; p < terms; ++p) {
          expected[static_cast<size_t>(r * kColumns + c)] +=
              static_cast<double>(ToFloat(a[static_cast<size_t>(r * terms + p)])) *
              static_cast<double>(ToFloat(b[static_cast<size_t>(c * terms + p)]));
        }
      }
    }
    const int64_t words = WordsOf<W>(terms);
    std::vector<float> first;
    for (const bool rows_outer : {false, true}) {
      for (const bool panel_outer : {false, true}) {
        std::vector<float> rows(static_cast<size_t>(kTileRows * kStride)),
            panel(static_cast<size_t>(PadWords(words) * kTileCols), NAN), got;
        if (rows_outer)
          RowsOfOuter<W>(a_outer.data(), kRows, kRows, kRows, terms, kStride, rows.data());
        else RowsOfInner<W>(a.data(), terms, kRows, terms, kStride, rows.data());
        if (panel_outer) PanelOfOuter<W>(b_outer.data(), kColumns, kColumns, terms, panel.data());
        else PanelOfInner<W>(b.data(), terms, kColumns, terms, panel.data());
        FloatLanes sum[kTileRows][2];
        WordTile<W>(rows.data(), kStride, kRows, panel.data(), kColumns, words, nullptr, 0, sum);
        for (int64_t r = 0; r < kRows; ++r) {
          for (int64_t c = 0; c < kColumns; ++c)
            got.push_back(sum[r][c / kLanes][static_cast<int>(c % kLanes)]);
        }
        const double root = std::sqrt(static_cast<double>(terms));
        ExpectClose(got, expected, kEps, kEps * 4 * root * (2 + root), std::to_string(terms));
        if (first.empty()) first = got;
        ExpectSameBits(got, first, std::to_string(terms));
      }
    }
  }
}

TEST(WordTilesTest, FloatsAgreeInEveryLayout) { LayoutsAgree<FloatWords, float>(); }
TEST(WordTilesTest, WidenedTermsAgreeInEveryLayout) { LayoutsAgree<FloatWords, BFloat16>(); }

TEST(Bf16WordsTest, AreThoseOfTheProductsThatArePreferred) {
  EXPECT_EQ(PreferBf16Gemm(), OwnBf16Words() != Bf16Words::kNone);
}

}  // namespace
}  // namespace plumb::kernels
