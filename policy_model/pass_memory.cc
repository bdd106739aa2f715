#include "policy_model/pass_memory.h"

#include <algorithm>

#include "kernels/bf16_gemm.h"
#include "kernels/head/head_logprob.h"
#include "kernels/products/row_product.h"
#include "kernels/rms_norm.h"

namespace plumb::policy_model {
namespace {

// Of float logits at a time. On a GPU every chunk adds to the gradient of the whole head, which is
// half a gigabyte at 896 x 151,936: the chunk has to be worth that, and fill the card.
constexpr int64_t kLogitBytes = int64_t{32} << 20, kLogitBytesOnGpu = int64_t{1} << 30;
constexpr int64_t kProductTile = 128;  // rows of a product that a GPU computes as one
constexpr int64_t kFusedVocab = 4096;  // pieces enough for the threads of most machines

bool BeginsLayer(size_t branch) { return branch % kBranchesALayer == 0; }

}  // namespace

int64_t PassMemory::LogitRows(Device device, int64_t rows, int64_t vocab) {
  int64_t most = (device.is_cpu() ? kLogitBytes : kLogitBytesOnGpu) / (4 * vocab);
  if (!device.is_cpu() && most > kProductTile) most -= most % kProductTile;
  return std::clamp<int64_t>(most, 1, std::max<int64_t>(1, rows));
}

bool PassMemory::FusedHead(const kernels::Launch& launch, const ModelShape& shape) {
  // The engine has logits, and takes log-probs of them.
  if (kernels::ExactOn(launch.device())) return false;
  return launch.device().is_cpu() && shape.vocab >= kFusedVocab && !shape.scalar_head &&
         (launch.dtype == DType::kFloat32 || kernels::PreferBf16Gemm());
}

int64_t PassMemory::HeadRows(const kernels::Launch& launch, const ModelShape& shape, int64_t rows,
                             bool guest) {
  if (guest || !FusedHead(launch, shape)) return LogitRows(launch.device(), rows, shape.vocab);
  return std::clamp<int64_t>(rows, 1, kernels::HeadRows(launch, shape.hidden));
}

int64_t PassMemory::HeadBytes(const kernels::Launch& launch, const ModelShape& shape, int64_t chunk,
                              bool guest) {
  if (guest || !FusedHead(launch, shape)) return 4 * chunk * shape.vocab;
  return 4 * kernels::HeadScratch(chunk, shape.hidden, shape.vocab);
}

void PassMemory::PlanForward(std::span<Branch> branches, const PackedPass& pass, int64_t rows,
                             bool again_in_backward) {
  const int64_t n = pass.tokens(), h = pass.hidden();
  Arena &saved = pass.saved, &scratch = pass.scratch;
  recompute = pass.keep && again_in_backward;
  saved.Begin();
  scratch.Begin();
  const int64_t row = pass.Bytes(n * h);
  residual.assign(branches.size() + 1, saved.Reserve(row));
  const int64_t within = recompute ? saved.Reserve(row) : 0;  // the layer that is looked at
  for (size_t i = 1; pass.keep && i < residual.size(); ++i)
    residual[i] = recompute && !BeginsLayer(i) ? within : saved.Reserve(row);
  final_rstd = saved.Reserve(4 * n);
  normed = saved.Reserve(pass.Bytes(rows * h));
  logprob = saved.Reserve(4 * rows);
  entropy = saved.Reserve(4 * rows);
  lse = saved.Reserve(4 * rows);
  layers = saved.Mark();
  for (size_t i = 0; i < branches.size(); ++i) {
    if (!pass.keep || (recompute && BeginsLayer(i))) saved.Rewind(layers);
    scratch.Rewind(0);
    branches[i].PlanForward(pass);
  }
  scratch.Rewind(0);
  if (pass.group) own_rows = scratch.Reserve(row);  // before the first branch
  scratch.Rewind(0);
  gathered_rows = scratch.Reserve(pass.Bytes(rows * h));
}

void PassMemory::PlanBackward(std::span<Branch> branches, const PackedPass& pass, int64_t rows,
                              int64_t chunk, bool guest) {
  const int64_t n = pass.tokens(), h = pass.hidden();
  const ModelShape& shape = pass.weights.shape();
  Arena& a = pass.scratch;
  a.Begin();
  dx = a.Reserve(pass.Bytes(n * h));
  partial = a.Reserve(4 * kernels::kRmsNormScratchRows * h);
  dhead = a.Reserve(pass.Bytes(rows * h));
  gathered = a.Reserve(pass.Bytes(rows * h));
  dgathered = a.Reserve(pass.Bytes(rows * h));
  spare = recompute ? a.Reserve(pass.Bytes(n * h)) : 0;
  const int64_t mark = a.Mark();  // head, branches and embedding come one after the other
  if (pass.group) own_rows = a.Reserve(pass.Bytes(n * h));
  a.Rewind(mark);
  logits = a.Reserve(chunk > 0 ? HeadBytes(pass.launch, shape, chunk, guest) : 0);
  const bool fused = !guest && FusedHead(pass.launch, shape);
  dlogits = a.Reserve(fused ? 0 : pass.Bytes(chunk * shape.vocab));
  for (size_t i = 0; i < branches.size(); ++i) {
    a.Rewind(mark);
    if (recompute) {
      // The forward's regions once more, at the places in `saved` where they were. Those of the
      // backward come behind them, because parts of a branch know their last plan only.
      if (BeginsLayer(i)) pass.saved.Rewind(layers);
      branches[i].PlanForward(pass);
    }
    branches[i].PlanBackward(pass);
  }
}

void StepMemory::Plan(std::span<Branch> branches, const PagedPass& pass, int64_t logit_rows,
                      int64_t vocab) {
  const int64_t h = pass.hidden();
  Arena& a = pass.scratch;
  a.Begin();
  x = a.Reserve(pass.Bytes(pass.rows.rows * h));
  gathered = a.Reserve(pass.Bytes(logit_rows * h));
  logits = a.Reserve(4 * logit_rows * vocab);
  if (pass.group) {
    own_rows = a.Reserve(pass.Bytes(pass.rows.rows * h));
    own_logits = a.Reserve(4 * logit_rows * pass.weights.shape().vocab);
  }
  if (pass.routing && pass.launch.device().is_cuda()) {
    taken = a.Reserve(4 * static_cast<int64_t>(pass.routing->Choices(
                              pass.rows.rows, pass.weights.shape().experts.per_token)));
  }
  const int64_t mark = a.Mark();
  for (Branch& branch : branches) {
    a.Rewind(mark);
    branch.PlanStep(pass);
  }
}

}  // namespace plumb::policy_model
