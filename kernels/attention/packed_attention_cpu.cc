#include <limits>

#include "kernels/attention/gradient_work.h"
#include "kernels/attention/packed_attention.h"
#include "kernels/attention/prompt_attention.h"
#include "kernels/rope.h"

namespace plumb::kernels {
namespace {

VarlenShape WithinWindow(VarlenShape shape) {
  shape.global_every = 0;
  return shape;
}

}  // namespace

bool PackedAttentionFits([[maybe_unused]] const Launch& launch,
                         [[maybe_unused]] const VarlenShape& s) {
#ifdef PLUMB_CUDA
  // A key's place is counted in 32 bits of 16 bytes.
  const int64_t width = int64_t{s.heads + 2 * s.kv_heads} * s.head_dim;
  if (launch.device().is_cpu() || launch.dtype != DType::kBFloat16 || s.kv_heads <= 0 ||
      s.heads % s.kv_heads != 0 || s.heads / s.kv_heads > kGroupRows ||
      s.tokens >= std::numeric_limits<int32_t>::max() / 2 ||
      s.tokens * (width / 8) >= std::numeric_limits<uint32_t>::max() ||
      KeyTileSlots(s.tokens, s.sequences) > kMostKeySlots)
    return false;
  const OnDevice here(launch.device());
  return PromptAttentionFits(s.head_dim);
#else
  return false;
#endif
}

int64_t PackedAttentionScratch(const VarlenShape& shape) {
  return KeyTileSlots(shape.tokens, shape.sequences) * int64_t{sizeof(KeyTile) / sizeof(float)} +
         int64_t{shape.heads} * shape.tokens;
}

bool TurnsOnTheWay(const VarlenShape& shape, const TurnTable& turn) {
  return turn.dims == 0 || turn.interleaved || turn.dims == shape.head_dim;
}

void PackedAttention::Cpu(const Launch& launch) const {
  AttentionVarlen{.shape = WithinWindow(shape), .qkv = qkv, .out = out, .lse = lse}.Cpu(launch);
}

void PackedAttentionBackward::Cpu(const Launch& launch) const {
  AttentionVarlenBackward{.shape = WithinWindow(shape),
                          .dout = dout,
                          .qkv = qkv,
                          .out = out,
                          .lse = lse,
                          .dqkv = dqkv,
                          .scratch = scratch}
      .Cpu(launch);
  if (turn.dims == 0) return;
  RopeInPlace{.qkv = dqkv,
              .position = turn.position,
              .cos_sin = turn.cos_sin,
              .rows = shape.tokens,
              .heads = shape.heads,
              .kv_heads = shape.kv_heads,
              .head_dim = shape.head_dim,
              .dims = turn.dims,
              .interleaved = turn.interleaved,
              .inverse = true}
      .Cpu(launch);
}

}  // namespace plumb::kernels
