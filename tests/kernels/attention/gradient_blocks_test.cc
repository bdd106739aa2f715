#include "kernels/attention/gradient_work.h"

#include "kernels/attention/key_gradient_block.h"
#include "kernels/attention/key_stream.h"
#include "kernels/attention/query_gradient_block.h"
#include "tests/kernels/attention/emulated_hopper.h"
#include "tests/kernels/attention/packed_scene.h"

namespace plumb::kernels {
namespace {

PackedSource SourceOf(const PackedScene& s, const std::vector<BFloat16>& qkv) {
  const VarlenShape v = s.Varlen();
  PackedSource p;
  p.qkv = qkv.data();
  p.tokens = static_cast<int32_t>(v.tokens);
  p.sequences = v.sequences;
  p.cu_seqlens = v.cu_seqlens;
  p.parents = v.parents;
  p.query_heads = v.heads;
  p.kv_heads = v.kv_heads;
  p.rows = 128 / p.group();
  p.powers = v.scale * kLog2E;
  p.window = v.window;
  p.sums = const_cast<float*>(s.lse.data());
  return p;
}

std::vector<BFloat16> Halves(const std::vector<float>& x) {
  std::vector<BFloat16> out(x.size());
  std::transform(x.begin(), x.end(), out.begin(), ToBFloat16);
  return out;
}

// Tiles of keys, those with most queries first.
std::vector<KeyTile> Planned(const PackedSource& p) {
  std::vector<KeyTile> tiles;
  for (int32_t s = 0; s < KeyTileSlots(p.tokens, p.sequences); ++s)
    tiles.push_back(KeyTileAt(p, s));
  std::stable_sort(tiles.begin(), tiles.end(), [&](const KeyTile& a, const KeyTile& b) {
    return QueryTiles(p, a) > QueryTiles(p, b);
  });
  return tiles;
}

template <int D>
std::vector<float> BlockGradient(const PackedScene& s, int32_t blocks) {
  const auto qkv = Halves(s.qkv), dout = Halves(s.dout), out = Halves(s.out);
  std::vector<BFloat16> dqkv(qkv.size(), BFloat16{0xFFFF});
  std::vector<float> delta(s.lse.size(), NAN);
  const PackedSource p = SourceOf(s, qkv);
  const std::vector<KeyTile> tiles = Planned(p);
  const GradientWork work{.p = p,
                          .dout = dout.data(),
                          .out = out.data(),
                          .scale = s.shape.Scale(),
                          .turn = s.Turn(),
                          .dqkv = dqkv.data(),
                          .delta = delta.data(),
                          .tiles = tiles.data(),
                          .tile_slots = static_cast<int32_t>(tiles.size())};
  const auto run = [&]<class Block>(std::type_identity<Block>) {
    for (int32_t b = 0; b < blocks; ++b) {
      EmulatedHopper::RunBlock(Block::kThreads, Block::kBytes,
                               [&](unsigned char* memory) { Block::Run(work, b, blocks, memory); });
    }
  };
  run(std::type_identity<QueryGradientBlock<EmulatedHopper, D>>());
  run(std::type_identity<KeyGradientBlock<EmulatedHopper, D>>());
  std::vector<float> gradient;
  for (const BFloat16 x : dqkv) gradient.push_back(ToFloat(x));
  return gradient;
}

std::vector<float> BlockGradient(const PackedScene& s, int32_t blocks) {
  return s.shape.d == 64 ? BlockGradient<64>(s, blocks) : BlockGradient<128>(s, blocks);
}

class GradientBlocksTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override { EmulatedHopper::eager = GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Copies, GradientBlocksTest, ::testing::Bool());

// Sequences of parts of a tile and of several, heads that do not divide a tile of rows, prefixes
// with and without a window, an empty sequence, both ways to turn.
TEST_P(GradientBlocksTest, GradientsAreTheDefinitions) {
  struct Case {
    PackedShape shape;
    int32_t blocks;
  };
  for (const Case& c :
       {Case{{2, 1, 64, {1, 70, 0, 130}, {}, 0, 64}, 1},
        Case{{3, 1, 64, {40, 30, 75, 9}, {-1, 0, 0, -1}}, 2},
        Case{{2, 2, 128, {66}, {}, 0, 128}, 1}, Case{{2, 2, 64, {150, 20}, {}, 17, 16, true}, 2},
        Case{{7, 1, 64, {70, 80, 3}, {-1, 0, 0}, 90}, 1}}) {
    const PackedScene scene(c.shape);
    scene.ExpectGradient(BlockGradient(scene, c.blocks), "blocks");
  }
}

TEST_P(GradientBlocksTest, HowManyBlocksShareTheWorkChangesNoBits) {
  const PackedScene scene({3, 1, 64, {40, 130, 75}, {-1, 0, 0}});
  ExpectSameBits(BlockGradient(scene, 3), BlockGradient(scene, 1), "three blocks");
}

TEST(KeyTiles, EachTokenIsInOneAndItsQueriesAreCounted) {
  const PackedScene scene(
      {1, 1, 64, {0, 1, 64, 65, 3, 128, 0, 40}, {-1, -1, -1, -1, 3, 3, -1, -1}});
  PackedScene narrow = scene;
  narrow.shape.window = 50;
  for (const PackedScene* s : {&scene, const_cast<const PackedScene*>(&narrow)}) {
    const std::vector<BFloat16> none;
    PackedSource p = SourceOf(*s, none);
    std::vector<int32_t> tiles_of(s->tokens(), 0);
    for (int32_t slot = 0; slot < KeyTileSlots(p.tokens, p.sequences); ++slot) {
      const KeyTile tile = KeyTileAt(p, slot);
      for (int32_t t = tile.begin; t < tile.end; ++t) ++tiles_of[static_cast<size_t>(t)];
      if (tile.begin == tile.end) {
        EXPECT_EQ(QueryTiles(p, tile), 0);
        continue;
      }
      // Every query that sees a key of the tile is in one range, at its place.
      for (int32_t t = 0; t < p.tokens; ++t) {
        const PackedSource::Sequence own = p.SequenceOfRow(t);
        const int32_t place = p.Place(own, t);
        bool sees = false;
        for (int32_t at = p.First(place); at <= place; ++at) {
          const int32_t token = at < own.base ? own.prefix + at : own.begin + at - own.base;
          sees = sees || (token >= tile.begin && token < tile.end);
        }
        int32_t ranges = 0;
        for (int32_t r = 0; r < QueryRanges(p, tile); ++r) {
          const QueryRange range = QueryRangeAt(p, tile, r);
          if (t < range.begin || t >= range.end) continue;
          ++ranges;
          if (p.window > 0) {
            EXPECT_EQ(t + range.shift, place);
          }
        }
        if (sees) EXPECT_EQ(ranges, 1) << "token " << t << ", place " << slot;
        else EXPECT_LE(ranges, 1) << "token " << t << ", place " << slot;
      }
    }
    EXPECT_EQ(tiles_of, std::vector<int32_t>(s->tokens(), 1));
  }
}

}  // namespace
}  // namespace plumb::kernels
