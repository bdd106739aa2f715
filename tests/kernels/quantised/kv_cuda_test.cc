// Keys and values in fewer bits on CUDA against the CPU, which kv_rows_test.cc holds to the
// formats.
//
// Tolerance: of finite numbers all bytes are equal, for every operation of packing is rounded as
// IEEE says on both sides; behind a rotation, whose products may be contracted another way, a
// number may fall on the other side of a tie: one step of its row's grid. Attention over the same
// bytes: weights are within the roundings of a score, a sum of d products below 6 in all, on each
// side, of values below 4 (as in attention_paged_test.cc).
#include <algorithm>
#include <cmath>
#include <span>

#include "kernels/attention/tensor_attention.h"
#include "kernels/attention_paged.h"
#include "kernels/quantised/kv_rows.h"
#include "kernels/rope.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

constexpr KvFormat kFormats[] = {KvFormat::kInt8, KvFormat::kFp8, KvFormat::kInt4};
constexpr int32_t kPageTokens = 8;
constexpr int32_t kStride = 8;  // pages of a slot

class KvCudaTest : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (!CudaAvailable())
      GTEST_SKIP() << "NO GPU: pages in fewer bits were NOT tested on CUDA here";
  }
  DType dtype() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Types, KvCudaTest, ::testing::Values(DType::kFloat32, DType::kBFloat16),
                         [](const auto& info) {
                           return info.param == DType::kFloat32 ? "Float" : "Bf16";
                         });

Launch On(Device device, DType dtype) { return {.stream = TestStream(device), .dtype = dtype}; }

// `rows` tokens of two slots in turns.
struct Rows {
  explicit Rows(int32_t rows) {
    for (int32_t i = 0; i < rows; ++i) {
      slot.push_back(i % 2);
      position.push_back(i / 2);
    }
    for (int32_t i = 0; i < 2 * kStride; ++i) table.push_back((i * 5) % (2 * kStride));
  }
  std::vector<int32_t> slot, position, table;
};

PagedKv Pages(DType dtype, KvFormat format, int32_t heads, int32_t dim, bool keys_only) {
  return {.dtype = dtype,
          .layers = 2,
          .num_pages = 2 * kStride + 2,
          .page_tokens = kPageTokens,
          .kv_heads = heads,
          .head_dim = dim,
          .keys_only = keys_only,
          .format = format};
}

// The bytes of all pages behind RopeAndWriteKv of layer 1 and a copy of two of them.
std::vector<uint8_t> Written(Device device, PagedKv kv, const Rows& of, int32_t heads,
                             const std::vector<float>& qkv, int32_t dims,
                             const std::vector<float>& turns) {
  const Target target{device, kv.dtype};
  Tensor tqkv(target, qkv);
  Array<int32_t> slot(device, of.slot), position(device, of.position), table(device, of.table);
  Array<float> cos_sin(device, turns);
  Array<uint8_t> pages(device, std::vector<uint8_t>(static_cast<size_t>(kv.bytes()), 0x5A));
  kv.pages = pages.data();
  Call(On(device, kv.dtype),
       RopeAndWriteKv{.qkv = tqkv.data(),
                      .rows = {static_cast<int32_t>(of.slot.size()), slot.data(), position.data(),
                               table.data(), kStride},
                      .cos_sin = cos_sin.data(),
                      .heads = heads,
                      .dims = dims,
                      .layer = 1,
                      .kv = kv});
  Array<int32_t> from(device, std::vector<int32_t>{0, 5}), to(device, std::vector<int32_t>{16, 17});
  Call(On(device, kv.dtype), CopyPages{.from = from.data(), .to = to.data(), .count = 2, .kv = kv});
  return pages.Host();
}

TEST_P(KvCudaTest, BytesAreTheCpus) {
  for (const KvFormat format : kFormats) {
    for (const int32_t dim : {2, 16, 18, 64, 80, 128, 576}) {
      for (const bool keys_only : {false, true}) {
        const int32_t heads = 3, kv_heads = keys_only ? 1 : 2, rows = 41;
        const PagedKv kv = Pages(dtype(), format, kv_heads, dim, keys_only);
        const auto width = static_cast<size_t>((heads + (keys_only ? 1 : 2) * kv_heads) * dim);
        auto qkv = Normal(rows * width, 3, dtype());
        // A row of zeros, one of equally far numbers on both sides, one that is far from all
        // others.
        for (size_t i = 0; i < width; ++i) {
          qkv[i] = 0;
          qkv[width + i] = i % 2 == 0 ? -2.0f : 2.0f;
          qkv[2 * width + i] *= 1e-3f * static_cast<float>(i % 5);
        }
        if (dtype() == DType::kBFloat16) {
          for (float& x : qkv) x = ToFloat(ToBFloat16(x));
        }
        const Rows of(rows);
        EXPECT_EQ(Written(Device::Cuda(0), kv, of, heads, qkv, 0, {0}),
                  Written(Device::kCpu, kv, of, heads, qkv, 0, {0}))
            << static_cast<int>(format) << ", head of " << dim;
        if (dim % 4 != 0) continue;
        // Turned: the numbers of every row within a step.
        std::vector<float> turns = Normal(static_cast<size_t>(64 * dim / 2), 2);
        const auto cuda = Written(Device::Cuda(0), kv, of, heads, qkv, dim / 2, turns),
                   cpu = Written(Device::kCpu, kv, of, heads, qkv, dim / 2, turns);
        const auto bytes = static_cast<size_t>(kv.row_stride());
        std::vector<float> a(static_cast<size_t>(dim)), b(a);
        for (int64_t p = 0; p < rows; ++p) {
          const int64_t page =
              of.table[static_cast<size_t>(of.slot[static_cast<size_t>(p)] * kStride +
                                           of.position[static_cast<size_t>(p)] / kPageTokens)];
          for (int64_t h = 0; h < (keys_only ? 1 : 2) * kv_heads; ++h) {
            const auto at = static_cast<size_t>(
                kv.layer_stride() + page * kv.page_stride() + h * kv.head_stride() +
                of.position[static_cast<size_t>(p)] % kPageTokens * kv.row_stride());
            ASSERT_LE(at + bytes, cpu.size());
            UnpackKvRow(format, cuda.data() + at, a);
            UnpackKvRow(format, cpu.data() + at, b);
            float most = 0;
            for (const float x : b) most = std::max(most, std::abs(x));
            const float step = format == KvFormat::kInt4 ? most / 7 : most / 14;
            for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], step) << i;
          }
        }
      }
    }
  }
}

TEST_P(KvCudaTest, WhatIsNotFiniteIsSaid) {
  for (const KvFormat format : kFormats) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      const PagedKv kv = Pages(dtype(), format, 1, 64, true);
      std::vector<float> qkv(2 * 64, 1.0f);
      qkv[64 + 37] = bad;
      const Rows of(1);
      const auto pages = Written(Device::Cuda(0), kv, of, 1, qkv, 0, {0});
      std::vector<float> row(64);
      UnpackKvRow(format, pages.data() + kv.layer_stride(), row);
      // Of four bits the group of 32 in which it lies.
      for (size_t i = format == KvFormat::kInt4 ? 32 : 0; i < 64; ++i)
        EXPECT_TRUE(std::isnan(row[i])) << static_cast<int>(format) << " " << i;
    }
  }
}

TEST_P(KvCudaTest, AttentionOverTheSameBytesIsTheCpus) {
  struct Shape {
    int32_t heads, kv_heads, dim;
    bool keys_only = false;
    int32_t window = 0, every = 0;
    bool sinks = false;
  };
  for (const KvFormat format :
       {KvFormat::kModel, KvFormat::kInt8, KvFormat::kFp8, KvFormat::kInt4}) {
    for (const Shape& s :
         {Shape{4, 4, 32}, Shape{9, 3, 64}, Shape{7, 1, 80}, Shape{4, 2, 128}, Shape{2, 1, 18},
          Shape{5, 1, 576, true}, Shape{3, 1, 1024, true}, Shape{2, 1, 256, false, 7},
          Shape{4, 2, 64, false, 9, 4, true}, Shape{4, 2, 64, false, 1, 1}}) {
      constexpr int32_t kRows = 59;
      const Rows of(kRows);
      PagedKv kv = Pages(dtype(), format, s.kv_heads, s.dim, s.keys_only);
      const auto width =
          static_cast<size_t>((s.heads + (s.keys_only ? 1 : 2) * s.kv_heads) * s.dim);
      const auto qkv = Normal(kRows * width, 5, dtype()),
                 sinks = Normal(static_cast<size_t>(s.heads), 6, dtype());
      const auto pages = Written(Device::kCpu, kv, of, s.heads, qkv, 0, {0});
      const auto run = [&](Device device, int32_t first, int32_t rows, std::vector<float>* lse) {
        const Target target{device, dtype()};
        Array<uint8_t> there(device, pages);
        Array<int32_t> slot(device, of.slot), position(device, of.position),
            table(device, of.table);
        Tensor tqkv(target, qkv), ts(target, sinks),
            out(target, static_cast<size_t>(rows * s.heads * s.dim));
        Array<float> sums(device, static_cast<size_t>(rows * s.heads));
        PagedKv here = kv;
        here.pages = there.data();
        Call(On(device, dtype()),
             AttentionPaged{.q = static_cast<std::byte*>(tqkv.data()) +
                                 static_cast<size_t>(first) * width * ElementSize(dtype()),
                            .q_stride = static_cast<int64_t>(width),
                            .rows = {rows, slot.data() + first, position.data() + first,
                                     table.data(), kStride},
                            .heads = s.heads,
                            .layer = 1,
                            .kv = here,
                            .scale = 1 / std::sqrt(static_cast<float>(s.dim)),
                            .window = s.window,
                            .global_every = s.every,
                            .sinks = s.sinks ? ts.data() : nullptr,
                            .out = out.data(),
                            .lse = lse ? sums.data() : nullptr});
        if (lse) *lse = sums.Host();
        return out.Host();
      };
      const std::string what = "format " + std::to_string(static_cast<int>(format)) + ", head of " +
                               std::to_string(s.dim) + ", window " + std::to_string(s.window);
      std::vector<float> cpu_lse, cuda_lse;
      const auto cpu = run(Device::kCpu, 0, kRows, &cpu_lse),
                 cuda = run(Device::Cuda(0), 0, kRows, &cuda_lse);
      const double error = 2 * 4 * 6 * kEps * (4 + std::sqrt(static_cast<double>(s.dim)));
      // The tensor cores take weights that are rounded to bfloat16, and their sum: as
      // PagedScene::WeightRounding says, a result moves by that times the distance of values from
      // their mean, and the logarithm of the sum by half an ulp.
      const bool tensor = TensorAttentionFits(dtype(), {.heads = s.heads,
                                                        .kv = kv,
                                                        .global_every = s.every,
                                                        .sinks = s.sinks ? sinks.data() : nullptr});
      const double weights = tensor ? 2.5 * kHalfBf16 : 0, sum = tensor ? kHalfBf16 : 0;
      ExpectClose(cuda, ToDouble(cpu), 2 * OutputRounding(dtype()), error + weights, what);
      ExpectClose(cuda_lse, ToDouble(cpu_lse), 8 * kEps, error + sum, what + ", log-sum-exp");
      // A row alone, and without the log-sum-exp where that is the same kernel.
      const bool listed = format != KvFormat::kModel || s.every > 0;
      for (const int32_t row : {0, 17, kRows - 1}) {
        std::vector<float> lse;
        const auto size = static_cast<int64_t>(s.heads) * s.dim;
        const std::vector<float> in_batch(cuda.begin() + row * size,
                                          cuda.begin() + (row + 1) * size);
        ExpectSameBits(run(Device::Cuda(0), row, 1, listed ? nullptr : &lse), in_batch, what);
      }
    }
  }
}

}  // namespace
}  // namespace plumb::kernels
