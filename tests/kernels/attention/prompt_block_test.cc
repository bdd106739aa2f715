#include "kernels/attention/prompt_block.h"

#include "tests/kernels/attention/emulated_hopper.h"
#include "tests/kernels/attention/paged_scene.h"

namespace plumb::kernels {
namespace {

struct Result {
  std::vector<float> out, lse;
};

std::vector<float> ToFloats(const std::vector<BFloat16>& x) {
  std::vector<float> out;
  for (const BFloat16 v : x) out.push_back(ToFloat(v));
  return out;
}

// The same rows by the blocks of one warp's products (`blocks` 0), or by so many of four warps'.
template <int D>
Result RunBlocks(const PagedScene& s, const PagedScene::Rows& rows, int32_t blocks) {
  const PagedKv kv = s.View();
  const auto count = static_cast<int32_t>(rows.slot.size());
  const std::vector<BFloat16> q = ToHalves(rows.q);
  std::vector<BFloat16> out(static_cast<size_t>(count * s.shape.heads * D), BFloat16{0xFFFF});
  Result result;
  result.lse.assign(static_cast<size_t>(count * s.shape.heads), NAN);
  AttentionWork work{.q = q.data(),
                     .q_stride = rows.q_stride,
                     .slot = rows.slot.data(),
                     .position = rows.position.data(),
                     .page_table = s.table.data(),
                     .page_table_stride = s.stride,
                     .end = count,
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
                     .lse = result.lse.data(),
                     .lse_stride = count};
  if (blocks == 0) {
    using Block = AttentionBlock<EmulatedChip, D, 4>;
    work.rows_a_block = 64 / work.group;
    std::vector<BFloat16> memory(Block::kBytes / 2 + 8);
    auto* aligned = memory.data() + (16 - reinterpret_cast<uintptr_t>(memory.data()) % 16) % 16 / 2;
    for (int32_t x = 0; x < (count + work.rows_a_block - 1) / work.rows_a_block; ++x) {
      for (int32_t h = 0; h < s.shape.kv_heads; ++h)
        EmulatedBlock::Run(128, [&] { Block::Run(work, x, h, 0, aligned); });
    }
  } else {
    using Block = PromptBlock<EmulatedHopper, D, PagedSource>;
    work.rows_a_block = 128 / work.group;
    const PagedSource source{work};
    for (int32_t b = 0; b < blocks; ++b) {
      EmulatedHopper::RunBlock(Block::kThreads, Block::kBytes, [&](unsigned char* memory) {
        Block::Run(source, b, blocks, memory);
      });
    }
  }
  result.out = ToFloats(out);
  return result;
}

Result Attend(const PagedScene& s, const PagedScene::Rows& rows, int32_t blocks) {
  return s.shape.d == 64 ? RunBlocks<64>(s, rows, blocks) : RunBlocks<128>(s, rows, blocks);
}

class PromptBlockTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override { EmulatedHopper::eager = GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Copies, PromptBlockTest, ::testing::Bool());

// Sequences that share a tile and that fill some, edges of tiles and splits, heads a KV head that
// do not divide a tile, windows, pages whose size is no power of two.
TEST_P(PromptBlockTest, RowsHaveTheBitsOfOneWarpsProducts) {
  struct Case {
    PagedShape shape;
    int32_t last, blocks;
  };
  for (const Case& c :
       {Case{{2, 2, 64, 16, {1, 63, 64, 65, 130}}, 70, 1},
        Case{{7, 1, 64, 16, {300, 40, 1}}, 12, 1}, Case{{4, 1, 128, 12, {257, 5}}, 40, 2},
        Case{{6, 2, 64, 16, {200, 130}, 17}, 50, 2}, Case{{4, 2, 64, 16, {330}, 140}, 40, 1}}) {
    const PagedScene scene(c.shape);
    const PagedScene::Rows rows = scene.LastRows(c.last);
    const Result got = Attend(scene, rows, c.blocks), want = Attend(scene, rows, 0);
    ExpectSameBits(got.out, want.out, c.shape.Name());
    ExpectSameBits(got.lse, want.lse, c.shape.Name() + ", log-sum-exp");
    ExpectClose(got.out, scene.Expected(rows), kHalfBf16, scene.WeightRounding(), c.shape.Name());
  }
}

}  // namespace
}  // namespace plumb::kernels
