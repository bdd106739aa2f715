// Where everything of a packed forward and its backward lies.
//
// Purpose: one layout for who runs a pass (transformer.h) and for who wants to know before what it
// will take (pass_bytes.h).
// With `recompute` the forward keeps of every layer what goes into it; what lies between is one
// layer's memory, and the backward computes it again, layer by layer.
// Thread safety: that of the branches whose plans it makes. Ownership: offsets only. Units: bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "policy_model/layers/branch.h"

namespace plumb::policy_model {

struct PassMemory {
  bool recompute = false;  // of the last PlanForward
  // In pass.saved. residual[i]: T[T, H], what branch i reads; without a backward all are one.
  std::vector<int64_t> residual;
  int64_t final_rstd = 0, normed = 0;         // normed: T[R, H] rows that the head sees
  int64_t logprob = 0, entropy = 0, lse = 0;  // float[R] each
  int64_t layers = 0;                         // where what the branches keep begins
  int64_t gathered_rows = 0;                  // in pass.scratch, of the forward: T[R, H]
  // In pass.scratch, of the backward: gradients that head and trunk pass each other, planned
  // together so that a micro-batch needs one arena.
  int64_t dx = 0, partial = 0, gathered = 0, dgathered = 0;
  int64_t dhead = 0;                // T[R, H], the gradient of `normed`
  int64_t spare = 0;                // T[T, H], what a layer that is computed again gives
  int64_t own_rows = 0;             // T[T, H], of both: embeddings of a share's own tokens
  int64_t logits = 0, dlogits = 0;  // of a chunk of rows; logits: the head's scratch if it is fused

  // Plan both arenas of the pass from their beginning; who runs it commits them.
  void PlanForward(std::span<Branch> branches, const PackedPass& pass, int64_t rows,
                   bool again_in_backward);
  // `chunk`: rows of logits at a time; 0: a scalar head. REQUIRES: the plan of its forward.
  void PlanBackward(std::span<Branch> branches, const PackedPass& pass, int64_t rows, int64_t chunk,
                    bool guest = false);

  // Rows whose logits are there at a time, where they are there.
  static int64_t LogitRows(Device device, int64_t rows, int64_t vocab);
  // Whether log-probs come of one kernel that leaves no logits (kernels/head): where its products
  // are no slower than the library's and the vocabulary is worth the sharing out.
  static bool FusedHead(const kernels::Launch& launch, const ModelShape& shape);
  // Rows that the head takes at a time, and its bytes of `logits` for them. `guest`: somebody looks
  // at the logits (pass_guest.h), so that they have to be there.
  static int64_t HeadRows(const kernels::Launch& launch, const ModelShape& shape, int64_t rows,
                          bool guest = false);
  static int64_t HeadBytes(const kernels::Launch& launch, const ModelShape& shape, int64_t chunk,
                           bool guest = false);
};

// The same of a paged step, in one arena.
struct StepMemory {
  int64_t x = 0, gathered = 0;  // T[rows, H], T[logit rows, H]
  int64_t own_rows = 0;         // T[rows, H]; of a share of a model
  int64_t own_logits = 0;       // float[logit rows, rows of its vocabulary]; of a share
  int64_t logits = 0;           // float[logit rows, V]
  int64_t taken = 0;            // int32: experts that the rows go to, on a GPU
  // `vocab`: of the whole model.
  void Plan(std::span<Branch> branches, const PagedPass& pass, int64_t logit_rows, int64_t vocab);
};

}  // namespace plumb::policy_model
