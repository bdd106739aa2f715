#include "kernels/attention/prompt_attention.h"

#include "kernels/attention/start_block.h"

namespace plumb::kernels {

bool PromptAttentionFits(int32_t head_dim) {
  return (head_dim == 64 || head_dim == 128) && HasHopperProducts();
}

void StartPromptAttention(const Launch& launch, AttentionWork work, int32_t head_dim) {
  PLUMB_CHECK(work.group <= kGroupRows, "heads a KV head fit a tile");
  work.rows_a_block = 2 * kGroupRows / work.group;
  const PagedSource source{work};
  if (head_dim == 64) StartPromptBlock<64>(launch, source);
  else StartPromptBlock<128>(launch, source);
}

}  // namespace plumb::kernels
