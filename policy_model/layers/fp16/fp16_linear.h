// Products of layers whose operands are float16 (Pass::fp16, model.products = "fp16"), forward and
// backward, as torch.autocast(dtype=float16) has them: every operand is rounded anew
// (kernels/fp16/round_half.h) and sums are float32. Unlike there, what comes out is not float16 but
// the type of the model or, of a gradient of weights, float32: a sum does not overflow, an operand
// may. What makes gradients large enough for float16 is the scale of the loss
// (learner/update/guard/loss_scale.h).
//
// On a GPU the products are LibTorch's (cuBLAS); on the CPU the same terms are summed as floats.
// The weights that are trained, and generation, are not touched.
// Thread safety: of the stage. Ownership: keeps offsets of the last plan. Errors: kUnsupported from
// CheckFp16. Shapes: as in layers/ops.h.
#pragma once

#include <cstdint>

#include "policy_model/layers/stage.h"

namespace plumb::policy_model {

// Throws kUnsupported for a model with experts, whose products are computed in its type only.
void CheckFp16(const TensorTable& table);

class Fp16Linear {
 public:
  // What products of W[rows, columns] with `n` tokens take of an arena, and those of low-rank parts
  // of up to `rank` beside it.
  void Plan(const Pass& pass, int64_t n, int64_t rows, int64_t columns, int64_t rank,
            Arena& scratch);
  // As ops.h has them.
  void Linear(const PackedPass& pass, const void* x, const void* w, int64_t m, int64_t n, int64_t k,
              bool accumulate, void* y) const;
  void BackwardInput(const PackedPass& pass, const void* dy, const void* w, int64_t m, int64_t n,
                     int64_t k, bool accumulate, void* dx) const;
  void BackwardWeight(const PackedPass& pass, const void* dy, const void* x, int64_t m, int64_t n,
                      int64_t k, float* dw, bool accumulate) const;
  void BackwardWeightNarrow(const PackedPass& pass, const void* dy, const void* x, int64_t m,
                            int64_t n, int64_t k, BFloat16* dw) const;

 private:
  int64_t left_ = 0, right_ = 0;  // operands
  // Sums on their way to the model's type: rows of a result at a time, as many as there is room
  // for.
  int64_t sums_ = 0, sum_elements_ = 0;
};

}  // namespace plumb::policy_model
