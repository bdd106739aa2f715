#include "kernels/attention/tensor_attention.h"

#include <algorithm>

#include "kernels/attention/attention_block.h"

namespace plumb::kernels {
namespace {

// Blocks of one row that keep a large GPU's memory busy: about two on each of its 132
// multiprocessors.
constexpr int64_t kEnoughBlocks = 264;
// Blocks that are started where there are too few rows.
constexpr int64_t kWantedBlocks = 528;
constexpr int64_t kMostPartials = int64_t{128} << 18;  // floats: 128 MiB

}  // namespace

bool TensorAttentionFits(DType dtype, const AttentionPaged& k) {
  const int32_t d = k.kv.head_dim;
  const bool size = d == 64 || d == 80 || d == 96 || d == 128 || d == 256;
  // A key's place within a layer's pages is counted in 32 bits of 16 bytes, 64 GiB.
  constexpr int64_t kMostPlaces = (int64_t{1} << 32) - 1;
  // Rows in fewer bits, sinks, chosen and global positions, and a latent that is key and value at
  // once have what the block does not: attention_paged.cu's own kernels, which take every size and
  // float32, too. More than 16 heads a KV head are more rows than a warp has.
  return size && dtype == DType::kBFloat16 && k.kv.dtype == DType::kBFloat16 &&
         k.kv.format == KvFormat::kModel && !k.kv.keys_only && k.kv.kv_heads > 0 &&
         k.heads / k.kv.kv_heads <= 16 && k.kv.layer_stride() / 8 < kMostPlaces &&
         k.global_every == 0 && !k.chosen && !k.sinks;
}

TensorAttentionPlan PlanTensorAttention(const AttentionPaged& k) {
  const int64_t positions = int64_t{k.rows.page_table_stride} * k.kv.page_tokens,
                splits = std::max<int64_t>(1, (positions + kSplitKeys - 1) / kSplitKeys),
                // A window's first key may be the last of a split.
      seen = k.window > 0 ? (int64_t{k.window} + kSplitKeys - 2) / kSplitKeys + 1 : splits,
                record = k.kv.head_dim + 2, blocks = int64_t{k.rows.single} * k.kv.kv_heads;
  TensorAttentionPlan plan;
  plan.most_splits = static_cast<int32_t>(std::min(splits, seen));
  if (blocks >= kEnoughBlocks) {
    // A shared part has a block a tile of rows, which with fewer rows would read slower than all of
    // them by themselves.
    plan.totals = k.window > 0 ? 0 : k.rows.single * int64_t{k.heads} * record;
    return plan;
  }
  if (blocks == 0) return plan;
  const int64_t partials = k.rows.single * int64_t{k.heads} * plan.most_splits * record;
  if (partials > kMostPartials) return plan;
  plan.pieces = static_cast<int32_t>(
      std::min<int64_t>(plan.most_splits, (kWantedBlocks + blocks - 1) / blocks));
  plan.partials = plan.pieces > 1 ? partials : 0;
  return plan;
}

int64_t AttentionPagedScratch(const Launch& launch, const AttentionPaged& k) {
  if (launch.device().is_cpu() || !TensorAttentionFits(launch.dtype, k)) return 0;
  return 4 * PlanTensorAttention(k).floats();
}

}  // namespace plumb::kernels
