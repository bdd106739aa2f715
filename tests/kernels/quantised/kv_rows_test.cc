// kernels/quantised/kv_rows.h, and attention over pages of such rows.
#include "kernels/quantised/kv_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/attention_paged.h"
#include "kernels/rope.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

constexpr KvFormat kFormats[] = {KvFormat::kInt8, KvFormat::kFp8, KvFormat::kInt4};

std::vector<float> ThereAndBack(KvFormat format, const std::vector<float>& x) {
  std::vector<uint8_t> row(
      static_cast<size_t>(KvRowBytes(format, static_cast<int64_t>(x.size()))) + 1, 0xAB);
  PackKvRow(format, x, row.data());
  EXPECT_EQ(row.back(), 0xAB) << "wrote behind the row";
  std::vector<float> out(x.size());
  UnpackKvRow(format, row.data(), out);
  return out;
}

TEST(KvRows, SizesWithTheirScales) {
  for (const int64_t d : {64, 128}) {
    const auto share = [&](KvFormat f) {
      return static_cast<double>(KvRowBytes(f, d)) /
             static_cast<double>(KvRowBytes(KvFormat::kModel, d, 2));
    };
    EXPECT_LE(share(KvFormat::kInt8), 0.53);
    EXPECT_LE(share(KvFormat::kFp8), 0.53);
    EXPECT_LE(share(KvFormat::kInt4), 0.42);
    std::printf("head of %d: int8 %.1f%%, fp8 %.1f%%, int4 %.1f%% of bfloat16\n",
                static_cast<int>(d), 100 * share(KvFormat::kInt8), 100 * share(KvFormat::kFp8),
                100 * share(KvFormat::kInt4));
  }
  EXPECT_EQ(KvRowBytes(KvFormat::kModel, 80, 4), 320);
  EXPECT_EQ(KvRowBytes(KvFormat::kInt4, 80), 40 + 3 * 2) << "the last group has 16 numbers";
}

TEST(KvRows, ErrorsAreThoseOfTheBits) {
  for (const KvFormat format : kFormats) {
    for (const size_t d : {2, 16, 32, 64, 80, 128}) {
      for (const float size : {1e-6f, 1.0f, 3e4f}) {
        auto x = Normal(d, d, DType::kFloat32);
        for (float& v : x) v *= size;
        const auto back = ThereAndBack(format, x);
        for (size_t i = 0; i < d; ++i) {
          const size_t first = format == KvFormat::kInt4 ? i / 32 * 32 : 0,
                       last = format == KvFormat::kInt4 ? std::min(d, first + 32) : d;
          double most = 0;
          for (size_t k = first; k < last; ++k)
            most = std::max(most, std::abs(static_cast<double>(x[k])));
          const double at = std::abs(static_cast<double>(x[i]));
          // Half a step of the number's grid, or of the scale's 8 bits at the far end; 7 of 8 steps
          // lie on the other side of 0 under int4.
          const double step = format == KvFormat::kInt8  ? most / 127
                              : format == KvFormat::kFp8 ? std::max(at / 8, most / 448 / 64)
                                                         : most / 8;
          const double bound =
              (format == KvFormat::kInt4 ? 1.0 : 0.5) * step * 1.01 + most / 256 / 2;
          EXPECT_NEAR(back[i], x[i], bound) << static_cast<int>(format) << " " << d << " " << i;
        }
      }
    }
  }
}

TEST(KvRows, ZerosStayZerosAndWhatIsNotFiniteIsSaid) {
  for (const KvFormat format : kFormats) {
    for (const float v : ThereAndBack(format, std::vector<float>(64, 0.0f))) EXPECT_EQ(v, 0);
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      std::vector<float> x(32, 1.0f);
      x[5] = bad;
      for (const float v : ThereAndBack(format, x)) EXPECT_TRUE(std::isnan(v));
    }
  }
}

TEST(KvRows, EveryE4M3NumberComesBack) {
  // 448 fixes the scale at 1.
  for (int exponent = -6; exponent <= 8; ++exponent) {
    for (int mantissa = 8; mantissa < 16; ++mantissa) {
      const float v = std::ldexp(static_cast<float>(mantissa), exponent - 3);
      if (v > 448) continue;
      EXPECT_EQ(ThereAndBack(KvFormat::kFp8, {448.0f, v, -v, 0.0f})[1], v);
    }
  }
  EXPECT_EQ(ThereAndBack(KvFormat::kFp8, {448.0f, 0x1p-9f})[1], 0x1p-9f) << "the smallest";
  EXPECT_EQ(ThereAndBack(KvFormat::kFp8, {448.0f, 17.0f})[1], 16.0f) << "ties to even";
  EXPECT_EQ(ThereAndBack(KvFormat::kFp8, {448.0f, 19.0f})[1], 20.0f);
}

// What is written to pages and read from them is the row there and back, in any order of tokens and
// beside any others; and copied pages hold the same.
TEST(KvRows, AttentionReadsPagesOfThem) {
  constexpr int32_t kHeads = 4, kKvHeads = 2, kDim = 16, kLength = 13, kWidth = 8 * kDim;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const KvFormat format : kFormats) {
      const auto values = Normal(kLength * kWidth, 7, dtype);
      const auto run = [&](bool one_by_one, bool packed) {
        auto rounded = values;
        for (int32_t t = 0; !packed && t < kLength; ++t) {
          for (int32_t h = kHeads; h < kHeads + 2 * kKvHeads; ++h) {
            const auto at = rounded.begin() + t * kWidth + h * kDim;
            const auto back = ThereAndBack(format, {at, at + kDim});
            std::copy(back.begin(), back.end(), at);
          }
        }
        // In float the numbers of the rows are exact; in bfloat16 they would be rounded again.
        const Target exact{Device::kCpu, packed ? dtype : DType::kFloat32};
        const Launch on = {.stream = Device::kCpu, .dtype = exact.dtype};
        PagedKv kv{.dtype = exact.dtype,
                   .layers = 2,
                   .num_pages = 8,
                   .page_tokens = 4,
                   .kv_heads = kKvHeads,
                   .head_dim = kDim,
                   .format = packed ? format : KvFormat::kModel};
        std::vector<uint8_t> pages(static_cast<size_t>(kv.bytes()), 0x7F);
        kv.pages = pages.data();
        std::vector<int32_t> table = {3, 1, 0, 2}, slot(kLength, 0), position;
        for (int32_t t = 0; t < kLength; ++t) position.push_back(t);
        Tensor qkv(exact, rounded), out(exact, kLength * kHeads * kDim);
        const auto element = static_cast<int64_t>(ElementSize(exact.dtype));
        for (int32_t t = 0; t < kLength; t += one_by_one ? 1 : kLength) {
          const PagedRows rows{one_by_one ? 1 : kLength, slot.data() + t, position.data() + t,
                               table.data(), 4};
          Call(on, RopeAndWriteKv{.qkv = static_cast<std::byte*>(qkv.data()) + t * kWidth * element,
                                  .rows = rows,
                                  .heads = kHeads,
                                  .layer = 1,
                                  .kv = kv});
        }
        std::vector<int32_t> from = {3, 1}, to = {7, 6};
        Call(on, CopyPages{.from = from.data(), .to = to.data(), .count = 2, .kv = kv});
        table = {7, 6, 0, 2};
        const PagedRows rows{kLength, slot.data(), position.data(), table.data(), 4};
        Call(on, AttentionPaged{.q = qkv.data(),
                                .q_stride = kWidth,
                                .rows = rows,
                                .heads = kHeads,
                                .layer = 1,
                                .kv = kv,
                                .scale = 0.25f,
                                .out = out.data()});
        return out.Host();
      };
      const auto got = run(false, true);
      ExpectSameBits(run(true, true), got, "token by token");
      ExpectClose(
          got,
          [&] {
            const auto want = run(false, false);
            return std::vector<double>(want.begin(), want.end());
          }(),
          OutputRounding(dtype), 1e-6, "rows there and back");
    }
  }
}

}  // namespace
}  // namespace plumb::kernels
