#include "policy_model/head_pass.h"

#include <algorithm>
#include <span>

#include "kernels/token_logprob.h"
#include "kernels/token_mask.h"
#include "policy_model/layers/ops.h"
#include "policy_model/pass_memory.h"

namespace plumb::policy_model {

using kernels::Call;

HeadPass::HeadPass(const ModelShape& shape, const kernels::Launch& launch)
    : shape_(shape),
      launch_(launch),
      unused_(launch.stream, DType::kInt32, static_cast<int64_t>(shape.unused_tokens.size())),
      sets_(launch.stream) {
  if (!shape.unused_tokens.empty())
    unused_.CopyFromHost(std::as_bytes(std::span<const int32_t>(shape.unused_tokens)));
}

bool HeadPass::Fused(const Rows& of) const {
  return !of.guest && PassMemory::FusedHead(launch_, shape_);
}

int64_t HeadPass::ChunkOf(const Rows& of) const {
  return PassMemory::HeadRows(launch_, shape_, static_cast<int64_t>(of.batch.rows.size()),
                              of.guest != nullptr);
}

const std::byte* HeadPass::At(const Rows& of, int64_t row) const {
  return of.normed + static_cast<size_t>(row * shape_.hidden) * ElementSize(launch_.dtype);
}

// Those rows for the kernel that leaves no logits.
kernels::HeadShape HeadPass::FusedRows(const Rows& of, int64_t first, int64_t rows) {
  return {.x = At(of, first),
          .w = of.w,
          .target = of.targets + first,
          .rows = rows,
          .hidden = shape_.hidden,
          .vocab = shape_.vocab,
          .temperature = of.temperature,
          .dropped = static_cast<const int32_t*>(unused_.data()),
          .dropped_count = unused_.elements(),
          .kept = sets_.Of(of.batch, first, rows, shape_.vocab)};
}

// The logits of those rows, over what their tokens were drawn from.
void HeadPass::Logits(const Rows& of, int64_t first, int64_t rows, float* logits) {
  ops::LinearToFloat(launch_, At(of, first), of.w, rows, shape_.vocab, shape_.hidden, logits);
  DropUnused(logits, rows);
  const uint32_t* kept = sets_.Of(of.batch, first, rows, shape_.vocab);
  if (!kept) return;
  Call(launch_,
       kernels::KeepTokens{.logits = logits, .rows = rows, .vocab = shape_.vocab, .kept = kept});
}

// What of a head's product is a distribution over tokens.
void HeadPass::DropUnused(float* logits, int64_t rows) const {
  if (unused_.elements() == 0) return;
  Call(launch_, kernels::DropTokens{.logits = logits,
                                    .rows = rows,
                                    .vocab = shape_.vocab,
                                    .ids = static_cast<const int32_t*>(unused_.data()),
                                    .count = unused_.elements()});
}

HeadRows HeadPass::Shown(const Rows& of, int64_t first, int64_t rows, const float* logits) const {
  return {.first = first,
          .rows = rows,
          .width = shape_.hidden,
          .vocab = shape_.vocab,
          .hidden = At(of, first),
          .logits = logits};
}

void HeadPass::Forward(const Rows& of, float* scratch) {
  const auto rows = static_cast<int64_t>(of.batch.rows.size());
  const int64_t chunk = ChunkOf(of);
  for (int64_t r = 0; r < rows; r += chunk) {
    const int64_t n = std::min(chunk, rows - r);
    if (Fused(of)) {
      Call(launch_, kernels::HeadLogprob{.shape = FusedRows(of, r, n),
                                         .logprob = of.logprob + r,
                                         .entropy = of.entropy + r,
                                         .lse = of.lse + r,
                                         .scratch = scratch});
      continue;
    }
    float* const logits = LogitsOf(of, r, scratch);
    Logits(of, r, n, logits);
    Call(launch_, kernels::TokenLogprob{.logits = logits,
                                        .target = of.targets + r,
                                        .rows = n,
                                        .vocab = shape_.vocab,
                                        .temperature = of.temperature,
                                        .logprob = of.logprob + r,
                                        .entropy = of.entropy + r,
                                        .lse = of.lse + r});
    if (of.guest) of.guest->Forward(launch_, Shown(of, r, n, logits));
  }
}

// The logits of a chunk, kept or once more, their gradient, and both products; all in one, or one
// after the other.
void HeadPass::Backward(const Rows& of, const Back& back) {
  const auto rows = static_cast<int64_t>(of.batch.rows.size());
  const int64_t h = shape_.hidden, v = shape_.vocab, chunk = ChunkOf(of);
  const float* entropy = back.g_entropy ? of.entropy : nullptr;
  for (int64_t r = 0; r < rows; r += chunk) {
    const int64_t c = std::min(chunk, rows - r);
    std::byte* const dx = back.dhead + static_cast<size_t>(r * h) * ElementSize(launch_.dtype);
    if (Fused(of)) {
      Call(launch_,
           kernels::HeadLogprobBackward{.shape = FusedRows(of, r, c),
                                        .lse = of.lse + r,
                                        .entropy = entropy ? entropy + r : nullptr,
                                        .g_logprob = back.g_logprob + r,
                                        .g_entropy = entropy ? back.g_entropy + r : nullptr,
                                        .dx = dx,
                                        .dw = back.dw,
                                        .scratch = back.logits});
      continue;
    }
    float* const logits = LogitsOf(of, r, back.logits);
    if (!of.kept) Logits(of, r, c, logits);
    Call(launch_, kernels::TokenLogprobBackward{.logits = logits,
                                                .target = of.targets + r,
                                                .lse = of.lse + r,
                                                .entropy = entropy ? entropy + r : nullptr,
                                                .g_logprob = back.g_logprob + r,
                                                .g_entropy = entropy ? back.g_entropy + r : nullptr,
                                                .rows = c,
                                                .vocab = v,
                                                .temperature = of.temperature,
                                                .dlogits = back.dlogits});
    if (of.guest) of.guest->BackwardLogits(launch_, Shown(of, r, c, logits), back.dlogits);
    ops::LinearBackwardInput(launch_, back.dlogits, of.w, c, v, h, false, dx);
    if (back.dw) {
      ops::LinearBackwardWeight(launch_, back.dlogits, At(of, r), c, v, h, back.dw,
                                /*accumulate=*/r > 0 || !back.dw_empty);
    }
    if (of.guest) of.guest->BackwardHidden(launch_, Shown(of, r, c, logits), dx);
  }
}

}  // namespace plumb::policy_model
