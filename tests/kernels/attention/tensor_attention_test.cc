#include "kernels/attention/tensor_attention.h"

#include "kernels/attention/attention_block.h"
#include "tests/kernels/attention/paged_scene.h"

namespace plumb::kernels {
namespace {

AttentionPaged Sizes(int32_t single, int32_t heads, int32_t kv_heads, int32_t d, int32_t positions,
                     int32_t window = 0) {
  AttentionPaged k;
  k.rows.rows = k.rows.single = single;
  k.rows.page_table_stride = positions / 16;
  k.heads = heads;
  k.window = window;
  k.kv = {.dtype = DType::kBFloat16,
          .layers = 1,
          .num_pages = 1,
          .page_tokens = 16,
          .kv_heads = kv_heads,
          .head_dim = d};
  return k;
}

TEST(TensorAttention, IsForKeysAndValuesAlone) {
  const AttentionPaged k = Sizes(4, 8, 2, 128, 4096);
  EXPECT_TRUE(TensorAttentionFits(DType::kBFloat16, k));
  EXPECT_FALSE(TensorAttentionFits(DType::kFloat32, k));
  for (const int32_t d : {64, 80, 96, 256})
    EXPECT_TRUE(TensorAttentionFits(DType::kBFloat16, Sizes(4, 8, 2, d, 4096))) << d;
  EXPECT_FALSE(TensorAttentionFits(DType::kBFloat16, Sizes(4, 8, 2, 576, 4096)));
  EXPECT_FALSE(TensorAttentionFits(DType::kBFloat16, Sizes(4, 34, 2, 128, 4096)));
  const int32_t chosen = 0;
  float lse = 0;
  AttentionPaged with_sums = k;
  with_sums.lse = &lse;
  EXPECT_TRUE(TensorAttentionFits(DType::kBFloat16, with_sums));
  for (int what = 0; what < 5; ++what) {
    AttentionPaged other = k;
    if (what == 0) other.kv.format = KvFormat::kInt8;
    if (what == 1) other.kv.keys_only = true;
    if (what == 2) other.global_every = 4;
    if (what == 3) other.chosen = &chosen;
    if (what == 4) other.sinks = &lse;
    EXPECT_FALSE(TensorAttentionFits(DType::kBFloat16, other)) << what;
  }
}

TEST(TensorAttention, FewRowsAreSharedOutAndManyAreNot) {
  // One row of four KV heads: as many blocks as it can have splits.
  TensorAttentionPlan plan = PlanTensorAttention(Sizes(1, 28, 4, 128, 4096));
  EXPECT_EQ(plan.most_splits, 32);
  EXPECT_EQ(plan.pieces, 32);
  EXPECT_EQ(plan.partials, 28 * 32 * 130);
  EXPECT_EQ(plan.totals, 0);
  plan = PlanTensorAttention(Sizes(16, 28, 4, 128, 4096));
  EXPECT_EQ(plan.pieces, 9);
  // Enough rows to keep a GPU busy by themselves.
  plan = PlanTensorAttention(Sizes(66, 28, 4, 128, 4096));
  EXPECT_EQ(plan.pieces, 1);
  EXPECT_EQ(plan.partials, 0);
  EXPECT_EQ(plan.totals, 66 * 28 * 130);
  // More memory than it is worth.
  plan = PlanTensorAttention(Sizes(32, 32, 8, 128, 1 << 20));
  EXPECT_EQ(plan.pieces, 1);
  EXPECT_EQ(plan.partials, 0);
  // A window of 130 keys can touch three splits; nothing of it is shared.
  plan = PlanTensorAttention(Sizes(64, 8, 8, 64, 1 << 20, 130));
  EXPECT_EQ(plan.most_splits, 3);
  EXPECT_EQ(plan.totals, 0);
  // No single rows.
  EXPECT_EQ(PlanTensorAttention(Sizes(0, 8, 8, 64, 4096)).floats(), 0);
}

TEST(TensorAttention, NoSplitIsWithoutAPlace) {
  for (const int32_t window : {1, 2, 127, 128, 129, 130, 256, 257}) {
    const TensorAttentionPlan plan = PlanTensorAttention(Sizes(1, 2, 1, 64, 4096, window));
    AttentionWork w;
    w.window = window;
    int32_t most = 0;
    for (int32_t position = 0; position < 4096; ++position)
      most = std::max(most, position / kSplitKeys - FirstSeen(w, position) / kSplitKeys + 1);
    EXPECT_EQ(plan.most_splits, most) << window;
  }
}

TEST(TensorAttention, TakesNoMemoryOnTheCpu) {
  EXPECT_EQ(AttentionPagedScratch({.dtype = DType::kBFloat16}, Sizes(1, 28, 4, 128, 4096)), 0);
}

class TensorAttentionOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!CudaAvailable())
      GTEST_SKIP() << "NO GPU: attention on the tensor cores was NOT tested here (build with "
                      "-DPLUMB_CUDA=ON on a machine with a GPU)";
  }
};

struct Hints {
  int32_t single = 0;
  bool scratch = true;
  std::vector<int32_t> with = {}, shared = {};
};

std::vector<float> Attend(Device device, const PagedScene& scene, const PagedScene::Rows& rows,
                          const Hints& hints = {}) {
  const Launch launch{.stream = TestStream(device), .dtype = DType::kBFloat16};
  const Target target{device, DType::kBFloat16};
  Array<BFloat16> pages(device, scene.memory);
  Array<int32_t> slot(device, rows.slot), position(device, rows.position),
      table(device, scene.table), with(device, hints.with), shared(device, hints.shared);
  Tensor q(target, rows.q),
      out(target, rows.slot.size() * static_cast<size_t>(scene.shape.heads * scene.shape.d));
  AttentionPaged k{.q = q.data(),
                   .q_stride = rows.q_stride,
                   .rows = {static_cast<int32_t>(rows.slot.size()), slot.data(), position.data(),
                            table.data(), scene.stride},
                   .heads = scene.shape.heads,
                   .kv = scene.View(),
                   .scale = scene.shape.Scale(),
                   .window = scene.shape.window,
                   .out = out.data()};
  k.kv.pages = pages.data();
  k.rows.single = hints.single;
  if (!hints.with.empty()) {
    k.rows.shared_with = with.data();
    k.rows.shared_tokens = shared.data();
  }
  Array<uint8_t> scratch(device, static_cast<size_t>(AttentionPagedScratch(launch, k)) + 16);
  if (hints.scratch) k.scratch = scratch.data();
  Call(launch, k);
  return out.Host();
}

std::vector<PagedShape> Shapes() {
  std::vector<PagedShape> shapes;
  for (const int32_t d : {64, 80, 96, 128, 256})
    shapes.push_back({6, 2, d, 16, {1, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000}});
  for (const int32_t group : {1, 2, 4, 5, 7, 8})
    shapes.push_back({2 * group, 2, 128, 16, {257, 5, 64}});
  for (const int32_t window : {1, 17, 64, 100, 128, 300})
    shapes.push_back({4, 2, 64, 16, {1000, 64, 200}, window});
  shapes.push_back({14, 2, 64, 12, {333, 20}});
  return shapes;
}

TEST_F(TensorAttentionOnGpu, RowsAreTheCpus) {
  for (const PagedShape& shape : Shapes()) {
    const PagedScene scene(shape);
    const PagedScene::Rows rows = scene.LastRows(70);
    const auto count = static_cast<int32_t>(rows.slot.size());
    const auto expected = ToDouble(Attend(Device::kCpu, scene, rows));
    for (const int32_t single : {0, count, count / 2}) {
      for (const bool scratch : {true, false}) {
        ExpectClose(Attend(Device::Cuda(0), scene, rows, {.single = single, .scratch = scratch}),
                    expected, 2 * kHalfBf16, scene.WeightRounding(),
                    shape.Name() + ", " + std::to_string(single) + " single rows");
      }
    }
    // Few rows, whose splits are shared out.
    const PagedScene::Rows last = scene.LastRows(1);
    ExpectClose(
        Attend(Device::Cuda(0), scene, last, {.single = static_cast<int32_t>(last.slot.size())}),
        ToDouble(Attend(Device::kCpu, scene, last)), 2 * kHalfBf16, scene.WeightRounding(),
        shape.Name() + ", the last rows");
  }
}

TEST_F(TensorAttentionOnGpu, ARowDoesNotKnowItsBatchItsChunkOrItsPages) {
  for (const PagedShape& shape : Shapes()) {
    const PagedScene scene(shape), moved(shape, 1);
    const PagedScene::Rows rows = scene.LastRows(70);
    const size_t n = rows.slot.size(), width = static_cast<size_t>(shape.heads * shape.d);
    const auto expected = Attend(Device::Cuda(0), scene, rows);
    const auto part = [&](size_t first, size_t count) {
      const auto at = expected.begin() + static_cast<ptrdiff_t>(first * width);
      return std::vector<float>(at, at + static_cast<ptrdiff_t>(count * width));
    };
    ExpectSameBits(Attend(Device::Cuda(0), moved, rows), expected, shape.Name() + ", other pages");
    for (const size_t chunk : {1, 7, 33}) {
      for (size_t a = 0; a < n; a += std::max<size_t>(chunk, 61)) {
        const size_t count = std::min(chunk, n - a);
        ExpectSameBits(Attend(Device::Cuda(0), scene, scene.Some(rows, a, count)), part(a, count),
                       shape.Name() + ", a chunk of " + std::to_string(count));
      }
    }
    // Decoded: in batches of which each is divided in its own way.
    for (const size_t batch : {1, 3, 17, 256}) {
      for (size_t a = 0; a < n; a += std::max<size_t>(batch, 97)) {
        const size_t count = std::min(batch, n - a);
        const auto single = static_cast<int32_t>(count);
        for (const bool scratch : {true, false}) {
          ExpectSameBits(Attend(Device::Cuda(0), scene, scene.Some(rows, a, count),
                                {.single = single, .scratch = scratch}),
                         part(a, count), shape.Name() + ", a batch of " + std::to_string(count));
        }
      }
    }
  }
}

TEST_F(TensorAttentionOnGpu, WhatAGroupSharesIsReadTogetherWithTheSameBits) {
  constexpr int32_t kRows = 140;  // enough for a part that is shared
  for (const int32_t group : {1, 4, 7}) {
    for (const int32_t d : {64, 128}) {
      PagedShape shape{2 * group, 2, d, 16, {}};
      for (int32_t i = 0; i < kRows; ++i) shape.lengths.push_back(300 + i * 2);
      shape.lengths.back() = 90;
      PagedScene scene(shape);
      Hints hints{.single = kRows};
      for (int32_t i = 0; i < kRows; ++i) {  // groups of 20, 256 keys or 128; the last is alone
        const int32_t of = i / 20 * 20, tokens = i + 1 == kRows ? 0 : (of == 40 ? 128 : 256);
        if (i != of && tokens > 0) scene.Share(i, of, tokens);
        hints.with.push_back(tokens > 0 ? of : i);
        hints.shared.push_back(tokens);
      }
      const PagedScene::Rows rows = scene.LastRows(1);
      const auto expected = Attend(Device::Cuda(0), scene, rows, {.single = kRows});
      ExpectClose(expected, ToDouble(Attend(Device::kCpu, scene, rows)), 2 * kHalfBf16,
                  scene.WeightRounding(), "apart");
      ExpectSameBits(Attend(Device::Cuda(0), scene, rows, hints), expected,
                     shape.Name() + ", together");
      hints.scratch = false;
      ExpectSameBits(Attend(Device::Cuda(0), scene, rows, hints), expected,
                     "without memory for it");
      // Few of them, whose splits are shared out instead.
      Hints few{.single = 8,
                .with = {hints.with.begin(), hints.with.begin() + 8},
                .shared = {hints.shared.begin(), hints.shared.begin() + 8}};
      ExpectSameBits(Attend(Device::Cuda(0), scene, scene.Some(rows, 0, 8), few),
                     {expected.begin(), expected.begin() + 8 * shape.heads * d}, "eight rows");
    }
  }
}

}  // namespace
}  // namespace plumb::kernels
