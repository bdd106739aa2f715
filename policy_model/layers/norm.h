// The norms of branches and of the head, over the hidden size, each of a kind that its layer names.
//
// Thread safety: const. Shapes: rows [n, H] of the weights' type; rstd float[n].
#pragma once

#include "kernels/device/device_memory.h"
#include "kernels/layer_norm.h"
#include "kernels/rms_norm.h"
#include "policy_model/families/layer_spec.h"
#include "policy_model/layers/stage.h"

namespace plumb::policy_model {

// Both backwards share PackedPass::norm_scratch.
static_assert(2 * kernels::kLayerNormBlocks <= kernels::kRmsNormScratchRows);

struct NormLayer {
  NormKind kind = NormKind::kRms;
  int64_t weight = -1;  // offset; -1: there is no norm
  int64_t bias = -1;    // offset; of a LayerNorm
  float eps = 0;
  float weight_offset = 0;  // of an RMSNorm

  bool there() const { return weight >= 0; }

  // `copy`: T[n, H] beside x and y, becomes x; or nullptr.
  void Forward(const Pass& pass, const void* x, int64_t rows, void* y, float* rstd,
               void* copy = nullptr) const {
    if (kind == NormKind::kLayer) {
      if (copy) {
        kernels::Copy(pass.launch.stream, copy, x,
                      static_cast<size_t>(pass.Bytes(rows * pass.hidden())));
      }
      kernels::Call(pass.launch, kernels::LayerNorm{.x = x,
                                                    .w = pass.W(weight),
                                                    .b = pass.W(bias),
                                                    .rows = rows,
                                                    .hidden = pass.hidden(),
                                                    .eps = eps,
                                                    .y = y,
                                                    .rstd = rstd});
      return;
    }
    kernels::Call(pass.launch, kernels::RmsNorm{.x = x,
                                                .w = pass.W(weight),
                                                .rows = rows,
                                                .hidden = pass.hidden(),
                                                .eps = eps,
                                                .weight_offset = weight_offset,
                                                .y = y,
                                                .rstd = rstd,
                                                .copy = copy});
  }
  // dx: written, or added to when `accumulate`. dw goes to pass.grad where it is wanted.
  void Backward(const PackedPass& pass, const void* dy, const void* x, const float* rstd,
                int64_t rows, bool accumulate, void* dx) const {
    if (kind == NormKind::kLayer) {
      kernels::Call(pass.launch, kernels::LayerNormBackward{.dy = dy,
                                                            .x = x,
                                                            .w = pass.W(weight),
                                                            .rstd = rstd,
                                                            .rows = rows,
                                                            .hidden = pass.hidden(),
                                                            .accumulate_dx = accumulate,
                                                            .dx = dx,
                                                            .dw = pass.G(weight),
                                                            .db = pass.G(bias),
                                                            .scratch = pass.norm_scratch});
      return;
    }
    kernels::Call(pass.launch, kernels::RmsNormBackward{.dy = dy,
                                                        .x = x,
                                                        .w = pass.W(weight),
                                                        .rstd = rstd,
                                                        .rows = rows,
                                                        .hidden = pass.hidden(),
                                                        .weight_offset = weight_offset,
                                                        .accumulate_dx = accumulate,
                                                        .dx = dx,
                                                        .dw = pass.G(weight),
                                                        .scratch = pass.norm_scratch});
  }
};

}  // namespace plumb::policy_model
