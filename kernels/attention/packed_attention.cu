#include "kernels/attention/packed_attention.h"

#include "kernels/attention/key_gradient_block.h"
#include "kernels/attention/query_gradient_block.h"
#include "kernels/attention/start_block.h"

namespace plumb::kernels {
namespace {

PackedSource SourceOf(const VarlenShape& s, const void* qkv, const float* lse) {
  PackedSource p;
  p.qkv = static_cast<const BFloat16*>(qkv);
  p.tokens = static_cast<int32_t>(s.tokens);
  p.sequences = s.sequences;
  p.cu_seqlens = s.cu_seqlens;
  p.parents = s.parents;
  p.query_heads = s.heads;
  p.kv_heads = s.kv_heads;
  p.rows = 2 * kGroupRows / p.group();
  p.powers = s.scale * kLog2E;
  p.window = s.window;
  p.sums = const_cast<float*>(lse);
  return p;
}

// Tiles of keys in the order of their work, the largest first, equal ones as they lie. Every block
// finds all of it out and places 256.
__global__ void __launch_bounds__(256)
    PlanKeyTiles(const __grid_constant__ PackedSource p, int32_t slots, KeyTile* tiles) {
  extern __shared__ int32_t slot_work[];
  for (auto s = static_cast<int32_t>(threadIdx.x); s < slots; s += 256)
    slot_work[s] = QueryTiles(p, KeyTileAt(p, s));
  __syncthreads();
  const auto own = static_cast<int32_t>(blockIdx.x * 256 + threadIdx.x);
  if (own >= slots) return;
  const int32_t mine = slot_work[own];
  int32_t place = 0;
  for (int32_t s = 0; s < slots; ++s)
    place += slot_work[s] > mine || (slot_work[s] == mine && s < own) ? 1 : 0;
  tiles[place] = KeyTileAt(p, own);
}

template <int D>
void StartBackward(const Launch& launch, const GradientWork& work) {
  const PackedSource& p = work.p;
  const int64_t tiles = (p.tokens + p.rows - 1) / p.rows;
  StartBlocks<QueryGradientBlock<HopperChip, D>>(launch, work, tiles * p.kv_heads);
  StartBlocks<KeyGradientBlock<HopperChip, D>>(launch, work, int64_t{work.tile_slots} * p.kv_heads);
}

}  // namespace

void PackedAttention::Cuda(const Launch& launch) const {
  PLUMB_CHECK(PackedAttentionFits(launch, shape), "attention that fits");
  PackedSource source = SourceOf(shape, qkv, lse);
  source.to = static_cast<BFloat16*>(out);
  if (shape.head_dim == 64) StartPromptBlock<64>(launch, source);
  else StartPromptBlock<128>(launch, source);
}

void PackedAttentionBackward::Cuda(const Launch& launch) const {
  PLUMB_CHECK(PackedAttentionFits(launch, shape) && TurnsOnTheWay(shape, turn),
              "attention that fits");
  if (shape.tokens == 0) return;
  const auto slots = static_cast<int32_t>(KeyTileSlots(shape.tokens, shape.sequences));
  auto* tiles = reinterpret_cast<KeyTile*>(scratch);
  const GradientWork work{.p = SourceOf(shape, qkv, lse),
                          .dout = static_cast<const BFloat16*>(dout),
                          .out = static_cast<const BFloat16*>(out),
                          .scale = shape.scale,
                          .turn = turn,
                          .dqkv = static_cast<BFloat16*>(dqkv),
                          .delta = reinterpret_cast<float*>(tiles + slots),
                          .tiles = tiles,
                          .tile_slots = slots};
  PlanKeyTiles<<<static_cast<unsigned>((slots + 255) / 256), 256,
                 static_cast<size_t>(slots) * sizeof(int32_t), StreamOf(launch)>>>(work.p, slots,
                                                                                   tiles);
  CheckLaunch("PlanKeyTiles");
  if (shape.head_dim == 64) StartBackward<64>(launch, work);
  else StartBackward<128>(launch, work);
}

}  // namespace plumb::kernels
