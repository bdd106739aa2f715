#include "kernels/attention/attention_block.h"

#include <algorithm>
#include <numeric>

#include "kernels/attention_paged.h"
#include "tests/kernels/attention/emulated_chip.h"
#include "tests/kernels/attention/paged_scene.h"

namespace plumb::kernels {
namespace {

// Blocks of a launch as tensor_attention.cu starts them, on the emulated chip.
struct Division {
  int32_t single = 0;  // rows; the others are tiles of prompts
  int32_t pieces = 1;  // of single rows
  std::vector<int32_t> with = {}, shared = {};
  const char* name = "tiles of prompts";
};

// `lse`: nullptr, or what becomes the rows' log-sum-exp, [heads, rows].
template <int D>
std::vector<BFloat16> RunBlocks(const PagedScene& s, const PagedScene::Rows& rows,
                                const Division& division, std::vector<float>* lse) {
  const PagedKv kv = s.View();
  const auto count = static_cast<int32_t>(rows.slot.size());
  const std::vector<BFloat16> q = ToHalves(rows.q);
  std::vector<BFloat16> out(static_cast<size_t>(count * s.shape.heads * D), BFloat16{0xFFFF});
  const int32_t most = (s.stride * kv.page_tokens + kSplitKeys - 1) / kSplitKeys;
  const size_t records = static_cast<size_t>(count * s.shape.heads);
  std::vector<float> totals(records * kRecord<D>, NAN),
      partials(records * static_cast<size_t>(most * kRecord<D>), NAN);
  AttentionWork work{.q = q.data(),
                     .q_stride = rows.q_stride,
                     .slot = rows.slot.data(),
                     .position = rows.position.data(),
                     .page_table = s.table.data(),
                     .page_table_stride = s.stride,
                     .heads = s.shape.heads,
                     .group = s.shape.heads / s.shape.kv_heads,
                     .pages = static_cast<const BFloat16*>(kv.pages),
                     .page_stride = kv.page_stride(),
                     .head_stride = kv.head_stride(),
                     .kv_stride = kv.kv_stride(),
                     .page_tokens = kv.page_tokens,
                     .page_shift = kv.page_tokens == 16 ? 4 : -1,
                     .scale = s.shape.Scale() * 1.4426950408889634f,
                     .window = s.shape.window,
                     .out = out.data(),
                     .lse_stride = count};
  if (lse) {
    lse->assign(records, NAN);
    work.lse = lse->data();
  }
  const auto start = [&]<int Warps>(std::integral_constant<int, Warps>, const AttentionWork& w) {
    using Block = AttentionBlock<EmulatedChip, D, Warps>;
    std::vector<BFloat16> memory(Block::kBytes / 2 + 8);
    auto* aligned = memory.data() + (16 - reinterpret_cast<uintptr_t>(memory.data()) % 16) % 16 / 2;
    const int32_t rows_each = w.is_shared ? 1 : w.rows_a_block;
    for (int32_t x = 0; x < (w.end - w.begin + rows_each - 1) / rows_each; ++x) {
      for (int32_t h = 0; h < s.shape.kv_heads; ++h) {
        for (int32_t piece = 0; piece < w.pieces; ++piece) {
          // What the last block has left there is nobody's.
          std::fill(memory.begin(), memory.end(), BFloat16{0xFFFF});
          EmulatedBlock::Run(32 * Warps, [&] { Block::Run(w, x, h, piece, aligned); });
        }
      }
    }
  };
  constexpr std::integral_constant<int, 1> kOne;
  constexpr std::integral_constant<int, 4> kFour;
  if (division.single > 0) {
    AttentionWork own = work;
    own.end = division.single;
    if (!division.with.empty()) {
      own.shared_with = division.with.data();
      own.shared_tokens = division.shared.data();
      own.totals = totals.data();
      AttentionWork together = own;
      together.is_shared = true;
      together.rows_a_block = 64 / work.group;
      start(kFour, together);
    }
    if (division.pieces > 1) {
      own.partials = partials.data();
      own.most_splits = most;
      own.pieces = division.pieces;
    }
    start(kOne, own);
    for (int32_t r = 0; r < own.end && own.partials; ++r) {
      for (int32_t h = 0; h < work.heads; ++h) {
        for (int32_t pair = 0; pair < D / 2; ++pair) MergeSplits<EmulatedChip, D>(own, r, h, pair);
      }
    }
  }
  if (division.single < count) {
    work.begin = division.single;
    work.end = count;
    work.rows_a_block = 64 / work.group;
    start(kFour, work);
  }
  return out;
}

std::vector<BFloat16> RunBlocks(const PagedScene& s, const PagedScene::Rows& rows,
                                const Division& division, std::vector<float>* lse = nullptr) {
  switch (s.shape.d) {
    case 64: return RunBlocks<64>(s, rows, division, lse);
    case 80: return RunBlocks<80>(s, rows, division, lse);
    case 96: return RunBlocks<96>(s, rows, division, lse);
    case 128: return RunBlocks<128>(s, rows, division, lse);
    default: return RunBlocks<256>(s, rows, division, lse);
  }
}

std::vector<float> ToFloats(const std::vector<BFloat16>& x) {
  std::vector<float> out;
  for (const BFloat16 v : x) out.push_back(ToFloat(v));
  return out;
}

// Head sizes, heads a KV head from 1 to 8, lengths around the edges of tiles and splits, windows,
// pages whose size is no power of two.
const PagedShape kShapes[] = {
    {2, 2, 64, 16, {1, 63, 64, 65}}, {14, 2, 64, 16, {130}},    {3, 1, 80, 12, {66}},
    {4, 2, 96, 16, {129}},           {4, 1, 128, 16, {255, 5}}, {8, 1, 128, 16, {257}},
    {5, 1, 256, 16, {70}},           {4, 2, 64, 16, {200}, 17}, {6, 1, 64, 12, {330}, 130},
};

TEST(AttentionBlock, RowsAreThoseOfTheReference) {
  for (const PagedShape& shape : kShapes) {
    const PagedScene scene(shape);
    const PagedScene::Rows rows = scene.LastRows(3);
    const auto count = static_cast<int32_t>(rows.slot.size());
    for (const Division& division : {Division{}, Division{.single = count, .name = "single rows"},
                                     Division{.single = count, .pieces = 2, .name = "pieces"},
                                     Division{.single = count / 2, .pieces = 3, .name = "both"}}) {
      ExpectClose(ToFloats(RunBlocks(scene, rows, division)), scene.Expected(rows), kHalfBf16,
                  scene.WeightRounding(), shape.Name() + ", " + division.name);
    }
  }
}

TEST(AttentionBlock, GivesTheLogSumExpWhereItIsAsked) {
  for (const PagedShape& shape :
       {PagedShape{4, 2, 64, 16, {200, 5}}, PagedShape{3, 1, 128, 16, {300}},
        PagedShape{4, 2, 64, 16, {200}, 17}}) {
    const PagedScene scene(shape);
    const PagedScene::Rows rows = scene.LastRows(3);
    const auto count = static_cast<int32_t>(rows.slot.size());
    const std::vector<double> expected = scene.ExpectedSums(rows);
    const auto out = ToFloats(RunBlocks(scene, rows, {}));
    for (const Division& division : {Division{}, Division{.single = count, .name = "single rows"},
                                     Division{.single = count, .pieces = 2, .name = "pieces"}}) {
      std::vector<float> lse;
      const std::string what = shape.Name() + ", " + division.name;
      ExpectSameBits(ToFloats(RunBlocks(scene, rows, division, &lse)), out, what);
      // The weights that are summed are rounded to bfloat16.
      ExpectClose(lse, expected, 0, kHalfBf16, what);
    }
  }
}

TEST(AttentionBlock, EveryWayHasTheSameBits) {
  for (const PagedShape& shape :
       {PagedShape{7, 1, 64, 16, {300, 40, 1}}, PagedShape{4, 2, 64, 16, {280}, 140},
        PagedShape{2, 1, 80, 12, {390}}}) {
    const PagedScene scene(shape);
    const PagedScene::Rows rows = scene.LastRows(shape.window > 0 ? 40 : 7);
    const auto count = static_cast<int32_t>(rows.slot.size());
    const auto expected = ToFloats(RunBlocks(scene, rows, {}));
    for (const int32_t pieces : {1, 3}) {
      ExpectSameBits(ToFloats(RunBlocks(scene, rows, {.single = count, .pieces = pieces})),
                     expected,
                     shape.Name() + ", single rows in " + std::to_string(pieces) + " pieces");
    }
    // Other cuts of the same rows, each by itself.
    const auto width = static_cast<size_t>(shape.heads * shape.d);
    const size_t chunk = rows.slot.size() / 3 + 1;
    for (size_t a = 0; a < rows.slot.size(); a += chunk) {
      const size_t n = std::min(chunk, rows.slot.size() - a);
      const auto at = static_cast<ptrdiff_t>(a * width);
      ExpectSameBits(
          ToFloats(RunBlocks(scene, scene.Some(rows, a, n), {})),
          {expected.begin() + at, expected.begin() + at + static_cast<ptrdiff_t>(n * width)},
          shape.Name() + ", a chunk of " + std::to_string(n) + " rows");
    }
    // Other pages.
    PagedScene moved(shape, 1);
    ExpectSameBits(ToFloats(RunBlocks(moved, rows, {})), expected, "other pages");
  }
}

// Answers of two prompts, whose rows share the pages of the prompts' first keys.
TEST(AttentionBlock, WhatAGroupSharesIsReadTogetherWithTheSameBits) {
  // 16 heads a KV head: the first group is a tile of four rows and one more.
  const PagedShape shape{32, 2, 64, 16, {300, 290, 281, 270, 260, 150, 131, 60}};
  PagedScene scene(shape);
  for (const int32_t b : {1, 2, 3, 4}) scene.Share(b, 0, 256);
  scene.Share(6, 5, 128);
  const PagedScene::Rows rows = scene.LastRows(1);
  const Division apart{.single = 8}, together{.single = 8,
                                              .with = {0, 0, 0, 0, 0, 5, 5, 7},
                                              .shared = {256, 256, 256, 256, 256, 128, 128, 0}};
  const auto expected = ToFloats(RunBlocks(scene, rows, apart));
  ExpectClose(expected, scene.Expected(rows), kHalfBf16, scene.WeightRounding(), "apart");
  ExpectSameBits(ToFloats(RunBlocks(scene, rows, together)), expected, "together");
  // It is the first row's pages that are read, in place of the others'.
  for (int32_t p = 0; p < 128 / 16; ++p) scene.table[static_cast<size_t>(6 * scene.stride + p)] = 0;
  ExpectSameBits(ToFloats(RunBlocks(scene, rows, together)), expected, "the first row's pages");
}

// Keys behind a row and before its window are not read where no row of the tile sees them.
TEST(AttentionBlock, PagesBeforeTheWindowAreNotLookedAt) {
  const PagedShape shape{4, 2, 64, 4, {153}, 10};
  PagedScene scene(shape);
  const PagedScene::Rows rows = scene.LastRows(2);
  const auto expected = ToFloats(RunBlocks(scene, rows, {}));
  for (int32_t page = 0; page < 142 / 4; ++page) scene.table[static_cast<size_t>(page)] = 0;
  ExpectSameBits(ToFloats(RunBlocks(scene, rows, {})), expected, "released pages");
  ExpectSameBits(ToFloats(RunBlocks(scene, rows, {.single = 2})), expected, "single rows");
}

}  // namespace
}  // namespace plumb::kernels
